"""Published labels, a tokenizer and text small enough to distil a learner from in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recipes_helpers import OTHER, WANTED, prose
from secondary_learners.recipes.base_model.training import train_tokenizer
from secondary_learners.recipes.distilled_learner.recipe import (
    DistilledRecipe,
    EmbeddingPlan,
    PoolPlan,
    PublishedLabels,
    StudentPlan,
    TeacherPlan,
)
from secondary_learners.text.corpus import Source
from tiny_models import BASE_VOCABULARY

LENGTH, ROWS, REPORTED = 12, 400, 64

RECIPE = DistilledRecipe(
    name="tiny-distilled",
    summary="A learner for tests",
    base="openai-community/gpt2",
    revision="607a30d783dfa663caf39e06633721c8d4cfcd7e",
    tokenizer="tokenizer.json",
    labels=PublishedLabels(
        file="labels.npz",
        source="someone/labels",
        commit="0123456",
        license="MIT",
        corpus="tiny-text",
        objective_contexts=4,
        readings="They were never read before.",
        reported=REPORTED,
    ),
    sources=(Source("text", files="text/*.txt"), Source("more", files="more/*.txt")),
    pool=(PoolPlan("text", 400), PoolPlan("spliced", 200)),
    language="en",
    embeddings=EmbeddingPlan(dimensions=8, neighbors=60),
    teacher=TeacherPlan(strength=0.4, folds=3),
    student=StudentPlan(embedding=6, channels=8, hidden=6, epochs=6, batch_size=64),
)


def write_data(folder: Path, *, reported_sign: float = 1.0) -> Path:
    """A corpus folder. The gain of a context is how much of it is `WANTED` text, and some noise.

    reported_sign: -1 turns the labels of the rows kept for reporting round, and no others.
    """
    random = np.random.default_rng(5)
    tokenizer = train_tokenizer(
        [prose(WANTED, 4000, 3), prose(OTHER, 4000, 4)], BASE_VOCABULARY
    ).backend_tokenizer
    for name, seed in (("text", 6), ("more", 8)):
        (folder / name).mkdir(parents=True)
        words = prose(WANTED, 20_000, seed) + "\n\n" + prose(OTHER, 20_000, seed + 1)
        (folder / name / "part.txt").write_text(words)
    tokenizer.save(str(folder / "tokenizer.json"))
    streams = [np.array(tokenizer.encode(prose(w, 30_000, 9)).ids) for w in (WANTED, OTHER)]
    contexts = np.empty((ROWS, LENGTH), np.uint16)
    wanted = random.integers(0, LENGTH + 1, ROWS)
    for row, first in zip(contexts, wanted, strict=True):
        starts = [random.integers(0, len(stream) - LENGTH) for stream in streams]
        row[:first] = streams[0][starts[0] : starts[0] + first]
        row[first:] = streams[1][starts[1] : starts[1] + LENGTH - first]
    gains = wanted / LENGTH + random.normal(0, 0.1, ROWS)
    gains[:REPORTED] *= reported_sign
    np.savez(
        folder / "labels.npz",
        contexts=contexts,
        information_gain=gains,
        perplexity=np.exp(4 - gains + random.normal(0, 0.5, ROWS)).astype(np.float32),
        row=np.arange(ROWS, dtype=np.int32),
    )
    return folder
