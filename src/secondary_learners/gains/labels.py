"""Information gain of contexts by three methods behind one function (Antonello et al., 2021).

For a context X and objective contexts O, with θ' = θ after one fresh optimizer step on X:
IG(X) = L(O; θ) − L(O; θ'). Positive: training on X helps. Cost a label, in forward passes F of one
context, with N objective contexts:

exact         (N + 3) F   the definition, objective in one batch, weights restored bit for bit
per-example   about 4 F   lr · ⟨∇L(O), first step on X / lr⟩, per-example gradients by vmap
swapped       2 F         the step is taken on O once, and each X asked how far its own loss fell;
                          equal to the others in rank because ⟨∇L(O), ∇L(X)⟩ is symmetric
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from secondary_learners.errors import (
    DivergedError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.gains.objective import (
    batch_size_for,
    context_losses,
    evaluation_mode,
    in_batches,
    in_rows,
)
from secondary_learners.gains.optimizers import FirstStep
from secondary_learners.gains.precision import check_precision, computed_in
from secondary_learners.gains.subsets import Trainable, trained
from secondary_learners.gains.trunk import repeated_losses
from secondary_learners.text.contexts import Contexts
from secondary_learners.text.examples import Examples, with_mask

__all__ = ["METHODS", "finite", "information_gain", "labeller", "token_ids"]

METHODS = ("exact", "per-example", "swapped")
# Per-example gradients held at once: that many copies of the weights. A CPU pays for fresh memory.
_VMAP_ROWS, _CPU_VMAP_BYTES = 16, 48 * 2**20
# Examples padded at once: enough to find some of like length.
_EXAMPLES = 4096

Labeller = Callable[[Tensor], Tensor]


def information_gain(
    model: nn.Module,
    contexts: Contexts | Examples | NDArray[np.int64] | Tensor,
    objective: Contexts | Examples | NDArray[np.int64] | Tensor,
    *,
    method: str = "swapped",
    optimizer: str = "adamw",
    learning_rate: float = 5e-5,
    eps: float = 1e-8,
    unit: str = "nats",
    trainable: Trainable = None,
    batch_size: int | None = None,
    precision: str = "float32",
) -> NDArray[np.float64]:
    """Information gain of each context; positive means that a step on it lowers the objective.

    model: any causal language model of transformers, left exactly as it was (weights, mode and
        what requires gradients).
    contexts: int64 [contexts, length]; objective: int64 [objective contexts, length]; or either
        as `Examples`, whose loss is the mean over the tokens of each one's completion.
    unit: "nats" (of mean token loss of the objective) or "perplexity" (of its exponential).
    trainable: the parameters that the step moves, by default those that require gradients. "all";
        "last-layers" or "last-layers:N", the last one or N blocks; a list of names with wildcards
        (["transformer.h.*.mlp.*"]); or "lora", the active adapters of a PEFT model. A model that
        has none gets LoRA adapters of rank 8 in every linear layer but the head, always the same
        ones, for as long as this takes (needs the extra `lora`). Fresh adapters are B A with B = 0,
        where the gradient of A is 0: the first step moves B alone, within the random directions
        of A. What is frozen may be in half precision, what is trained may not.
    batch_size: contexts a forward pass; by default chosen from free memory.
    precision: of the passes, "float32", "tf32" or "bfloat16"; weights, steps and losses are
        float32 in any case.
    Returns float64 [contexts]. Raises DivergedError where a loss is not finite, UnknownNameError
    for an unknown method, optimizer, unit, precision or subset, and SecondaryLearnersError for
    parameters that the model has not.
    """
    device = next(model.parameters()).device
    step = FirstStep(optimizer, learning_rate, eps)
    with trained(model, trainable), evaluation_mode(model):
        target = token_ids(objective, device)
        if isinstance(contexts, Examples):
            target = with_mask(target)
        label = labeller(model, target, method, step, unit, batch_size, precision)
        if not isinstance(contexts, Examples):
            return finite(label(token_ids(contexts, device)).double().cpu().numpy())
        gains = np.empty(len(contexts))
        order = np.argsort(contexts.lengths, kind="stable")
        for begin in range(0, len(order), _EXAMPLES):
            part = order[begin : begin + _EXAMPLES]
            gains[part] = label(token_ids(contexts.select(part), device)).double().cpu().numpy()
    return finite(gains)


def labeller(
    model: nn.Module,
    objective: Tensor,
    method: str,
    step: FirstStep,
    unit: str = "nats",
    batch_size: int | None = None,
    precision: str = "float32",
) -> Labeller:
    """A function from contexts [contexts, length] to gains [contexts], its set-up done once.

    With an objective of examples [examples, length, 2] it takes those too; see `Examples.tensor`.
    Call it inside `evaluation_mode`, at the weights the model has now.
    """
    makers = {"per-example": _per_example, "swapped": _swapped}
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS, "learners gains --help")
    if unit not in ("nats", "perplexity"):
        raise UnknownNameError("unit", unit, ("nats", "perplexity"), "learners gains --help")
    check_precision(precision, method)
    low = {p.dtype for p in model.parameters() if p.requires_grad} - {torch.float32, torch.float64}
    if low:
        raise SecondaryLearnersError(
            f"the model's weights are {low.pop()}, in which a step of {step.learning_rate:g} is "
            "mostly lost in rounding. Label with `model.float()`."
        )
    with evaluation_mode(model), computed_in(model, precision):
        size = batch_size or batch_size_for(model, objective.shape[1])
        examples = objective.ndim == 3
        if examples:  # of which batches are counted in tokens
            size *= objective.shape[1]
        repeated = repeated_losses(model, objective, size)
        loss = float(repeated().mean())
        if not np.isfinite(loss):
            raise DivergedError(f"the loss of the objective is {loss} before any step.")
        if method == "exact":
            measure = _exact(model, repeated, step, loss)
        else:
            measure = makers[method](model, objective, step, size)

    def nats(ids: Tensor) -> Tensor:
        with computed_in(model, precision):
            return measure(with_mask(ids) if examples else ids)

    if unit == "nats":
        return nats
    # exp(L) − exp(L − gain): the same ranking in another unit, so no method needs its own.
    return lambda ids: -np.exp(loss) * torch.expm1(-nats(ids).double())


def _exact(
    model: nn.Module, repeated: Callable[[], Tensor], step: FirstStep, loss: float
) -> Labeller:
    def label(ids: Tensor) -> Tensor:
        after = []
        with _restored(model) as (parameters, restore):
            for context in ids.split(1):
                gradients = torch.autograd.grad(context_losses(model, context).sum(), parameters)
                step.apply(parameters, gradients)
                # Left on the device: fetching it would let a GPU wait for the next launches.
                after.append(repeated().mean())
                restore()
        return loss - torch.stack(after)

    return label


def _per_example(model: nn.Module, objective: Tensor, step: FirstStep, size: int) -> Labeller:
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    towards = dict(zip(names, _objective_gradient(model, objective, size), strict=True))

    def one_loss(parameters: dict[str, Tensor], context: Tensor) -> Tensor:
        ids = context if context.ndim == 1 else context[:, 0]
        logits = torch.func.functional_call(
            model, parameters, kwargs={"input_ids": ids[None], "use_cache": False}
        ).logits
        if context.ndim == 1:
            return nn.functional.cross_entropy(logits[0, :-1].float(), ids[1:])
        losses = nn.functional.cross_entropy(logits[0, :-1], ids[1:], reduction="none")
        return (losses * context[1:, 1]).sum() / context[1:, 1].sum()

    gradients = torch.func.vmap(torch.func.grad(one_loss), in_dims=(None, 0))

    def dots(ids: Tensor) -> Tensor:
        parameters = {
            name: parameter.detach()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no batching rule
            found = gradients(parameters, ids)
        directions = step.direction([found[name].flatten(1) for name in names])
        total = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
        for name, direction in zip(names, directions, strict=True):
            total += (direction @ towards[name].flatten()).double()
        return step.learning_rate * total

    rows = min(_VMAP_ROWS, size)
    if objective.device.type == "cpu":
        weights = sum(tensor.nbytes for tensor in towards.values())
        rows = max(1, min(rows, _CPU_VMAP_BYTES // weights))
    if objective.ndim == 3:  # batches of examples are counted in tokens, gradients in rows
        return lambda ids: in_batches(lambda part: in_rows(dots, part, rows), ids, size)
    return lambda ids: in_batches(dots, ids, rows)


def _swapped(model: nn.Module, objective: Tensor, step: FirstStep, size: int) -> Labeller:
    gradient = _objective_gradient(model, objective, size)

    def label(ids: Tensor) -> Tensor:
        losses = repeated_losses(model, ids, size)
        before = losses()
        with _restored(model) as (parameters, _):
            step.apply(parameters, gradient)
            return before - losses()

    return label


@contextmanager
def _restored(model: nn.Module) -> Iterator[tuple[list[Tensor], Callable[[], None]]]:
    """The trainable parameters and a function that restores them; restored at the end anyway."""
    parameters: list[Tensor] = [
        parameter for parameter in model.parameters() if parameter.requires_grad
    ]
    backup = [parameter.detach().clone() for parameter in parameters]

    def restore() -> None:
        with torch.no_grad():
            torch._foreach_copy_(parameters, backup)

    try:
        yield parameters, restore
    finally:
        restore()


def _objective_gradient(model: nn.Module, objective: Tensor, size: int) -> list[Tensor]:
    """∇ of the mean objective loss, accumulated over batches; one tensor a parameter."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total = [torch.zeros_like(parameter) for parameter in parameters]

    def add(part: Tensor) -> Tensor:
        loss = context_losses(model, part).sum() / len(objective)
        torch._foreach_add_(total, torch.autograd.grad(loss, parameters))
        return loss.detach()[None]

    in_batches(add, objective, max(1, size // 2))  # the backward pass holds twice as much
    return total


def token_ids(
    contexts: Contexts | Examples | NDArray[np.int64] | Tensor, device: torch.device
) -> Tensor:
    """The token ids as an int64 tensor [contexts, length] on `device`; see `Examples.tensor`."""
    if isinstance(contexts, Examples):
        return contexts.tensor(device)
    ids = contexts.input_ids if isinstance(contexts, Contexts) else contexts
    tensor = torch.as_tensor(ids, dtype=torch.int64)
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # so that the copy waits for nothing, nor the next launch
    return tensor.to(device, non_blocking=True)


def finite(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """`gains`, or DivergedError naming the first that is not finite."""
    bad = np.flatnonzero(~np.isfinite(gains))
    if bad.size:
        raise DivergedError(
            f"{bad.size} of {gains.size} gains are not finite, the first is {gains[bad[0]]} for "
            f"context {bad[0]}. Try a lower learning rate."
        )
    return gains
