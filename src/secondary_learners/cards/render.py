"""Card data → README.md: the Hub's metadata, then the text from a template in cards/.

All prose is in the templates. They get config.json and evaluation.json as they are; a name that is
missing there is an error. Here are the filters that they write numbers with.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from secondary_learners.cards.card import About, Card, Data
from secondary_learners.cards.metadata import front_matter
from secondary_learners.content import content

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["figures", "render_card"]

_LONE_TAG = re.compile(r"^(\{% [^%]*%\})\n", re.MULTILINE)
_BOLD_FIGURE = re.compile(r"\*\*[^*\n]*\d[^*\n]*\*\*")


def render_card(card: Card, config: Data, evaluation: Data, about: About) -> str:
    """README.md of an artifact.

    Raises KeyError, TypeError or ValueError for data that lacks a figure, and jinja2's
    UndefinedError for what the template alone asks for.
    """
    words = dataclasses.asdict(about) | {"reference": about.reference or about.name}
    values = _values(card, config, evaluation) | words
    text = _environment().get_template(card.template).render(values)
    head = front_matter(card, config, evaluation, about)
    return f"{head}\n{_tidy(text)}"


def figures(card: Card, config: Data, evaluation: Data) -> list[str]:
    """The figures that a card shows, as it shows them; raises as `render_card` does.

    Of the template's block `figures` these are the rows of tables and what is bold and has a digit,
    of each block `figure_…` the whole text.
    """
    template = _environment().get_template(card.template)
    context = template.new_context(_values(card, config, evaluation))
    shown = []
    for name, block in template.blocks.items():
        text = _tidy("".join(block(context)))
        if name == "figures":
            shown += [*_rows(text), *_BOLD_FIGURE.findall(text)]
        else:
            shown.append(text.strip())
    if energy := evaluation.get("energy"):
        shown.append(f"{energy['kwh']:.4g} kWh")
    return shown


def _values(card: Card, config: Data, evaluation: Data) -> dict[str, Any]:
    return {"config": config, "evaluation": evaluation, **card.values(config, evaluation)}


def _tidy(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text)


def _rows(text: str) -> list[str]:
    """The rows of the tables in `text`, without headers."""
    lines = text.splitlines()
    rules = [at for at, line in enumerate(lines) if line.startswith("| ---")]
    heads = {*rules, *(at - 1 for at in rules)}
    return [line for at, line in enumerate(lines) if line.startswith("|") and at not in heads]


@cache
def _environment() -> Environment:
    import jinja2

    folder = content("cards")

    def source(name: str) -> str:
        # A tag alone on its line leaves nothing there.
        return _LONE_TAG.sub(r"\1", (folder / name).read_text(encoding="utf-8"))

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown; values are never read as templates
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    environment.globals["parameters"] = _parameters
    return environment


# Filters


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


def _parameters(config: Data) -> int:
    import torch

    from secondary_learners.learners.nets import build_net

    with torch.device("meta"):  # no memory: only the shapes count
        net = build_net(config["architecture"], config["sizes"])
    return sum(parameter.numel() for parameter in net.parameters())


_FILTERS = {
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
