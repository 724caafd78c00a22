"""Runs of words cut from documents at random: what a teacher scores and a student learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secondary_learners.errors import CorpusError
from secondary_learners.files import json_bytes, sha256_bytes
from secondary_learners.text.corpus import Document

__all__ = ["TextContexts", "cut"]


@dataclass(frozen=True, eq=False)
class TextContexts:
    """texts [n], with the number of each one's document and domain [n]; domains: their names."""

    texts: list[str]
    documents: npt.NDArray[np.int64]
    domain: npt.NDArray[np.int64]
    domains: tuple[str, ...]

    def select(self, rows: npt.NDArray[np.int64]) -> TextContexts:
        texts = [self.texts[row] for row in rows]
        return TextContexts(texts, self.documents[rows], self.domain[rows], self.domains)

    @property
    def digest(self) -> str:
        return sha256_bytes(json_bytes([self.texts, self.documents.tolist()]))


def cut(
    documents: Sequence[Document],
    count: int,
    *,
    words: int,
    shares: Mapping[str, float],
    seed: int,
) -> TextContexts:
    """`count` runs of `words` words, none twice; fewer where the text has no more.

    shares: of the domains, by default those of their text. A document shorter than that is a run.
    """
    domains = tuple(dict.fromkeys(document.domain for document in documents))
    places = [
        (number, run)
        for number, document in enumerate(documents)
        for run in range(max(1, (document.text.count(" ") + 1) // words))
    ]
    domain_of = np.array([domains.index(documents[number].domain) for number, _ in places])
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for number, name in enumerate(domains):
        members = np.flatnonzero(domain_of == number)
        share = shares[name] / sum(shares.values()) if shares else len(members) / len(places)
        wanted = min(len(members), round(count * share))
        chosen += random.choice(members, wanted, replace=False).tolist()
    texts, owners = [], []
    last, split = -1, [""]
    for place in sorted(chosen):
        number, run = places[place]
        if number != last:
            last, split = number, documents[number].text.split()
        texts.append(" ".join(split[run * words : (run + 1) * words]))
        owners.append(number)
    if len(texts) < 20:
        raise CorpusError(f"there are {len(texts)} runs of {words} words in the text. Add text.")
    owner = np.array(owners)
    return TextContexts(texts, owner, domain_of[sorted(chosen)], domains)
