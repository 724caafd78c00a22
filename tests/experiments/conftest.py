from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from secondary_learners.learners.artifact import Learner
from secondary_learners.learners.config import Calibration, LearnerConfig, Reference, Score
from secondary_learners.learners.nets import LinearNet
from secondary_learners.text.contexts import Contexts

VOCABULARY = 64


def contexts(inside: int, outside: int, seed: int, length: int = 8) -> Contexts:
    """Domain "low" has the lower half of the vocabulary, unevenly; "high" the upper half."""
    random = np.random.default_rng(seed)
    skew = np.arange(32, 0, -1) ** 2.0
    low = random.choice(32, (inside, length), p=skew / skew.sum())
    high = random.integers(32, VOCABULARY, (outside, length))
    order = random.permutation(inside + outside)
    domain = np.array([1] * inside + [0] * outside)
    return Contexts(
        np.concatenate([low, high])[order].astype(np.int64),
        np.arange(inside + outside),
        domain[order],
        ("high", "low"),
    )


@pytest.fixture(scope="session")
def pool() -> Contexts:
    return contexts(60, 140, seed=0)


@pytest.fixture(scope="session")
def test_contexts() -> Contexts:
    return contexts(100, 0, seed=1)


@pytest.fixture
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=16,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )  # with its dropout of 0.1, as real models have
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="session")
def learner() -> Learner:
    """Likes "low": its score is about +1.5 there and about -0.6 elsewhere."""
    net = LinearNet(VOCABULARY, counts="frequency")
    with torch.no_grad():
        net.weight[:32] = 1.0
        net.weight += 0.05 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1))
    return Learner(
        LearnerConfig(
            name="tiny",
            architecture="linear",
            sizes={"vocabulary": VOCABULARY, "bigrams": 0, "counts": "frequency"},
            score=Score(0.0, 1.0, "nats per token"),
            calibration=Calibration(0.3, 0.46, tuple(np.linspace(0, 1, 101).tolist())),
            context_length=8,
            base_model=Reference("tiny/base", None, "0" * 64),
            tokenizer=Reference("tiny/base", None, "0" * 64),
            objective={},
            corpus={},
            optimizer={},
            labels={},
            versions={},
        ),
        net,
    )
