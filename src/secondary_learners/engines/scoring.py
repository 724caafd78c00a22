"""Scores of texts and of prompts with completions: from rows to an array, a batch at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from secondary_learners.engines.rows import Row, text_of
from secondary_learners.engines.sidecars import Scores
from secondary_learners.learners.artifact import Learner
from secondary_learners.registry.load import load_tokenizer
from secondary_learners.text.corpus import normalize
from secondary_learners.text.instructions import instruction
from secondary_learners.text.sequences import Examples, encode

__all__ = [
    "RowScorer",
    "mean_contributions",
    "mean_scores",
    "row_scorer",
    "score_examples",
    "text_scores",
    "tokenizer_of",
]

_TOKENS = 8_192  # scored at once, padding included: what a core's cache holds

Floats = npt.NDArray[np.float64]


class RowScorer(Protocol):
    """Scores rows of files; `shown` is a row's text for people."""

    def scores(self, rows: Sequence[Row]) -> Scores: ...

    def shown(self, row: Row) -> str: ...

    def shares(self, row: Row) -> list[tuple[str, float]]:
        """Each token of the row with what it adds to the score; none where that is not known."""


def tokenizer_of(learner: Learner, file: Path | None = None) -> Any | None:
    """As `load_tokenizer`; None of a learner that reads text, which refuses a `file`."""
    return None if learner.config.reads_text and file is None else load_tokenizer(learner, file)


def row_scorer(
    learner: Learner, tokenizer: Any, column: str, columns: tuple[str, str] | None = None
) -> RowScorer:
    """What scores rows as `learner` was made: whole texts, or prompts with completions.

    tokenizer: see `tokenizer_of`. column: of the text; columns: of prompt and completion, by
    default the learner's own. Raises IncompatibleError for a tokenizer that the learner was not
    made for.
    """
    if tokenizer is None:
        return _WithoutTokens(learner, column)
    learner.check_tokenizer(tokenizer)
    corpus = learner.config.corpus
    if corpus.get("format") == "instructions":
        own = str(corpus["prompt"]), str(corpus["completion"])
        return _Instructions(learner, tokenizer, columns or own, str(corpus["truncate"]))
    return _Texts(learner, tokenizer, column)


@dataclass
class _Texts:
    """Whole texts, normalized as the learner's own corpus was."""

    learner: Learner
    tokenizer: Any
    column: str

    def scores(self, rows: Sequence[Row]) -> Scores:
        return text_scores(
            self.learner, self.tokenizer, [text_of(row, self.column) for row in rows]
        )

    def shown(self, row: Row) -> str:
        return " ".join(text_of(row, self.column).split())

    def shares(self, row: Row) -> list[tuple[str, float]]:
        text = normalize(text_of(row, self.column))
        encoding = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        shown, pieces = 0, []
        for _, end in encoding.offsets:  # a character may be of several tokens
            pieces.append(text[shown:end])
            shown = max(shown, end)
        return list(zip(pieces, mean_contributions(self.learner, encoding.ids), strict=True))


@dataclass
class _WithoutTokens:
    """Whole texts, read by the learner itself; words are counted in place of tokens."""

    learner: Learner
    column: str

    def scores(self, rows: Sequence[Row]) -> Scores:
        return Scores(*self.learner.scores_and_words([text_of(row, self.column) for row in rows]))

    def shown(self, row: Row) -> str:
        return " ".join(text_of(row, self.column).split())

    def shares(self, row: Row) -> list[tuple[str, float]]:
        return self.learner.text_contributions(text_of(row, self.column))


@dataclass
class _Instructions:
    """Prompts with completions, each read as a whole, as TRL tokenizes them."""

    learner: Learner
    tokenizer: Any
    columns: tuple[str, str]
    truncate: str

    def scores(self, rows: Sequence[Row]) -> Scores:
        examples = encode(
            [instruction(row.fields, row.where, self.columns) for row in rows],
            self.tokenizer,
            document=range(len(rows)),
            domain=[0] * len(rows),
            domains=("examples",),
            longest=self.learner.config.context_length,
            truncate=self.truncate,
        )
        return Scores(score_examples(self.learner, examples), examples.lengths)

    def shown(self, row: Row) -> str:
        fields = row.fields
        parts = [fields[name] for name in self.columns if name in fields] or [fields["messages"]]
        turns = [
            [part] if isinstance(part, str) else [turn["content"] for turn in part]
            for part in parts
        ]
        return " ".join(" ".join(str(turn).split()) for part in turns for turn in part)

    def shares(self, row: Row) -> list[tuple[str, float]]:
        return []


def text_scores(learner: Learner, tokenizer: Any, texts: Iterable[str]) -> Scores:
    """Of whole texts, normalized as the learner's own corpus was; see `mean_scores`."""
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    encodings = encode([normalize(text) for text in texts], add_special_tokens=False)
    ids = [encoding.ids for encoding in encodings]
    return Scores(mean_scores(learner, ids), np.fromiter(map(len, ids), np.int64, len(ids)))


def score_examples(learner: Learner, examples: Examples) -> Floats:
    """Scores of prompts with completions [examples]; see `Learner.score`."""
    scores = np.empty(len(examples))
    order = np.argsort(-examples.lengths, kind="stable")
    begin = 0
    while begin < len(order):
        rows = max(1, _TOKENS // int(examples.lengths[order[begin]]))
        part = order[begin : begin + rows]
        chosen = examples.select(part)
        scores[part] = learner.score(chosen.input_ids, chosen.attention_mask).cpu().numpy()
        begin += rows
    return scores


def mean_scores(learner: Learner, texts: Sequence[Sequence[int]]) -> Floats:
    """The mean score of each text's windows [texts], from token ids.

    A text longer than the learner's contexts is scored in windows of that length, the last one
    shorter, and has their mean, each weighted by its tokens: scores are calibrated at that length.
    """
    length = learner.config.context_length
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    ids = np.fromiter(itertools.chain.from_iterable(texts), np.int64, int(sizes.sum()))
    windows = np.maximum(1, -(-sizes // length))  # one, empty, of no tokens
    owner = np.repeat(np.arange(len(texts)), windows)
    first = np.cumsum(windows) - windows
    within = (np.arange(len(owner)) - first[owner]) * length  # where a window starts in its text
    begin = (np.cumsum(sizes) - sizes)[owner] + within
    width = np.minimum(length, sizes[owner] - within)
    # Windows of like width together, so that short texts are not padded to the longest.
    order = np.argsort(width, kind="stable")
    raw = np.empty(len(owner))
    place = 0
    while place < len(order):
        longest = max(1, int(width[order[min(place + _TOKENS, len(order)) - 1]]))
        part = order[place : place + max(1, _TOKENS // longest)]
        longest = max(1, int(width[part].max()))
        mask = np.arange(longest) < width[part, None]
        index = np.minimum(begin[part, None] + np.arange(longest), max(0, len(ids) - 1))
        matrix = np.where(mask, ids[index] if len(ids) else 0, 0)
        raw[part] = learner.score(matrix, mask).cpu().numpy()
        place += len(part)
    weight = np.maximum(width, 1)
    total = np.bincount(owner, raw * weight, len(texts))
    return np.asarray(total / np.bincount(owner, weight, len(texts)), np.float64)


def mean_contributions(learner: Learner, text: Sequence[int]) -> list[float]:
    """What each token adds to the score that `mean_scores` gives a text [tokens]."""
    length = learner.config.context_length
    return [
        share * len(window) / len(text)
        for window in (text[begin : begin + length] for begin in range(0, len(text), length))
        for share in learner.contributions([window])[0].tolist()
    ]
