"""Inside transformers.Trainer: freezing, masks, checkpoints, and a filter beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments

from secondary_learners.deltas.artifact import Origin, make_delta
from secondary_learners.deltas.layers import (
    backbone_weights,
    freeze_except,
    parameter_groups,
)
from secondary_learners.deltas.masks import mask_layers, masks_of, merge_masks
from secondary_learners.filtering.stream import filtered
from secondary_learners.learners.artifact import Learner
from secondary_learners.learners.config import Reference
from secondary_learners.tasks.classifier import classifier
from secondary_learners.tasks.encoding import Encoded

pytest.importorskip("accelerate")
LAYERS = ("transformer.h.0.mlp.c_fc.weight", "transformer.h.1.attn.c_attn.weight")


def rows(examples: Encoded) -> Any:
    import datasets

    ids = [list(row[:4]) for row in examples.ids]
    return datasets.Dataset.from_dict({"input_ids": ids, "labels": list(examples.targets)})


def masked(base: PreTrainedModel) -> PreTrainedModel:
    model = classifier(base, 2)
    mask_layers(model, LAYERS, sparsity=0.2)
    freeze_except(model, [])
    return model


def trainer(model: PreTrainedModel, data: Any, folder: Path, **options: Any) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        max_steps=6,
        save_steps=3,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
        dataloader_pin_memory=False,
        **options,
    )
    groups = parameter_groups(model, learning_rate=1e-2, score_learning_rate=0.3)
    optimizers = (torch.optim.AdamW(groups), None)
    return Trainer(model, arguments, train_dataset=data, optimizers=optimizers)


def test_a_mask_trains_and_resumes_from_a_checkpoint(
    base: PreTrainedModel, examples: Encoded, tmp_path: Path
) -> None:
    data = rows(examples)
    whole = masked(base)
    first = masks_of(whole)
    trainer(whole, data, tmp_path / "a").train()
    learnt = masks_of(whole)
    assert any(not torch.equal(first[name], learnt[name]) for name in first)

    resumed = masked(base)
    trainer(resumed, data, tmp_path / "a").train(
        resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3")
    )
    assert all(torch.equal(masks_of(resumed)[name], learnt[name]) for name in learnt)
    assert torch.equal(whole.get_parameter("score.weight"), resumed.get_parameter("score.weight"))


def test_with_a_filter_and_then_as_a_plain_model(
    base: PreTrainedModel, examples: Encoded, learner: Learner, tmp_path: Path
) -> None:
    kept = filtered(rows(examples), learner, 0.0)
    assert 8 <= len(kept) < len(examples)
    model = masked(base)
    trainer(model, kept, tmp_path / "a").train()
    delta = make_delta(
        base,
        model,
        Origin(
            name="x",
            base_model=("tiny", None),
            tokenizer=Reference("tiny", None, "0" * 64),
        ),
        classes=["no", "yes"],
    )
    model.eval()
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        expected = model(ids).logits
    merge_masks(model)
    model.save_pretrained(tmp_path / "plain")
    again = type(model).from_pretrained(tmp_path / "plain").eval()
    applied = delta.apply(classifier(base, 2)).model
    with torch.no_grad():
        assert torch.equal(again(ids).logits, expected)
        assert torch.equal(applied(ids).logits, expected)


def test_only_the_chosen_layers_move(
    base: PreTrainedModel, examples: Encoded, tmp_path: Path
) -> None:
    model = classifier(base, 2)
    freeze_except(model, LAYERS)
    trainer(model, rows(examples), tmp_path / "a").train()
    moved = {
        name
        for name, weight in backbone_weights(model).items()
        if not torch.equal(weight, base.get_parameter(name))
    }
    assert moved == set(LAYERS)
