"""Two edits of one card: merged where they are apart, refused where they are not."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Conflict", "merge_cards"]


@dataclass(frozen=True)
class Conflict:
    """A place that both sides changed: the lines of each."""

    ours: str
    theirs: str


def merge_cards(base: str, ours: str, theirs: str) -> str | list[Conflict]:
    """The text with both sides' changes to `base`, or every place where they cannot both be.

    Line by line; an editor's line ends and a missing last one are not changes.
    """
    from merge3 import Merge3

    groups = Merge3(_lines(base), _lines(ours), _lines(theirs)).merge_groups()
    merged: list[str] = []
    conflicts: list[Conflict] = []
    for group in groups:
        if group[0] == "conflict":
            conflicts.append(Conflict("".join(group[2]), "".join(group[3])))
        else:
            merged += group[1]
    return conflicts or "".join(merged)


def _lines(text: str) -> list[str]:
    return [f"{line}\n" for line in text.splitlines()]
