"""Contexts: fixed-length runs of tokens cut from documents, split by document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from secondary_learners.errors import CorpusError
from secondary_learners.text.corpus import Document
from secondary_learners.text.sequences import Examples
from secondary_learners.text.splitting import deal

__all__ = ["cut", "mixture", "split_documents"]


class Dealable(Protocol):
    """What is dealt to splits as a whole: a document, or a group of examples."""

    @property
    def domain(self) -> str: ...

    @property
    def size(self) -> int: ...


Whole = TypeVar("Whole", bound=Dealable)


def split_documents(
    documents: Sequence[Whole], shares: Mapping[str, float], *, seed: int
) -> dict[str, list[Whole]]:
    """Deal whole documents to the named splits, each domain by itself, by shares of their sizes."""
    splits: dict[str, list[Whole]] = {name: [] for name in shares}
    for domain in sorted({document.domain for document in documents}):
        members = [document for document in documents if document.domain == domain]
        sizes = [document.size for document in members]
        parts = deal(sizes, list(shares.values()), seed=seed)
        for document, part in zip(members, parts, strict=True):
            splits[list(shares)[part]].append(document)
    return splits


def cut(documents: Sequence[Document], tokenizer: Any, length: int) -> Examples:
    """Cut documents into runs of `length` tokens; the rest of each document is dropped.

    Neighboring documents of a domain shorter than one context are packed together, with the
    end-of-text token between them. `tokenizer` is a fast tokenizer of transformers.
    Raises CorpusError where a domain does not fill one context.
    """
    domains = tuple(sorted({document.domain for document in documents}))
    end = tokenizer.eos_token_id
    rows: list[NDArray[np.int64]] = []
    owners: list[int] = []
    kinds: list[int] = []
    owner = 0
    for kind, domain in enumerate(domains):
        texts = [document.text for document in documents if document.domain == domain]
        before, tokens = len(rows), 0
        packed: list[int] = []
        for encoding in tokenizer.backend_tokenizer.encode_batch_fast(
            texts, add_special_tokens=False
        ):
            ids = encoding.ids
            tokens += len(ids)
            if len(ids) < length:
                packed.extend(ids)
                if end is not None:
                    packed.append(end)
                if len(packed) < length:
                    continue
                ids, packed = packed, []
            count = len(ids) // length
            rows.append(np.array(ids[: count * length], dtype=np.int64).reshape(count, length))
            owners.extend([owner] * count)
            kinds.extend([kind] * count)
            owner += 1
        if len(rows) == before:
            raise CorpusError(
                f"domain {domain!r} has {len(texts)} documents with {tokens} tokens in all, too "
                f"short: a context needs {length}. Add text, or lower --context-length."
            )
    if not rows:
        raise CorpusError("there are no documents to cut into contexts. Try `--corpus FOLDER`.")
    return Examples.contexts(np.concatenate(rows), owners, kinds, domains)


def mixture(
    contexts: Examples, count: int | None, *, domain: str, share: float, seed: int
) -> Examples:
    """A shuffled sample of `count` contexts, `share` of them from `domain`, without repeats.

    The other domains share the rest equally as far as their text goes. With `count` None, as many
    as the text allows. Raises CorpusError when there are too few contexts.
    """
    random = np.random.default_rng([seed, 1])
    index = contexts.domains.index(domain)
    inside = random.permutation(np.flatnonzero(contexts.domain == index))
    pools = [
        random.permutation(np.flatnonzero(contexts.domain == other))
        for other in range(len(contexts.domains))
        if other != index
    ]
    outside_size = sum(map(len, pools))
    most = int(min(len(inside) / share, outside_size / (1 - share) if share < 1 else np.inf))
    if count is None:
        count = most
    if count > most or most == 0:
        raise CorpusError(
            f"{count} contexts with {share:.0%} from {domain!r} were asked for, and the text has "
            f"enough for {most} ({len(inside)} from {domain!r}, {outside_size} from elsewhere). "
            "Ask for fewer, or add text."
        )
    taken = [inside[: round(count * share)]]
    left = count - len(taken[0])
    for rank, pool in enumerate(sorted(pools, key=len)):
        part = min(len(pool), round(left / (len(pools) - rank)))
        taken.append(pool[:part])
        left -= part
    return contexts.select(random.permutation(np.concatenate(taken)))
