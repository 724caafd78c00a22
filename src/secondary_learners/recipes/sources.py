"""What a recipe says of its sources: in a card, in an entry, and without this machine's paths."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from secondary_learners.text.corpus import Source

__all__ = ["corpus_name", "describe_sources", "portable_names"]


def portable_names(files: Iterable[str]) -> dict[str, str]:
    """For each absolute path its name, by which it is found below a corpus folder.

    Two files of the same name keep as much of their folders as tells them apart.
    """
    own = {name: Path(name) for name in files if Path(name).is_absolute()}
    names: dict[str, str] = {}
    for name, path in own.items():
        others = [other for other in own.values() if other != path]
        parts = path.parts[1:]
        kept = 1
        while kept < len(parts) and any(o.parts[-kept:] == parts[-kept:] for o in others):
            kept += 1
        names[name] = "/".join(parts[-kept:])
    return names


def describe_sources(sources: tuple[Source, ...]) -> str:
    """One line for a card: each domain and where its text comes from."""
    return "; ".join(
        f"{source.domain} ({source.builtin or source.dataset or source.files})"
        for source in sources
    )


def corpus_name(sources: Iterable[Source]) -> str:
    """As a registry entry has it: the domains."""
    return "+".join(dict.fromkeys(source.domain for source in sources))
