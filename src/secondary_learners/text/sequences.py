"""What is labeled, learned from and filtered: runs of tokens, what counts of them, their origin."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secondary_learners.errors import CorpusError
from secondary_learners.text.encoding import tokenize
from secondary_learners.text.instructions import COLUMNS, Instruction, instruction

__all__ = ["Examples", "encode"]

_IGNORED = -100


@dataclass(frozen=True, eq=False)
class Examples:
    """Runs of tokens, the tokens whose loss counts, and where they come from.

    Contexts, runs of one length cut from documents, are the case in which every token counts: see
    `Examples.contexts`. Prompts with completions, of which the completion counts: `Examples.of`.

    Args:
        tokens: int64 [tokens], the token ids of all examples one after the other.
        loss_mask: bool [tokens], True for what is to be predicted; the first token of an example
            is predicted by nothing.
        lengths: int64 [examples].
        document: int64 [examples], an id shared by the examples of one document (short documents
            that were packed together count as one), which are never divided between splits.
        domain: int64 [examples], an index into `domains`.
        domains: the names of the domains.

    Raises:
        CorpusError: for arrays that do not fit each other and, with its number, for an example
            without a token to predict.
    """

    tokens: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    document: NDArray[np.int64]
    domain: NDArray[np.int64]
    domains: tuple[str, ...]

    def __post_init__(self) -> None:
        tokens = int(self.lengths.sum())
        counts = {len(self.lengths), len(self.document), len(self.domain)}
        if len(counts) > 1 or {len(self.tokens), len(self.loss_mask)} != {tokens}:
            raise CorpusError(
                f"{len(self.lengths)} lengths for {tokens} tokens do not fit {len(self.tokens)} "
                f"token ids, {len(self.loss_mask)} marks, {len(self.document)} documents and "
                f"{len(self.domain)} domains. Try `Examples.of(rows, tokenizer)`."
            )
        predicted = self.loss_mask.copy()
        predicted[self._starts[self.lengths > 0]] = False
        totals = np.concatenate([[0], predicted.cumsum()])
        empty = np.flatnonzero(totals[self._starts + self.lengths] == totals[self._starts])
        if empty.size:
            raise CorpusError(
                f"example {empty[0]} has no completion: none of its {self.lengths[empty[0]]} "
                "tokens is to be predicted. Leave it out."
            )

    @classmethod
    def of(
        cls,
        rows: Iterable[Mapping[str, Any]],
        tokenizer: Any,
        *,
        longest: int | None = None,
        truncate: str = "left",
        columns: tuple[str, str] = COLUMNS,
    ) -> Examples:
        """From rows with a prompt and a completion, or chat messages.

        Args:
            rows: dicts of JSONL or a `datasets.Dataset`. Those with the same prompt or `group`
                count as one document.
            tokenizer: of transformers, with a chat template for chats.
            longest: the most tokens of an example; by default what the tokenizer says that its
                model reads.
            truncate: what becomes of longer ones: "left" takes tokens from the prompt's beginning,
                "refuse" raises.
            columns: the names of prompt and completion.

        Returns:
            The examples, in the order of `rows`, all in the domain "examples".

        Raises:
            CorpusError: for a row without a prompt or a completion, saying which.
        """
        parsed = [instruction(row, f"example {n}", columns) for n, row in enumerate(rows)]
        groups = {name: n for n, name in enumerate(dict.fromkeys(one.group for one in parsed))}
        return encode(
            parsed,
            tokenizer,
            document=[groups[one.group] for one in parsed],
            domain=[0] * len(parsed),
            domains=("examples",),
            longest=longest,
            truncate=truncate,
        )

    @classmethod
    def contexts(
        cls,
        input_ids: ArrayLike,
        document: ArrayLike | None = None,
        domain: ArrayLike | None = None,
        domains: tuple[str, ...] = ("contexts",),
    ) -> Examples:
        """Contexts: token ids [contexts, length], of which every token counts.

        Args:
            input_ids: integers [contexts, length], length 2 or more.
            document: integers [contexts]; by default each context is a document.
            domain: integers [contexts], by default all 0.
            domains: the names of the domains.

        Returns:
            The contexts as `Examples`.

        Raises:
            CorpusError: for arrays that do not fit each other.
        """
        ids = np.asarray(input_ids, np.int64)
        if ids.ndim != 2:
            raise CorpusError(
                f"contexts are token ids [contexts, length], and these are {list(ids.shape)}. "
                "Try `Examples.of(rows, tokenizer)` for text of any length."
            )
        count, length = ids.shape
        return cls(
            ids.reshape(-1),
            np.ones(ids.size, np.bool_),
            np.full(count, length, np.int64),
            np.arange(count) if document is None else np.asarray(document, np.int64),
            np.zeros(count, np.int64) if domain is None else np.asarray(domain, np.int64),
            domains,
        )

    @property
    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def whole(self) -> bool:
        """Whether they are contexts: every token counts, and all are as long as the first."""
        return bool(self.loss_mask.all() and (self.lengths == self.lengths[:1]).all())

    @property
    def length(self) -> int:
        """Tokens of the longest."""
        return int(self.lengths.max(initial=1))

    def select(self, indices: NDArray[Any] | Sequence[int]) -> Examples:
        """The examples at `indices` (positions or a boolean mask), in that order."""
        lengths = self.lengths[indices]
        # Where each of their tokens is: from the start of its example, and how far into it.
        into = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = np.repeat(self._starts[indices], lengths) + into
        return Examples(
            self.tokens[places],
            self.loss_mask[places],
            lengths,
            self.document[indices],
            self.domain[indices],
            self.domains,
        )

    def in_domain(self, domain: str) -> Examples:
        return self.select(self.domain == self.domains.index(domain))

    @property
    def digest(self) -> str:
        """sha256 of what they are; of contexts as it was before they were examples."""
        origin = self.document, self.domain
        if self.whole:
            arrays: tuple[NDArray[Any], ...] = (self.tokens, *origin)
            shape = len(self), self.length
            state = hashlib.sha256(repr((shape, self.domains)).encode())
        else:
            arrays = (self.tokens, self.loss_mask, self.lengths, *origin)
            state = hashlib.sha256(repr(("examples", len(self), self.domains)).encode())
        for array in arrays:
            state.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return state.hexdigest()

    @property
    def input_ids(self) -> NDArray[np.int64]:
        """Token ids [examples, longest], padded on the right by 0."""
        return self._padded(self.tokens)

    @property
    def attention_mask(self) -> NDArray[np.bool_]:
        """False at the padding of `input_ids` [examples, longest]."""
        mask: NDArray[np.bool_] = np.arange(self.length) < self.lengths[:, None]
        return mask

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which of `input_ids` are to be predicted [examples, longest]."""
        return self._padded(self.loss_mask)

    def _padded(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.whole:
            return values.reshape(len(self), self.length)
        mask = self.attention_mask
        padded = np.zeros(mask.shape, values.dtype)
        padded[mask] = values
        return padded

    def rows(self) -> list[dict[str, list[int]]]:
        """What trainers take, an example a row: input_ids, attention_mask, labels (else −100)."""
        ids = self.tokens.tolist()
        labels = np.where(self.loss_mask, self.tokens, _IGNORED).tolist()
        return [
            {
                "input_ids": ids[begin : begin + length],
                "attention_mask": [1] * length,
                "labels": labels[begin : begin + length],
            }
            for begin, length in zip(self._starts.tolist(), self.lengths.tolist(), strict=True)
        ]


def encode(
    instructions: Sequence[Instruction],
    tokenizer: Any,
    *,
    document: Sequence[int],
    domain: Sequence[int],
    domains: tuple[str, ...],
    longest: int | None = None,
    truncate: str = "left",
) -> Examples:
    """Instructions as examples; see `tokenize` for `longest`, `truncate` and what it raises."""
    ids, counts = tokenize(instructions, tokenizer, longest=longest, truncate=truncate)
    return Examples(
        np.array([token for one in ids for token in one], np.int64),
        np.array([mark for one in counts for mark in one], np.bool_),
        np.array([len(one) for one in ids], np.int64),
        np.array(document, np.int64),
        np.array(domain, np.int64),
        domains,
    )
