"""A GPT-2 small enough to differentiate in milliseconds."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from gains_helpers import VOCABULARY


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
