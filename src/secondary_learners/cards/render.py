"""Card data → README.md: the Hub's metadata, then the text from a template in cards/.

All prose is in the templates. They get config.json and evaluation.json as they are; a name that is
missing there is an error.
"""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from secondary_learners.cards.card import About, Card, Data
from secondary_learners.cards.filters import FILTERS, parameters
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
    environment.filters |= FILTERS
    environment.globals["parameters"] = parameters
    return environment
