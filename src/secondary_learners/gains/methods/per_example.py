"""First-order: lr · ⟨∇L(O), first step on X / lr⟩, with per-example gradients by vmap.

About 4 F a label, in forward passes F of one context.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.gains.objective import in_batches, in_rows
from secondary_learners.gains.problem import Labeller, Problem, mean_gradient
from secondary_learners.gains.rows import Rows
from secondary_learners.gains.settings import LabelSettings, check_one_step

__all__ = ["PART", "check", "prepare", "unit"]

PART = 256
# Per-example gradients held at once: that many copies of the weights. A CPU pays for fresh memory.
_VMAP_ROWS, _CPU_VMAP_BYTES = 16, 48 * 2**20


def check(settings: LabelSettings) -> None:
    check_one_step(settings)
    if settings.precision == "bfloat16":
        raise SecondaryLearnersError(
            "per-example labels cannot be computed in bfloat16: torch's per-example gradients do "
            "not go with autocast. Try --method swapped, or --precision float32."
        )


def unit(settings: LabelSettings) -> str:
    return "nats per token" if settings.unit == "nats" else settings.unit


def prepare(problem: Problem) -> Labeller:
    model, step = problem.model, problem.step
    assert problem.loss is not None  # which raises for one that is not finite
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    towards = dict(zip(names, mean_gradient(problem, problem.objective), strict=True))

    def one_loss(parameters: dict[str, Tensor], ids: Tensor, counts: Tensor | None) -> Tensor:
        logits = torch.func.functional_call(
            model, parameters, kwargs={"input_ids": ids[None], "use_cache": False}
        ).logits[0, :-1]
        if counts is None:
            return nn.functional.cross_entropy(logits.float(), ids[1:])
        losses = nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        return (losses * counts[1:]).sum() / counts[1:].sum()

    def gradients(parameters: dict[str, Tensor], rows: Rows) -> dict[str, Tensor]:
        each = (None, 0, None if rows.counts is None else 0)
        per_example = torch.func.vmap(torch.func.grad(one_loss), in_dims=each)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no batching rule
            result: dict[str, Tensor] = per_example(parameters, rows.ids, rows.counts)
        return result

    def dots(rows: Rows) -> Tensor:
        parameters = {
            name: parameter.detach()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        own = gradients(parameters, rows)
        directions = step.direction([own[name].flatten(1) for name in names])
        total = torch.zeros(len(rows), dtype=torch.float64, device=rows.ids.device)
        for name, direction in zip(names, directions, strict=True):
            total += (direction @ towards[name].flatten()).double()
        return step.learning_rate * total

    size = min(_VMAP_ROWS, max(1, problem.tokens // problem.objective.length))
    if problem.objective.ids.device.type == "cpu":
        weights = sum(tensor.nbytes for tensor in towards.values())
        size = max(1, min(size, _CPU_VMAP_BYTES // weights))
    return Labeller(
        lambda rows: in_batches(lambda part: in_rows(dots, part, size), rows, problem.tokens),
        rows=4 * size,
    )
