"""What a card is made of: one frozen `Card` for each kind, and what only its maker can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["EVERY", "About", "Card", "Data", "Result"]

Data = Mapping[str, Any]
"""A config.json or an evaluation.json."""

EVERY = (
    *("how it is used", "its figures", "intended use and limits"),
    *("how it is rebuilt", "its license"),
)
"""The sections that every card has, of those that `check` knows."""


class Described(Protocol):
    """What every recipe says of its artifact."""

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def license(self) -> str: ...
    @property
    def attribution(self) -> str: ...
    @property
    def language(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class About:
    """What a card says that is in no figure: its maker's words, mostly from the recipe.

    attribution: where the data are from. reference: what the card's example loads, by default the
    name. language: of its text, as the Hub writes it ("en"), or "" when nobody said.
    datasets: ids on the Hub of the data sets that its corpus is made of.
    """

    name: str
    summary: str
    license: str
    attribution: str = ""
    reference: str = ""
    language: str = ""
    datasets: Sequence[str] = ()

    @classmethod
    def of(cls, recipe: Described, *, reference: str = "", datasets: Sequence[str] = ()) -> About:
        return cls(
            name=recipe.name,
            summary=recipe.summary,
            license=recipe.license,
            attribution=recipe.attribution,
            language=recipe.language,
            reference=reference,
            datasets=datasets,
        )


@dataclass(frozen=True)
class Result:
    """One figure of the model-index, which the Hub shows beside the card.

    task: as the Hub calls it. dataset: a name, from which its id is made. split: which part of it.
    """

    task: str
    dataset: str
    split: str
    metric: str
    value: float
    name: str | None = None


def _no_values(config: Data, evaluation: Data) -> dict[str, Any]:
    return {}


def _none_missing(config: Data, evaluation: Data) -> list[str]:
    return []


@dataclass(frozen=True, kw_only=True)
class Card:
    """The card of one kind of artifact.

    template: in cards/. Its blocks `figures` and `figure_…` hold what `check` compares.
    task: the Hub's `pipeline_tag`. sections: what its headings must speak of.
    tags, results: for the Hub's metadata. values: what the template shows and has to be computed.
    missing: names of figures that this version of evaluation.json must have, and has not.
    """

    template: str
    task: str
    tags: Callable[[Data], Sequence[str]]
    results: Callable[[Data, Data], list[Result]]
    values: Callable[[Data, Data], dict[str, Any]] = _no_values
    missing: Callable[[Data, Data], Sequence[str]] = _none_missing
    sections: Sequence[str] = EVERY
    library: str = "secondary-learners"
