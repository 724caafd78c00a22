"""How the templates write numbers, names and code: {{ row.r2 | number }}."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from secondary_learners.cards.card import Data
from secondary_learners.content import content

__all__ = ["FILTERS", "parameters"]


def _fmt(value: Any, spec: str) -> str:
    if not isinstance(value, int | float):
        value = float(str(value))  # an undefined value says its name here
    return format(value, spec)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _probability(p: float | None) -> str:
    return "–" if p is None else f"{p:.1e}" if p < 1e-3 else f"{p:.3f}"


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]"


def _with_interval(row: Data, key: str, sign: str = "") -> str:
    low, high = row[f"{key}_interval"]
    return f"{row[key]:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"


def _beyond_chance(row: Data, key: str) -> bool:
    low, high = row[f"{key}_interval"]
    return bool(low > 0 or high < 0)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _code(text: str) -> str:
    """As code in Markdown, whatever backticks it has."""
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (1 + max(map(len, re.findall("`+", text))))
    return f"{fence} {text} {fence}"


def _cell(text: str) -> str:
    """For a cell of a table."""
    return " ".join(text.replace("|", r"\|").split())


def _tokens(tokens: Iterable[str]) -> str:
    fenced = (_code(token) if "``" in token else f"`` {token} ``" for token in tokens)
    return ", ".join(fenced) or "none stand out"


def _chosen_first(figures: Mapping[str, Any], chosen: str) -> list[tuple[str, Any]]:
    rest = [(name, row) for name, row in figures.items() if name != chosen]
    return [(chosen, figures[chosen]), *rest]


def _name(repo: str) -> str:
    """A model's name; of a folder on the maker's machine its last part."""
    return _code(PureWindowsPath(repo).name if _is_absolute(repo) else repo)


def _place(base: Data) -> str:
    """Where a base model is: "hub", "bundled", or in a "folder" of its maker's."""
    if base["revision"] is not None:
        return "hub"
    # An absolute path stays one when it is joined to another, and so is never a bundled name.
    bundled = (content("learners") / base["repo"] / "config.json").is_file()
    return "bundled" if bundled and not _is_absolute(base["repo"]) else "folder"


def _is_absolute(name: str) -> bool:
    return PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()


def parameters(config: Data) -> int:
    """How many numbers a learner's net has."""
    import torch

    from secondary_learners.learners.nets import build_net

    with torch.device("meta"):  # no memory: only the shapes count
        net = build_net(config["architecture"], config["sizes"])
    return sum(parameter.numel() for parameter in net.parameters())


FILTERS = {
    "beyond_chance": _beyond_chance,
    "cell": _cell,
    "chosen_first": _chosen_first,
    "code": _code,
    "fmt": _fmt,
    "interval": _interval,
    "name": _name,
    "number": _number,
    "place": _place,
    "probability": _probability,
    "seeds": _seeds,
    "sentence": _sentence,
    "share": _share,
    "times": _times,
    "tokens": _tokens,
    "with_interval": _with_interval,
}
