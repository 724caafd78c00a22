"""Which documents of a corpus are kept: one exact edge in the order of all their scores.

The order is that of falling keys (scores, or scores with noise), and of equals that of their ids,
then of shard and row; so it depends on neither the order of shards nor the number of workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondary_learners.engines.groups import Groups
from secondary_learners.engines.histograms import Histogram, bins
from secondary_learners.engines.sidecars import SidecarRows, read_facts, read_sidecar, sidecar
from secondary_learners.errors import CorpusError

__all__ = ["Choice", "Edge", "Order", "Part", "Ranking", "Wish", "choose"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Wish:
    """How much to keep, of each group: a share of the documents, so many tokens in all, or both."""

    share: float | None
    tokens: int | None


@dataclass(frozen=True)
class Order:
    """What documents are ordered by: `weight` times the score, and noise.

    With the noise of a Gumbel distribution, times `temperature`, the first k are a sample without
    replacement, each draw in proportion to exp(weight × score / temperature) (Kool, van Hoof and
    Welling, 2019). The noise of a document is made of its id and the seed.
    """

    temperature: float = 0.0
    seed: int = 0
    weight: float = 1.0

    def keys(self, rows: SidecarRows) -> Floats:
        """The key of each row [rows]."""
        if not self.temperature:
            return self.weight * rows.scores
        return self.weight * rows.scores + self.temperature * self._noise(rows.ids())

    def _noise(self, ids: Sequence[str]) -> Floats:
        salt = self.seed.to_bytes(16, "big", signed=True)
        data = b"".join(
            hashlib.blake2b(one.encode(), digest_size=8, key=salt).digest() for one in ids
        )
        uniform = ((np.frombuffer(data, ">u8") >> 11) + 0.5) / 2.0**53  # neither 0 nor 1
        return np.asarray(-np.log(-np.log(uniform)), np.float64)


class Part(NamedTuple):
    """Rows of one group in one batch of a sidecar."""

    group: str
    rows: SidecarRows
    keys: Floats
    places: npt.NDArray[np.int64]  # of these rows in the shard


@dataclass(frozen=True)
class Ranking:
    """The documents of shards by group, in the order of their keys; all from files."""

    scores: Path
    order: Order
    groups: Groups | None = None

    def parts(self, shard: str) -> Iterator[Part]:
        """The rows of a shard, group for group in batches."""
        codes, names = (None, [""]) if self.groups is None else self.groups.read(shard)
        for batch in read_sidecar(sidecar(self.scores, shard)):
            keys = self.order.keys(batch)
            places = np.arange(batch.begin, batch.begin + len(keys))
            if codes is None:
                yield Part("", batch, keys, places)
                continue
            here = codes[places]
            for code in np.unique(here).tolist():
                index = np.flatnonzero(here == code)
                yield Part(names[code], batch.take(index), keys[index], places[index])

    def histograms(self, shards: Sequence[str]) -> dict[str, Histogram]:
        """That of each group; from the footers alone, where they have it."""
        if self.groups is None and self.order == Order():
            facts = (read_facts(sidecar(self.scores, shard)) for shard in shards)
            return {"": Histogram.sum(Histogram.from_json(one.histogram) for one in facts)}
        histograms: dict[str, Histogram] = {}
        for shard in shards:
            for part in self.parts(shard):
                histogram = histograms.setdefault(part.group, Histogram())
                histogram.add(part.keys, part.rows.tokens)
        return histograms


Tie = tuple[str, str, int]  # id, shard and row of a document


@dataclass(frozen=True)
class Edge:
    """The end of what is kept: all above `key`, and of those at it all up to `last`, by id.

    key: None where all is kept. `documents` and `tokens`: how much is kept.
    """

    key: float | None
    last: Tie | None
    documents: int
    tokens: int

    def flags(self, shard: str, part: Part) -> Flags:
        """Which rows of the part are kept [rows]."""
        if self.key is None:
            return np.ones(len(part.keys), np.bool_)
        flags = part.keys > self.key
        if self.last is not None:
            for index in np.flatnonzero(part.keys == self.key).tolist():
                tie = (part.rows.id(index), shard, int(part.places[index]))
                flags[index] = tie <= self.last
        return np.asarray(flags, np.bool_)


@dataclass(frozen=True)
class Choice:
    """An edge for each group."""

    ranking: Ranking
    edges: Mapping[str, Edge]

    def flags(self, shard: str, documents: int) -> Flags:
        """Which rows of the shard are kept [documents]."""
        flags = np.zeros(documents, np.bool_)
        for part in self.ranking.parts(shard):
            flags[part.places] = self.edges[part.group].flags(shard, part)
        return flags

    @property
    def documents(self) -> int:
        return sum(edge.documents for edge in self.edges.values())

    @property
    def tokens(self) -> int:
        return sum(edge.tokens for edge in self.edges.values())


@dataclass
class _Room:
    """What may still be kept of a group, and what is kept already."""

    most_documents: int
    most_tokens: int
    documents: int = 0
    tokens: int = 0

    def take(self, documents: int, tokens: int) -> bool:
        """Keep these if all of them fit."""
        after = self.documents + documents, self.tokens + tokens
        if after[0] > self.most_documents or after[1] > self.most_tokens:
            return False
        self.documents, self.tokens = after
        return True


def choose(ranking: Ranking, shards: Sequence[str], wish: Wish) -> Choice:
    """The edge of each group: as many documents as the wish allows, in their order.

    Three passes, none of which holds more than the documents of one bin of a histogram: which bin
    the edge is in, at which key, and which of the documents with that key. Tokens are divided among
    groups by how many they have. Raises CorpusError where nothing is kept.
    """
    histograms = ranking.histograms(shards)
    total = sum(histogram.tokens for histogram in histograms.values())
    rooms = {group: _room(histogram, wish, total) for group, histogram in histograms.items()}
    places = {group: _edge_bin(histograms[group], room) for group, room in rooms.items()}
    keys = _edge_keys(ranking, shards, places, rooms)
    ties = _ties(ranking, shards, keys)
    edges = {}
    for group, room in rooms.items():
        last = None
        for tie, tokens in sorted(ties.get(group, ())):
            if not room.take(1, tokens):
                break
            last = tie
        edges[group] = Edge(keys.get(group), last, room.documents, room.tokens)
    choice = Choice(ranking, edges)
    if not choice.documents:
        raise CorpusError(
            "nothing is kept: there is no document, or the first one has more tokens than "
            f"{wish.tokens}. Keep more: `--tokens` or `--keep`."
        )
    return choice


def _room(histogram: Histogram, wish: Wish, total: int) -> _Room:
    documents, tokens = histogram.documents, histogram.tokens
    if wish.share is not None:
        documents = max(1, round(wish.share * documents))
    if wish.tokens is not None and wish.tokens < total:
        tokens = tokens * wish.tokens // total
    return _Room(documents, tokens)


def _edge_bin(histogram: Histogram, room: _Room) -> int | None:
    """The first bin from above that does not fit whole; None where all do."""
    for place in sorted(histogram.counts, reverse=True):
        if not room.take(*histogram.counts[place]):
            return place
    return None


def _edge_keys(
    ranking: Ranking,
    shards: Sequence[str],
    places: Mapping[str, int | None],
    rooms: Mapping[str, _Room],
) -> dict[str, float]:
    """Of each group with an edge, the first key from above of which not all documents fit."""
    inside: dict[str, list[tuple[Floats, npt.NDArray[np.int64]]]] = {}
    if all(place is None for place in places.values()):
        return {}
    for shard in shards:
        for part in ranking.parts(shard):
            place = places[part.group]
            if place is not None:
                there = bins(part.keys) == place
                inside.setdefault(part.group, []).append(
                    (part.keys[there], part.rows.tokens[there])
                )
    edges = {}
    for group, parts in inside.items():
        keys, inverse = np.unique(np.concatenate([keys for keys, _ in parts]), return_inverse=True)
        documents, tokens = np.bincount(inverse), np.zeros(len(keys), np.int64)
        np.add.at(tokens, inverse, np.concatenate([tokens for _, tokens in parts]))
        for index in range(len(keys) - 1, -1, -1):
            if not rooms[group].take(int(documents[index]), int(tokens[index])):
                edges[group] = float(keys[index])
                break
    return edges


def _ties(
    ranking: Ranking, shards: Sequence[str], keys: Mapping[str, float]
) -> dict[str, list[tuple[Tie, int]]]:
    """The documents at the edge of each group, with their tokens."""
    ties: dict[str, list[tuple[Tie, int]]] = {}
    for shard in shards if keys else ():
        for part in ranking.parts(shard):
            for index in np.flatnonzero(part.keys == keys.get(part.group)).tolist():
                tie = (part.rows.id(index), shard, int(part.places[index]))
                ties.setdefault(part.group, []).append((tie, int(part.rows.tokens[index])))
    return ties
