"""Contexts and examples with made-up tokens, for the tests of gains and of text."""

from __future__ import annotations

import numpy as np

from secondary_learners.gains.methods import METHODS
from secondary_learners.learners.selectors import SELECTORS
from secondary_learners.text.sequences import Examples

VOCABULARY = 97
OF_A_MODEL = tuple(name for name in METHODS if name not in SELECTORS)


def contexts_of(count: int, length: int = 12, *, seed: int, domains: int = 1) -> Examples:
    random = np.random.default_rng(seed)
    names = tuple(f"domain {number}" for number in range(domains))
    domain = random.integers(0, domains, count)
    # Each domain uses its own part of the vocabulary, so that gains differ.
    width = VOCABULARY // domains
    ids = random.integers(0, width, (count, length)) + domain[:, None] * width
    return Examples.contexts(ids, np.arange(count) // 3, domain, names)


def examples_of(count: int, *, seed: int, longest: int = 20, domains: int = 1) -> Examples:
    """Of 2 to `longest` tokens, the completion at least one of them."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, longest + 1, count)
    begins = random.integers(1, lengths)
    names = tuple(f"domain {number}" for number in range(domains))
    domain = random.integers(0, domains, count)
    width = VOCABULARY // domains
    ids = [random.integers(0, width, n) + d * width for n, d in zip(lengths, domain, strict=True)]
    masks = [np.arange(n) >= begin for n, begin in zip(lengths, begins, strict=True)]
    return Examples(
        np.concatenate(ids), np.concatenate(masks), lengths, np.arange(count) // 3, domain, names
    )
