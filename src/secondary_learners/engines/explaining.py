"""A text's score, and what each of its tokens adds to it."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from secondary_learners.engines.rows import whole_characters
from secondary_learners.engines.scoring import mean_contributions, mean_scores
from secondary_learners.learners.artifact import Learner
from secondary_learners.text.corpus import normalize

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """`score`: in standard deviations. `tokens`: each as text, with its share of the score."""

    score: float
    tokens: tuple[tuple[str, float], ...]


def explain(
    learner: Learner, tokenizer: PreTrainedTokenizerBase | None, text: str
) -> Explanation | None:
    """None for a text without a token, or a word; tokenizer: see `scoring.tokenizer_of`."""
    if tokenizer is None:
        shares = learner.text_contributions(text)
        score = float(learner.score_texts([text])[0])
        return Explanation(score, tuple(shares)) if shares else None
    words = normalize(whole_characters(text))
    ids = tokenizer.backend_tokenizer.encode(words, add_special_tokens=False).ids
    if not ids:
        return None
    pieces = [str(tokenizer.decode([token])) for token in ids]
    each = mean_contributions(learner, ids)
    score = float(mean_scores(learner, [ids])[0])
    return Explanation(score, tuple(zip(pieces, each, strict=True)))
