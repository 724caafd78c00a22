"""A GPT-2 small enough to differentiate in milliseconds, and random contexts for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from secondary_learners.gains.contexts import Contexts

VOCABULARY = 97


@pytest.fixture
def model() -> PreTrainedModel:
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=24,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)  # dropout 0.1, in train mode: the methods must turn it off


def contexts_of(count: int, length: int = 12, *, seed: int, domains: int = 1) -> Contexts:
    random = np.random.default_rng(seed)
    names = tuple(f"domain {number}" for number in range(domains))
    domain = random.integers(0, domains, count)
    # Each domain uses its own part of the vocabulary, so that gains differ.
    width = VOCABULARY // domains
    ids = random.integers(0, width, (count, length)) + domain[:, None] * width
    return Contexts(ids, np.arange(count) // 3, domain, names)
