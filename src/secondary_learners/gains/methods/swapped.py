"""Train on the objective once, and ask each context how far its own loss falls.

One step (Antonello et al., 2021, the roles exchanged): IG(X) = L(O; θ) − L(O; θ − lr · s(∇L(X))) is
lr · ⟨∇L(O), s(∇L(X))⟩ to first order. The inner product is symmetric but for the optimizer's
scaling s, so L(X; θ) − L(X; θ − lr · s(∇L(O))) ranks contexts alike, and takes two forward passes.

A horizon of K updates θ₀ → θ_K on the objective: L(X; θ₀) − L(X; θ_K) is, to first order, the
one-step gain summed along the way, Σₜ ⟨θₜ − θₜ₊₁, ∇L(X; θₜ)⟩.

A contrast: to choose X is not to train on another candidate, so what counts is its gain over that
of a random one. What any text teaches is learned in the first updates whatever is kept. With θ'_K
after as many updates on the pool, L(X; θ'_K) − L(X; θ_K) is the sum along the way to the objective
less the sum along the way of the pool (relatives: Moore and Lewis, 2010; CoLoR-Filter, arXiv
2406.10670).

What no loss sees may be added: the scores of a selector, see `methods.selector`, which tell the
pool from the objective by their words.

So all labels of losses are falls of the context's own. They rank contexts as the gains of the
objective do; they are not nats of the objective.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError
from secondary_learners.gains.methods.selector import scorer
from secondary_learners.gains.problem import Labeller, Problem, restored
from secondary_learners.gains.rows import Rows
from secondary_learners.gains.settings import LabelSettings
from secondary_learners.gains.training import weights_after
from secondary_learners.gains.trunk import repeated_losses
from secondary_learners.learners.selectors import SELECTORS

__all__ = ["COMPONENTS", "PART", "check", "prepare", "unit"]

PART = 1024
_OF_LOSSES = ("step", "horizon", "contrast")
_AGAINST = ("contrast", *SELECTORS)
COMPONENTS = (*_OF_LOSSES, *SELECTORS)
_LEAST_ROWS = 128  # at once: each time the weights are put in and taken out again


def check(settings: LabelSettings) -> None:
    for name in settings.combine:
        if name not in COMPONENTS:
            raise UnknownNameError("component", name, COMPONENTS, "learners gains --help")
    if settings.repeats > 1 and settings.horizon == 1:
        raise SecondaryLearnersError(
            f"repeats is {settings.repeats}, and a horizon of 1 is always the same step. "
            "Try a horizon of 30."
        )
    if settings.unit != "nats":
        raise SecondaryLearnersError(
            f"swapped labels are not in {settings.unit}: they are falls of the context's own loss, "
            "not of the objective's. Try --unit nats, or --method exact."
        )


def unit(settings: LabelSettings) -> str:
    if settings.combine:
        return "standard deviations of its components, weighted and added"
    return "nats per token of the context"


def prepare(problem: Problem) -> Labeller:
    settings, model = problem.settings, problem.model
    assert problem.loss is not None  # which raises for one that is not finite
    components = tuple(settings.combine) or ("contrast" if problem.against else "horizon",)
    if (needing := [name for name in components if name in _AGAINST]) and not problem.against:
        raise SecondaryLearnersError(
            f"{needing[0]} labels are against a pool, and none was given. Try `against=pool`."
        )
    ways = _ways(problem, components)
    scorers = {name: scorer(problem, name) for name in components if name in SELECTORS}

    def measure(rows: Rows) -> Tensor:
        losses = repeated_losses(model, rows, problem.tokens)
        before = losses() if {"step", "horizon"} & set(components) else None
        with restored(model) as (parameters, _):

            @cache
            def after(way: str) -> Tensor:
                """The rows' losses at the end of a way, averaged over its repeats and pools."""
                sums = torch.zeros(len(rows), dtype=torch.float64, device=rows.ids.device)
                for weights in ways[way]:
                    with torch.no_grad():
                        torch._foreach_copy_(parameters, weights)
                    sums += losses()
                return sums / len(ways[way])

            columns = [
                scorers[name](rows) if name in scorers else _fall(name, before, after)
                for name in components
            ]
        return torch.stack(columns, dim=1) if settings.combine else columns[0]

    batch = max(1, problem.tokens // problem.objective.length)
    return Labeller(measure, batch * -(-_LEAST_ROWS // batch), tuple(settings.combine))


def _fall(component: str, before: Tensor | None, after: Callable[[str], Tensor]) -> Tensor:
    if component == "contrast":
        return after("pool") - after("objective")
    assert before is not None
    return before - after("step" if component == "step" else "objective")


def _ways(problem: Problem, components: tuple[str, ...]) -> dict[str, list[list[Tensor]]]:
    """The weights at the end of each way that the components need, one list a repeat and pool."""
    repeats = range(problem.settings.repeats)
    ways: dict[str, list[list[Tensor]]] = {}
    if "step" in components:
        ways["step"] = [weights_after(problem.one_step(), problem.objective)]
    if {"horizon", "contrast"} & set(components):
        ways["objective"] = [weights_after(problem, problem.objective, one) for one in repeats]
    if "contrast" in components:
        ways["pool"] = [weights_after(problem, p, one) for p in problem.against for one in repeats]
    return ways
