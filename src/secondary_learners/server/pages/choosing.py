"""Which artifacts a list shows, in which order, and how many there are of each kind. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from secondary_learners.server.pages.artifacts import FACETS, Artifact

__all__ = ["PAGE", "SORTS", "Choice", "Chosen", "choose"]

SORTS: Mapping[str, Callable[[Artifact], Any]] = {
    "name": lambda a: a.name.lower(),
    "size": lambda a: (a.size, a.name),
    "date": lambda a: tuple(-ord(c) for c in a.source.date),
    "effect": lambda a: (-a.effect.share if a.effect else 1e9, a.name),
}
PAGE = 50


@dataclass(frozen=True)
class Choice:
    """What is asked for: words, values of facets, an order, a page (from 1)."""

    words: tuple[str, ...] = ()
    facets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sort: str = "name"
    page: int = 1

    @classmethod
    def of(cls, query: Iterable[tuple[str, str]]) -> Choice:
        """What the query of an address asks for; what makes no sense is left out."""
        words: tuple[str, ...] = ()
        facets: dict[str, set[str]] = {}
        sort, page = "name", 1
        for key, value in query:
            if key == "q":
                words = tuple(value.lower().split()[:20])
            elif key in FACETS and value:
                facets.setdefault(key, set()).add(value)
            elif key == "sort" and value in SORTS:
                sort = value
            elif key == "page" and value.isdecimal() and len(value) < 6:
                page = max(1, int(value))
        return cls(words, {key: frozenset(values) for key, values in facets.items()}, sort, page)


@dataclass(frozen=True)
class Chosen:
    """What a list shows. `counts`: of each value of a facet, were it chosen in that facet."""

    artifacts: Sequence[Artifact]
    total: int
    counts: Mapping[str, Sequence[tuple[str, int]]]

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // PAGE))

    def page(self, number: int) -> Chosen:
        """The artifacts of one page alone."""
        first = (number - 1) * PAGE
        return Chosen(self.artifacts[first : first + PAGE], self.total, self.counts)


def choose(artifacts: Iterable[Artifact], choice: Choice) -> Chosen:
    """All that fits, in order."""
    matching = [artifact for artifact in artifacts if _has_words(artifact, choice.words)]
    shown = [artifact for artifact in matching if _fits(artifact, choice.facets)]
    shown.sort(key=SORTS[choice.sort])
    counts = {}
    for facet in FACETS:
        others = {name: values for name, values in choice.facets.items() if name != facet}
        among = matching if not others else [a for a in matching if _fits(a, others)]
        counter = Counter(value for a in among for value in a.facets.get(facet, ()))
        counts[facet] = sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:100]
    return Chosen(shown, len(shown), counts)


def _has_words(artifact: Artifact, words: Sequence[str]) -> bool:
    if not words:
        return True
    values = (value for values in artifact.facets.values() for value in values)
    text = " ".join((artifact.name, artifact.source.summary, *values)).lower()
    return all(word in text for word in words)


def _fits(artifact: Artifact, facets: Mapping[str, frozenset[str]]) -> bool:
    return all(
        not values.isdisjoint(artifact.facets.get(facet, ())) for facet, values in facets.items()
    )
