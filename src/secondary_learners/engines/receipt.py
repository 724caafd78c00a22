"""What a selection did, in figures and texts, and a random one of the same size beside it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from secondary_learners.engines.choosing import Choice, Order, Part, Ranking, Wish, choose
from secondary_learners.engines.groups import Groups
from secondary_learners.engines.histograms import Histogram
from secondary_learners.engines.rows import Row, read_shard
from secondary_learners.engines.selecting import ScoredShard
from secondary_learners.engines.sidecars import read_sidecar, sidecar

__all__ = ["ARMS", "Example", "Receipt", "Shares", "Summary", "make_receipt"]

ARMS = ("all", "kept", "random")
_EXAMPLES = 5  # of each kind
_TEXT = 600  # characters of an example that are shown
_TOKENS = 120  # tokens of an example whose shares are shown

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Shares = Callable[[Row], list[tuple[str, float]]]


@dataclass
class Summary:
    """How many documents of which scores and lengths: of all, of the kept, of random ones."""

    scores: dict[str, Histogram] = field(default_factory=lambda: {arm: Histogram() for arm in ARMS})
    lengths: dict[str, dict[int, int]] = field(default_factory=lambda: {arm: {} for arm in ARMS})

    def add(self, arm: str, scores: npt.NDArray[np.float64], tokens: npt.NDArray[np.int64]) -> None:
        self.scores[arm].add(scores, tokens)
        counts = self.lengths[arm]
        for power, count in zip(*np.unique(_powers(tokens), return_counts=True), strict=True):
            counts[int(power)] = counts.get(int(power), 0) + int(count)

    def rate(self, arm: str) -> float:
        """The share of all documents that are in an arm."""
        return self.scores[arm].documents / max(1, self.scores["all"].documents)

    def to_json(self) -> dict[str, Any]:
        return {
            arm: {
                "documents": self.scores[arm].documents,
                "tokens": self.scores[arm].tokens,
                "rate": self.rate(arm),
                "scores": self.scores[arm].to_json(),
                "lengths": [
                    [2**power, count] for power, count in sorted(self.lengths[arm].items())
                ],
            }
            for arm in ARMS
        }


def _powers(tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """n where 2**n is the largest power of two that is not above the tokens; 0 for none."""
    return np.frexp(np.maximum(tokens, 1).astype(np.float64))[1].astype(np.int64) - 1


@dataclass(frozen=True)
class Example:
    """A document of one kind ("just kept"), with its text and each token's share of the score."""

    kind: str
    id: str
    shard: str
    row: int
    score: float
    kept: bool
    text: str = ""
    shares: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Receipt:
    """All of it. ids: sha256 of the kept documents' ids, a line each, by shard and row."""

    total: Summary
    sources: Mapping[str, Summary]
    examples: Sequence[Example]
    ids: str


@dataclass
class _Tally:
    """Sums over rows as they come by, and the few documents of the largest values of each kind."""

    total: Summary = field(default_factory=Summary)
    sources: dict[str, Summary] = field(default_factory=dict)
    _best: dict[str, list[tuple[float, Example]]] = field(default_factory=dict)

    def count(self, part: Part, arms: Mapping[str, Flags], names: npt.NDArray[np.str_]) -> None:
        """Add the rows of `part` [rows] to each arm, in all and for the source of each."""
        for arm, flags in arms.items():
            self.total.add(arm, part.rows.scores[flags], part.rows.tokens[flags])
            for name in np.unique(names).tolist():
                summary, member = self.sources.setdefault(name, Summary()), flags & (names == name)
                summary.add(arm, part.rows.scores[member], part.rows.tokens[member])

    def offer(self, kind: str, values: Floats, shard: str, part: Part, kept: Flags) -> None:
        """Rows [rows] for examples of a kind; −inf for a row that is none."""
        best = self._best.setdefault(kind, [])
        for index in np.argsort(-values, kind="stable")[:_EXAMPLES].tolist():
            if values[index] > -np.inf:
                place, score = int(part.places[index]), float(part.rows.scores[index])
                one = Example(kind, part.rows.id(index), shard, place, score, bool(kept[index]))
                best.append((float(values[index]), one))
        best.sort(key=lambda pair: (-pair[0], pair[1].shard, pair[1].row))
        del best[_EXAMPLES:]

    def examples(self) -> list[Example]:
        return [one for best in self._best.values() for _, one in best]


def make_receipt(
    choice: Choice,
    scored: Sequence[ScoredShard],
    *,
    sources: Groups | None,
    shares: Shares | None,
) -> Receipt:
    """The receipt of a choice.

    sources: of the documents; by default each shard is one. shares: of an example's tokens.
    """
    noise, tally, ids = Order(temperature=1.0, weight=0.0), _Tally(), hashlib.sha256()
    documents = sum(one.facts.documents for one in scored)
    random = choose(
        Ranking(choice.ranking.scores, noise),
        [one.shard.name for one in scored],
        Wish(choice.documents / documents, None),
    )
    for one in scored:
        shard, count = one.shard.name, one.facts.documents
        codes, values = sources.read(shard) if sources else (np.zeros(count, np.int32), [shard])
        chosen, drawn, names = (
            choice.flags(shard, count),
            random.flags(shard, count),
            np.array(values),
        )
        for part in choice.ranking.parts(shard):
            kept, edge = chosen[part.places], choice.edges[part.group].key
            arms = {"all": np.ones_like(kept), "kept": kept, "random": drawn[part.places]}
            tally.count(part, arms, names[codes[part.places]])
            tally.offer("the best", part.keys, shard, part, kept)
            if edge is not None:
                distance = part.keys - edge
                tally.offer("just kept", np.where(kept, -distance, -np.inf), shard, part, kept)
                tally.offer("just dropped", np.where(kept, -np.inf, distance), shard, part, kept)
            tally.offer("the worst", -part.keys, shard, part, kept)
            tally.offer("drawn at random", noise.keys(part.rows), shard, part, kept)
        for rows in read_sidecar(sidecar(choice.ranking.scores, shard)):
            for index in np.flatnonzero(chosen[rows.begin :][: len(rows.scores)]).tolist():
                ids.update(f"{rows.id(index)}\n".encode())
    examples = _with_texts(tally.examples(), scored, shares)
    by_source = dict(sorted(tally.sources.items()))
    return Receipt(tally.total, by_source, examples, ids.hexdigest())


def _with_texts(
    examples: Sequence[Example], scored: Sequence[ScoredShard], shares: Shares | None
) -> list[Example]:
    """The examples with their texts, each shard read once and no further than need be."""
    rows: dict[tuple[str, int], Row] = {}
    columns: dict[str, list[str]] = {}
    for one in scored:
        name = one.shard.name
        columns[name] = one.facts.scorer["columns"]
        wanted = {each.row for each in examples if each.shard == name}
        if wanted:
            first = itertools.islice(read_shard(one.shard.shard, columns[name][0]), max(wanted) + 1)
            rows |= {(name, number): row for number, row in enumerate(first) if number in wanted}
    completed = []
    for each in examples:
        row = rows[each.shard, each.row]
        text = " ".join(str(row.fields[name]) for name in columns[each.shard] if name in row.fields)
        parts = tuple(shares(row)[:_TOKENS]) if shares else ()
        completed.append(replace(each, text=text[:_TEXT], shares=parts))
    return completed
