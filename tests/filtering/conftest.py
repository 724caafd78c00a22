from __future__ import annotations

import numpy as np
import pytest
import torch

from secondary_learners.learners.artifact import Learner, tokenizer_fingerprint
from secondary_learners.learners.config import Calibration, Reference
from secondary_learners.learners.nets import LinearNet
from tiny_models import VOCABULARY, Vocabulary, tiny_config


class CountingLearner(Learner):
    """A real learner that counts how it was asked."""

    calls = 0

    def score(self, input_ids, attention_mask=None):
        self.calls += 1
        return super().score(input_ids, attention_mask)


@pytest.fixture(scope="session")
def learner() -> CountingLearner:
    net = LinearNet(VOCABULARY)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        net.weight.copy_(torch.randn(VOCABULARY, generator=generator))
    config = tiny_config(
        calibration=Calibration(0.1, 0.9, tuple(np.linspace(-2.0, 2.0, 101).tolist())),
        tokenizer=Reference("tiny/base", None, tokenizer_fingerprint(Vocabulary())),
    )
    return CountingLearner(config, net)


@pytest.fixture
def tokenizer() -> Vocabulary:
    return Vocabulary()


@pytest.fixture(scope="session")
def make_ids():
    def make(count: int, seed: int = 0, longest: int = 12) -> list[list[int]]:
        random = np.random.default_rng(seed)
        lengths = random.integers(1, longest + 1, count)
        return [random.integers(0, VOCABULARY, length).tolist() for length in lengths]

    return make


@pytest.fixture(scope="session")
def reference(learner):
    """The selection as a plain loop: one candidate scored at a time, quantiles by numpy."""

    def select(sequences, limit, batch_size, max_skips=1000):
        """limit(step, earlier scores) -> threshold; returns the kept places and forced count."""
        kept, forced, skips, earlier = [], 0, 0, []
        for place, ids in enumerate(sequences):
            score = float(learner.score([ids])[0]) if len(ids) else float(learner.score([[]])[0])
            passes = score >= limit(len(kept) // batch_size, earlier)
            if passes or skips == max_skips:
                forced += not passes
                kept.append(place)
                skips = 0
            else:
                skips += 1
            earlier.append(score)
        return kept, forced

    return select
