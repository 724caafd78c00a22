from __future__ import annotations

import numpy as np
import pytest
from transformers import GPT2LMHeadModel

from secondary_learners.text.sequences import Examples
from tiny_models import VOCABULARY, tiny_gpt2


def contexts(inside: int, outside: int, seed: int, length: int = 8) -> Examples:
    """Domain "low" has the lower half of the vocabulary, unevenly; "high" the upper half."""
    random = np.random.default_rng(seed)
    skew = np.arange(32, 0, -1) ** 2.0
    low = random.choice(32, (inside, length), p=skew / skew.sum())
    high = random.integers(32, VOCABULARY, (outside, length))
    order = random.permutation(inside + outside)
    domain = np.array([1] * inside + [0] * outside)
    return Examples.contexts(
        np.concatenate([low, high])[order].astype(np.int64),
        np.arange(inside + outside),
        domain[order],
        ("high", "low"),
    )


@pytest.fixture(scope="session")
def pool() -> Examples:
    return contexts(60, 140, seed=0)


@pytest.fixture(scope="session")
def test_contexts() -> Examples:
    return contexts(100, 0, seed=1)


@pytest.fixture
def model() -> GPT2LMHeadModel:
    return tiny_gpt2().eval()
