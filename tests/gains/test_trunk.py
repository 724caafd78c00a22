from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from gains_helpers import VOCABULARY, contexts_of
from secondary_learners.gains import problem as problem_module
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.methods import swapped
from secondary_learners.gains.objective import evaluation_mode, losses_of
from secondary_learners.gains.rows import rows_of
from secondary_learners.gains.subsets import blocks_of, trained
from secondary_learners.gains.trunk import frozen_blocks, repeated_losses
from tiny_models import tiny_gpt2, tiny_llama, tiny_neox

IDS = rows_of(contexts_of(7, seed=1))


def make(family: str) -> PreTrainedModel:
    if family == "gpt2":
        return tiny_gpt2(VOCABULARY, n_positions=24, n_layer=4)
    return (tiny_llama if family == "llama" else tiny_neox)(VOCABULARY, num_hidden_layers=4)


def passes(model: PreTrainedModel) -> list[int]:
    """How often each block has run, counted in the block's own layers."""
    counts = [0] * len(blocks_of(model))

    def counter(number: int) -> Any:
        def count(*_: Any) -> None:
            counts[number] += 1

        return count

    for number, block in enumerate(blocks_of(model)):
        norm = next(m for name, m in block.named_modules() if "norm" in name or "ln_1" in name)
        norm.register_forward_hook(counter(number))
    return counts


def move(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_losses_are_those_of_whole_passes_to_the_bit(family: str) -> None:
    model = make(family)
    with trained(model, "last-layers:2"), evaluation_mode(model):
        frozen, first = frozen_blocks(model)
        assert [*frozen, first] == blocks_of(model)[:3]
        losses = repeated_losses(model, IDS, 3 * 12)
        assert torch.equal(losses(), losses_of(model, IDS, 3 * 12))
        counts = passes(model)
        for _ in range(2):
            move(model)
            assert torch.equal(losses(), losses_of(model, IDS, 3 * 12))
        assert counts == [6, 6, 12, 12]  # three batches: losses_of's two calls, and all four
    assert not any("forward" in vars(block) for block in blocks_of(model))


@pytest.mark.parametrize("trainable", ["all", "last-layers:4", ["*ln_f*"], ["*.h.3.*", "*wte*"]])
def test_nothing_is_kept_where_a_step_reaches_below(trainable: Any) -> None:
    model = make("gpt2")
    with trained(model, trainable), evaluation_mode(model):
        losses = repeated_losses(model, IDS, 3 * 12)
        losses()
        move(model)
        counts = passes(model)
        found = losses()
        assert min(counts) == 3
        assert torch.equal(found, losses_of(model, IDS, 3 * 12))


class Skipping(nn.Module):
    """A block that also looks at the block before the last, past what enters it."""

    def __init__(self, inner: nn.Module, below: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, torch.zeros(())
        below.register_forward_hook(self.see)

    def see(self, _: nn.Module, __: Any, output: Any) -> None:
        self.seen = output[0] if isinstance(output, tuple) else output

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.inner(hidden_states + 10 * self.seen.roll(1, dims=-1), *args, **kwargs)


def test_a_model_that_it_does_not_fit_is_run_whole() -> None:
    model = make("gpt2")
    stack = model.transformer.h
    stack[3] = Skipping(stack[3], stack[1])
    with trained(model, "last-layers"), evaluation_mode(model):
        losses = repeated_losses(model, IDS, 3 * 12)
        losses()
        move(model)
        assert torch.equal(losses(), losses_of(model, IDS, 3 * 12))


def test_running_out_of_memory_keeps_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama")
    real = model.lm_head.forward

    def limited(states: torch.Tensor) -> torch.Tensor:
        if len(states) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(states)

    with trained(model, "last-layers"), evaluation_mode(model):
        expected = losses_of(model, IDS, 7 * 12)
        monkeypatch.setattr(model.lm_head, "forward", limited)
        losses = repeated_losses(model, IDS, 7 * 12)
        for _ in range(2):
            torch.testing.assert_close(losses(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", ["exact", "swapped"])
def test_labels_are_those_of_whole_passes_to_the_bit(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, contexts, objective = make("gpt2"), contexts_of(5, seed=0), contexts_of(9, seed=2)
    quick, plain = [], []
    for found in (quick, plain):
        found.append(
            information_gain(model, contexts, objective, method=method, trainable="last-layers")
        )
        for module in (problem_module, swapped):
            monkeypatch.setattr(module, "repeated_losses", lambda *given: lambda: losses_of(*given))
    np.testing.assert_array_equal(quick, plain)
