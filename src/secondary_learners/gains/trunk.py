"""Losses of the same contexts again and again, the frozen blocks below the step computed once.

A step on the last blocks leaves every hidden state below them as it was. So the first pass keeps
what enters the first trained block, and later passes run the model's own forward with the blocks
below handing on what they are given and the kept states put in their place. Whether that gives the
very losses is tried on the first batch; where it does not, every pass is a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secondary_learners.gains.objective import (
    context_losses,
    forward_passes,
    in_rows,
    losses_of,
)
from secondary_learners.gains.rows import Rows
from secondary_learners.gains.subsets import blocks_of

__all__ = ["frozen_blocks", "repeated_losses"]

_TOLERANCE = 1e-6  # relative: how far a loss may be from that of a whole pass


def repeated_losses(model: nn.Module, contexts: Rows, tokens: int) -> Callable[[], Tensor]:
    """A function that gives `losses_of(model, contexts, tokens)` at the weights of its call.

    Only parameters that require gradients may change between calls. Where these all lie in the last
    blocks, a hidden state for each token is kept, on the model's device.
    """
    frozen, first = frozen_blocks(model)
    kept: Tensor | None = None

    def whole() -> Tensor:
        return losses_of(model, contexts, tokens)

    current = whole

    def recorded() -> Tensor:
        nonlocal kept, current
        batches: list[Tensor] = []

        def record(rows: Tensor) -> Tensor:
            with _watched(first) as entering:
                losses = context_losses(model, contexts[rows])
            batches.extend(entering[:1])  # after the pass: one out of memory leaves nothing
            return losses

        with forward_passes():
            losses = in_rows(record, rows, size)
            kept = torch.cat(batches) if batches else None
            current = whole
            if kept is not None and len(kept) == len(rows):
                trial = short(rows[: len(batches[0])])
                if torch.allclose(trial, losses[: len(trial)], rtol=_TOLERANCE, atol=0):
                    current = shortened
                else:
                    kept = None
        return losses.double()

    def short(rows: Tensor) -> Tensor:
        assert kept is not None
        with _entered(frozen, first, kept[rows]):
            return context_losses(model, contexts[rows])

    def shortened() -> Tensor:
        with forward_passes():
            return in_rows(short, rows, size).double()

    rows = torch.arange(len(contexts), device=contexts.ids.device)
    size = max(1, tokens // contexts.length)
    # Others come in batches of several widths, whose states make no one tensor.
    if frozen and len(contexts) and contexts.counts is None:
        current = recorded
    return lambda: current()


def frozen_blocks(model: nn.Module) -> tuple[Sequence[nn.Module], nn.Module]:
    """The leading blocks that no step reaches, and the block after them.

    None are found where anything outside the blocks may change: an embedding changes them all.
    """
    blocks = blocks_of(model)
    moving = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    reached = [any(id(p) in moving for p in block.parameters()) for block in blocks]
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    if not any(reached) or moving - inside:
        return (), model
    count = reached.index(True)
    return blocks[:count], blocks[count]


@contextmanager
def _watched(block: nn.Module) -> Iterator[list[Tensor]]:
    """The hidden states that enter `block` inside the `with`, one tensor a pass."""
    entering: list[Tensor] = []

    def watch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entering.append(args[0] if args else kwargs["hidden_states"])

    handle = block.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        yield entering
    finally:
        handle.remove()


@contextmanager
def _entered(frozen: Sequence[nn.Module], block: nn.Module, states: Tensor) -> Iterator[None]:
    """Inside the `with`, `frozen` blocks do nothing and `states` enter `block`."""

    def put_in(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (states, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": states}

    def nothing(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states

    own = [vars(block).get("forward") for block in frozen]  # of libraries that wrap it
    handle = block.register_forward_pre_hook(put_in, with_kwargs=True)
    try:
        for below in frozen:
            below.forward = nothing
        yield
    finally:
        handle.remove()
        for below, forward in zip(frozen, own, strict=True):
            del below.forward
            if forward is not None:
                below.forward = forward
