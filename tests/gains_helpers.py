"""Contexts with made-up tokens and a model without transformers, for the tests of gains."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from secondary_learners.text.contexts import Contexts
from secondary_learners.text.examples import Examples

VOCABULARY = 97


def contexts_of(count: int, length: int = 12, *, seed: int, domains: int = 1) -> Contexts:
    random = np.random.default_rng(seed)
    names = tuple(f"domain {number}" for number in range(domains))
    domain = random.integers(0, domains, count)
    # Each domain uses its own part of the vocabulary, so that gains differ.
    width = VOCABULARY // domains
    ids = random.integers(0, width, (count, length)) + domain[:, None] * width
    return Contexts(ids, np.arange(count) // 3, domain, names)


class BigramModel(nn.Module):
    """A language model of one matrix product, which starts in a moment and is always the same."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=VOCABULARY)
        random = torch.Generator().manual_seed(seed)
        self.embedding = nn.Parameter(torch.randn(VOCABULARY, 8, generator=random))
        self.head = nn.Parameter(torch.randn(8, VOCABULARY, generator=random))

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        return SimpleNamespace(logits=self.embedding[input_ids] @ self.head)


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
