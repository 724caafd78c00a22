"""Tiny models and data for the tests of trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    PreTrainedModel,
    TrainingArguments,
)

from tiny_models import tiny_gpt2

VOCABULARY = 64
PAD = 0


def make_rows(count: int, *, causal: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    """Sequences of 3 to 11 tokens; the class is told by the first token, a third at random."""
    random = np.random.default_rng(seed)
    rows = []
    for place in range(count):
        ids = random.integers(1, VOCABULARY, random.integers(3, 12)).tolist()
        label = int(ids[0] >= 32) if place % 3 else int(random.integers(2))
        labels: Any = list(ids) if causal else label
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return rows


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Padded on the right to the longest row."""
    width = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, fill: int) -> torch.Tensor:
        values = [row[name] for row in rows]
        if not isinstance(values[0], list):
            return torch.tensor(values)
        return torch.tensor([[*value, *[fill] * (width - len(value))] for value in values])

    return {
        "input_ids": padded("input_ids", PAD),
        "attention_mask": padded("attention_mask", 0),
        "labels": padded("labels", -100),
    }


def make_model(*, causal: bool = False, dropout: float = 0.1) -> PreTrainedModel:
    """Two layers, the same weights every time."""
    dropped = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), dropout)
    ends = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 1}
    head = "LMHeadModel" if causal else "ForSequenceClassification"
    return tiny_gpt2(VOCABULARY, head=head, num_labels=2, **ends, **dropped)


def make_arguments(folder: Path, **options: Any) -> TrainingArguments:
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**{**defaults, **options})
