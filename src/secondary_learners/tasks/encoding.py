"""Classification examples as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondary_learners.errors import CorpusError
from secondary_learners.files import json_bytes, sha256_bytes
from secondary_learners.tasks.metrics import floor
from secondary_learners.tasks.reading import Task, TextRow, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Encoded", "EncodedTask", "encode", "encode_task", "pad_token", "read_encoded"]

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """Examples without padding, in the order of their file.

    ids: the tokens of each. targets: the number of each one's class. classes: the names, in the
    order of the numbers. types: token type ids, for models that tell two texts apart by them.
    """

    ids: tuple[Ids, ...]
    targets: tuple[int, ...]
    classes: tuple[str, ...]
    types: tuple[Ids, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """In tokens."""
        return tuple(map(len, self.ids))

    def select(self, places: Iterable[int]) -> Encoded:
        """The examples at these places, in their order."""
        chosen = [int(place) for place in places]
        types = None if self.types is None else tuple(self.types[place] for place in chosen)
        ids, targets = zip(*((self.ids[p], self.targets[p]) for p in chosen), strict=True)
        return Encoded(ids, targets, self.classes, types)

    def sample(self, count: int, seed: int = 0) -> Encoded:
        """`count` examples, none twice and the same ones for a seed; all when there are less."""
        order = np.random.default_rng(seed).permutation(len(self))
        return self.select(sorted(order[:count].tolist()))

    @property
    def digest(self) -> str:
        """The sha256 of everything."""
        types = [] if self.types is None else [self.types]
        return sha256_bytes(json_bytes([self.ids, self.targets, self.classes, *types]))


@dataclass(frozen=True)
class EncodedTask:
    """A task as its trials see it; pad: the token to pad with."""

    name: str
    metric: str
    train: Encoded
    dev: Encoded
    pad: int

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def floor(self) -> float:
        """The score of always guessing the most frequent class of the training examples."""
        return floor(self.metric, self.train.targets, self.dev.targets)

    @property
    def digest(self) -> str:
        """The sha256 of everything that a trial sees of it."""
        parts = [[part.ids, part.targets, part.types] for part in (self.train, self.dev)]
        return sha256_bytes(json_bytes([self.classes, self.metric, self.pad, parts]))


def encode_task(task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedTask:
    """`task` as token ids, see `encode`."""
    train, dev = (
        encode(rows, task.classes, tokenizer, max_length) for rows in (task.train, task.dev)
    )
    return EncodedTask(task.name, task.metric, train, dev, pad_token(tokenizer))


def read_encoded(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    classes: Sequence[str] | None = None,
    max_length: int = 128,
) -> Encoded:
    """The examples of one TSV file, see `read_rows`, as token ids, see `encode`.

    classes: the names, when they are known; by default those in the file, sorted. Raises
    CorpusError for a file that does not read, for another class and for a single one.
    """
    rows = read_rows(path)
    names = sorted({row.name for row in rows})
    known = tuple(names if classes is None else classes)
    if strange := sorted(set(names) - set(known)):
        raise CorpusError(f"{path} has the class {strange[0]!r}; known: {', '.join(known)}.")
    if len(known) < 2:
        raise CorpusError(f"{path} has only the class {names[0]!r}: nothing to tell apart.")
    return encode(rows, known, tokenizer, max_length)


def encode(
    rows: Sequence[TextRow],
    classes: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Encoded:
    """`rows` as token ids, no example longer than `max_length`: the longer text loses its end.

    One text is what the tokenizer makes of it. Two texts are its own pair where it has one, that
    is puts something between them, as BERT's does. Other tokenizers, such as GPT-2's, would run
    them together: there the second text begins on a new line.
    """
    first = [row.first for row in rows]
    second = None
    if any(row.second is not None for row in rows):
        own = _has_pairs(tokenizer)
        second = [(row.second or "") if own else f"\n{row.second or ''}" for row in rows]
    tokens: Any = tokenizer(first, second, truncation=True, max_length=max_length)
    nothing = (pad_token(tokenizer),)  # for an empty text
    numbers = {name: number for number, name in enumerate(classes)}
    types = tokens.get("token_type_ids")
    return Encoded(
        tuple(tuple(ids) or nothing for ids in tokens["input_ids"]),
        tuple(numbers[row.name] for row in rows),
        tuple(classes),
        None if types is None else tuple(tuple(each) or (0,) for each in types),
    )


def _has_pairs(tokenizer: PreTrainedTokenizerBase) -> bool:
    one, two = (tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
    return two > one


def pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token to pad with: the tokenizer's own, or the one that ends a text, or the first."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0):
        if isinstance(token, int):
            return token
        if token is not None:
            break
    raise CorpusError(f"the tokenizer's padding is {token!r}, not one token.")
