"""The net of hashed words against a plain loop, and the learner that has it."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from secondary_learners.errors import ArtifactError, IncompatibleError
from secondary_learners.filtering.columns import ScoreColumn
from secondary_learners.filtering.stream import filtered
from secondary_learners.learners.artifact import Learner, read_learner, save_learner
from secondary_learners.learners.hashed_text import HashedText
from secondary_learners.learners.text_learner import TextLearner
from tiny_models import text_learner, tiny_config

WORDS, GRAMS, LENGTH = 64, 32, 3
BASE, MOST = 0x9E3779B97F4A7C15, 2**64
TEXTS = [
    "She sat   by the fire,\tand the fire burned.",
    "\u201cWell\u201d \u2014 it\u2019s na\u00efve!!!\n=====\nx",
    "",
    " \n ",
    "a",
    "it's it's it's",
]


def word_bucket(word: bytes) -> int:
    value = sum(
        (byte + 1) * 0xD6E8FEB86659FD93 * pow(BASE, at, MOST) for at, byte in enumerate(word)
    )
    value %= MOST
    value ^= value >> 29
    return value * 0xBF58476D1CE4E5B9 % MOST >> 64 - 6


def gram_bucket(gram: bytes) -> int:
    return int.from_bytes(gram) * 0x9E3779B1 % 2**32 >> 32 - 5


def plain(net: HashedText, text: str) -> float:
    """One text, by strings and counters."""
    for curly, straight in zip("\u2018\u2019\u201c\u201d", "''\"\"", strict=True):
        text = text.replace(curly, straight)
    data = re.sub(rb"\s+", b" ", (text + " ").encode()).lstrip()
    data = re.sub(rb"([!-/:-@[-`{-~])\1+", rb"\1", data)
    pieces = [match[0] for match in re.finditer(rb"(?:[0-9A-Za-z\x80-\xff]+|[!-~]) ?", data)]
    total = 0.0
    for begin in range(0, len(pieces), net.length):
        window = pieces[begin : begin + net.length]
        joined = b"".join(window)
        grams = [joined[at : at + 3] for at in range(len(joined) - 2)]
        words = Counter(word_bucket(piece.strip()) for piece in window)
        triples = Counter(gram_bucket(gram) for gram in grams)
        raw = sum(net.weight[at] * math.sqrt(n / len(window)) for at, n in words.items())
        raw += sum(net.weight[WORDS + at] * math.sqrt(n / len(grams)) for at, n in triples.items())
        total += raw * len(window) / len(pieces)
    return total + net.bias


@pytest.fixture
def net() -> HashedText:
    weight = np.random.default_rng(0).normal(size=WORDS + GRAMS).astype(np.float32)
    return HashedText(weight, 0.25, words=WORDS, length=LENGTH)


def test_texts_are_read_as_a_plain_loop_reads_them(net: HashedText) -> None:
    raw, words = net.raw(TEXTS)
    np.testing.assert_allclose(raw, [plain(net, text) for text in TEXTS], rtol=1e-5)
    assert words.tolist() == [11, 11, 0, 0, 1, 9]
    assert net.raw([])[0].shape == (0,)


def test_a_score_does_not_depend_on_what_is_scored_beside_it(net: HashedText) -> None:
    texts = [*TEXTS, "the ship sails " * 9000, "x" * 70_000, "\n".join(["sea"] * 20_000)]
    together = net.raw(texts)[0]
    assert [net.raw([text])[0][0] for text in texts] == together.tolist()
    assert net.raw(texts[::-1])[0].tolist() == together[::-1].tolist()


@pytest.mark.parametrize("text", [*TEXTS, "the ship sails, and sails " * 4000])
def test_shares_of_words_add_up_to_the_score(net: HashedText, text: str) -> None:
    shares = net.shares(text)
    assert sum(share for _, share in shares) + net.bias == pytest.approx(net.raw([text])[0][0])
    assert (
        "".join(word for word, _ in shares).split()
        == re.sub(
            r"([!=])\1+", r"\1", text.translate(str.maketrans("\u2019\u201c\u201d", '\'""'))
        ).split()
    )


def test_half_a_surrogate_pair_is_scored(net: HashedText) -> None:
    assert np.isfinite(net.raw(["half \ud83d of it"])[0]).all()


def test_a_net_without_grams(net: HashedText) -> None:
    alone = HashedText(net.weight[:WORDS], net.bias, words=WORDS, length=LENGTH)
    assert sum(share for _, share in alone.shares("a b a")) + alone.bias == pytest.approx(
        alone.raw(["a b a"])[0][0]
    )


def save(learner: Learner, folder: Path) -> Path:
    save_learner(learner, folder, recipe_toml="", evaluation={}, readme="", half=True)
    return folder


def test_it_is_stored_without_a_tokenizer_and_scores_the_same(tmp_path: Path) -> None:
    learner = text_learner()
    loaded = read_learner(save(learner, tmp_path / "x"))
    assert isinstance(loaded, TextLearner)
    assert loaded.config == learner.config and loaded.config.tokenizer is None
    assert loaded.score_texts(TEXTS).tolist() == learner.score_texts(TEXTS).tolist()
    with pytest.raises(ArtifactError, match="'tokenizer' must be null for 'hashed-text'"):
        tiny_config(architecture="hashed-text", sizes={"words": 64, "grams": 32})
    with pytest.raises(ArtifactError, match="'tokenizer' must be an object for 'linear'"):
        tiny_config(tokenizer=None)


def test_what_needs_token_ids_refuses_it_and_says_the_way_out() -> None:
    learner = text_learner()
    for ask in (
        lambda: learner.score([[1]]),
        lambda: learner.predict_gain([[1]]),
        lambda: learner.contributions([[1]]),
        lambda: learner.check_tokenizer(None),  # type: ignore[arg-type]
        lambda: learner.check_vocabulary(64),
    ):
        with pytest.raises(IncompatibleError, match=r"score_texts\(texts\)"):
            ask()


def test_a_learner_of_token_ids_says_that_it_reads_no_text(learner: Learner) -> None:
    with pytest.raises(IncompatibleError, match=r"learners list --base any"):
        learner.score_texts(["text"])


def test_columns_and_streams_of_text() -> None:
    learner = text_learner()
    scores = learner.score_texts(TEXTS)
    column = ScoreColumn(learner, key="text")({"text": TEXTS})
    assert column == {"score": scores.tolist()}
    limit = float(np.median(scores))
    rows = [{"text": text, "number": number} for number, text in enumerate(TEXTS)]
    kept = filtered(rows, learner, limit, key="text")
    assert [row["number"] for row in kept] == np.flatnonzero(scores >= limit).tolist()
    assert kept.report.tokens_seen == sum(len(text.split()) for text in TEXTS)
    with pytest.raises(Exception, match="reads text, and 'input_ids'"):
        list(filtered([{"input_ids": [1, 2]}], learner, 0.0))


def test_it_is_read_and_scores_without_torch(tmp_path: Path) -> None:
    save(text_learner(), tmp_path / "x")
    script = (
        "import sys; from secondary_learners import load_learner;"
        f"load_learner({str(tmp_path / 'x')!r}).score_texts(['a b']);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
