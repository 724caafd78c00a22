"""Examples: prompts with completions, of any length, whose loss is that of the completion."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secondary_learners.errors import CorpusError
from secondary_learners.text.contexts import Contexts
from secondary_learners.text.instructions import COLUMNS, TRUNCATIONS, Instruction, instruction

__all__ = ["Examples", "encode", "matrices", "with_mask"]

log = logging.getLogger(__name__)

_IGNORED = -100
_UNLIMITED = 10**6  # what transformers calls no limit is far above


@dataclass(frozen=True, eq=False)
class Examples:
    """Runs of tokens of different lengths, the tokens whose loss counts, and where they come from.

    input_ids: int64 [tokens], those of all examples one after the other. loss_mask: bool [tokens],
    True for what is to be predicted; the first token of an example is predicted by nothing.
    lengths: int64 [examples]. document, domain, domains: as in `Contexts`.

    Raises CorpusError, with its number, for an example without a token to predict.
    """

    input_ids: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    document: NDArray[np.int64]
    domain: NDArray[np.int64]
    domains: tuple[str, ...]

    def __post_init__(self) -> None:
        tokens = int(self.lengths.sum())
        counts = {len(self.lengths), len(self.document), len(self.domain)}
        if len(counts) > 1 or {len(self.input_ids), len(self.loss_mask)} != {tokens}:
            raise CorpusError(
                f"{len(self.lengths)} lengths for {tokens} tokens do not fit {len(self.input_ids)} "
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
        """From rows with a prompt and a completion, or chat messages: JSONL, a `datasets.Dataset`.

        rows: see `instruction`; those with the same prompt or `group` count as one document.
        tokenizer: of transformers; see `encode` for it, for `longest` (by default what the
            tokenizer says its model reads) and for `truncate`.
        """
        found = [instruction(row, f"example {n}", columns) for n, row in enumerate(rows)]
        groups = {name: n for n, name in enumerate(dict.fromkeys(one.group for one in found))}
        return encode(
            found,
            tokenizer,
            document=[groups[one.group] for one in found],
            domain=[0] * len(found),
            domains=("examples",),
            longest=longest,
            truncate=truncate,
        )

    @property
    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, indices: NDArray[Any] | Sequence[int]) -> Examples:
        """The examples at `indices` (positions or a boolean mask), in that order."""
        lengths = self.lengths[indices]
        # Where each of their tokens is: from the start of its example, and how far into it.
        into = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = np.repeat(self._starts[indices], lengths) + into
        return Examples(
            self.input_ids[places],
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
        """sha256 of all arrays and the domains."""
        state = hashlib.sha256(repr(("examples", len(self), self.domains)).encode())
        arrays = (self.input_ids, self.loss_mask, self.lengths, self.document, self.domain)
        for array in arrays:
            state.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return state.hexdigest()

    def padded(self) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Token ids, attention mask and loss mask [examples, longest], padded on the right by 0."""
        attention = np.arange(self.lengths.max(initial=1)) < self.lengths[:, None]
        ids, loss = np.zeros(attention.shape, np.int64), np.zeros(attention.shape, np.bool_)
        ids[attention], loss[attention] = self.input_ids, self.loss_mask
        return ids, attention, loss

    def tensor(self, device: torch.device | str = "cpu") -> Tensor:
        """int64 [examples, longest, 2]: each token id, and 1 beside it where its loss counts."""
        ids, _, loss = self.padded()
        return torch.from_numpy(np.stack([ids, loss], axis=2)).to(device)

    def rows(self) -> list[dict[str, list[int]]]:
        """What trainers take, an example a row: input_ids, attention_mask, labels (else −100)."""
        ids = self.input_ids.tolist()
        labels = np.where(self.loss_mask, self.input_ids, _IGNORED).tolist()
        return [
            {
                "input_ids": ids[begin : begin + length],
                "attention_mask": [1] * length,
                "labels": labels[begin : begin + length],
            }
            for begin, length in zip(self._starts.tolist(), self.lengths.tolist(), strict=True)
        ]


def matrices(
    contexts: Contexts | Examples,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What a learner reads: token ids [n, length] and attention mask [n, length]."""
    if isinstance(contexts, Contexts):
        return contexts.input_ids, np.ones(contexts.input_ids.shape, np.bool_)
    return contexts.padded()[:2]


def with_mask(ids: Tensor) -> Tensor:
    """Contexts [n, length] as examples [n, length, 2] with a loss on every token but the first."""
    if ids.ndim == 3:
        return ids
    counts = torch.ones_like(ids)
    counts[:, 0] = 0
    return torch.stack([ids, counts], dim=2)


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
    """Tokenize as TRL's SFTTrainer does, so that a learner reads what the trainer trains on.

    Text gets the tokenizer's special tokens and ends with its end-of-text token, messages go
    through its chat template; the completion begins where the tokens of the prompt alone and those
    of the whole part. truncate: "left" takes what exceeds `longest` tokens from the prompt's
    beginning (not its beginning-of-text token) and, once one token is left there, from the
    completion's end; "refuse" raises CorpusError with the example's place instead.
    """
    if truncate not in TRUNCATIONS:
        raise CorpusError(f"truncate is {truncate!r}. Try {' or '.join(TRUNCATIONS)}.")
    if longest is None:
        longest = min(int(tokenizer.model_max_length), _UNLIMITED)
    if longest < 2:
        raise CorpusError(f"examples of {longest} tokens predict nothing. Try 2 or more.")
    ids: list[int] = []
    masks: list[bool] = []
    lengths = []
    shortened = 0
    for one, (prompt, whole) in zip(instructions, _tokenized(instructions, tokenizer), strict=True):
        begin = _common(prompt, whole)
        over = len(whole) - longest
        if over > 0:
            if truncate == "refuse":
                raise CorpusError(
                    f"{one.where} has {len(whole)} tokens, more than {longest}. "
                    "Leave it out, or cut prompts from their left (truncate='left')."
                )
            kept = int(begin > 0 and whole[0] == tokenizer.bos_token_id)
            cut = max(0, min(over, begin - max(1, kept)))
            whole = [*whole[:kept], *whole[kept + cut :]]
            begin -= cut
            shortened += len(whole) > longest
            whole = whole[:longest]
        if max(1, begin) >= len(whole):
            raise CorpusError(f"{one.where} has no completion once it is tokenized. Leave it out.")
        ids += whole
        masks += [place >= max(1, begin) for place in range(len(whole))]
        lengths.append(len(whole))
    if shortened:
        log.warning(
            "the completions of %d of %d examples were cut at their end: they alone exceed %d "
            "tokens",
            *(shortened, len(instructions), longest),
        )
    return Examples(
        np.array(ids, np.int64),
        np.array(masks, np.bool_),
        np.array(lengths, np.int64),
        np.array(document, np.int64),
        np.array(domain, np.int64),
        domains,
    )


def _tokenized(
    instructions: Sequence[Instruction], tokenizer: Any
) -> Iterable[tuple[list[int], list[int]]]:
    """The token ids of each prompt alone, and of the whole."""
    end = tokenizer.eos_token or ""
    texts: list[str] = []
    for one in instructions:
        if isinstance(one.prompt, str) and isinstance(one.completion, str):
            own = one.completion if one.completion.endswith(end) else one.completion + end
            texts += [one.prompt, one.prompt + own]
    # An empty batch has no type of its own; `verbose` would warn of what is cut below.
    encoded = iter(tokenizer(texts, verbose=False)["input_ids"] if texts else ())
    for one in instructions:
        if isinstance(one.prompt, str) or isinstance(one.completion, str):
            yield next(encoded), next(encoded)
        else:
            yield (
                _chat(tokenizer, one.prompt, one.where, add_generation_prompt=True),
                _chat(tokenizer, one.prompt + one.completion, one.where),
            )


def _chat(tokenizer: Any, messages: Sequence[Any], where: str, **options: bool) -> list[int]:
    if not messages:
        return []
    if not tokenizer.chat_template:
        raise CorpusError(
            f"{where} is a chat, and the base model's tokenizer has no chat template. Give prompt "
            "and completion as text, or set tokenizer.chat_template."
        )
    found: list[int] = tokenizer.apply_chat_template(
        [dict(message) for message in messages], tokenize=True, return_dict=True, **options
    )["input_ids"]
    return found


def _common(prompt: Sequence[int], whole: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(prompt, whole, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(prompt), len(whole)))
