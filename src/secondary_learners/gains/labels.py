"""Information gain of contexts by several methods behind one function (Antonello et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secondary_learners.errors import DivergedError, SecondaryLearnersError
from secondary_learners.gains.methods import method_named
from secondary_learners.gains.objective import batch_size_for, evaluation_mode
from secondary_learners.gains.precision import computed_in
from secondary_learners.gains.problem import Labeller, Problem
from secondary_learners.gains.rows import Rows, as_examples, rows_of
from secondary_learners.gains.settings import GainOptions, LabelSettings
from secondary_learners.gains.subsets import trained
from secondary_learners.text.sequences import Examples

__all__ = ["combined", "finite", "information_gain", "labeller"]

_TOGETHER = 4096  # examples padded at once: enough to have some of like length


def information_gain(
    model: nn.Module,
    contexts: Examples | NDArray[np.int64] | Tensor,
    objective: Examples | NDArray[np.int64] | Tensor,
    *,
    against: Examples | Sequence[Examples] = (),
    batch_size: int | None = None,
    **settings: Unpack[GainOptions],
) -> NDArray[np.float64]:
    """How much training on each context helps the objective; positive means that it does.

    For a context X, objective contexts O and θ' = θ after one fresh optimizer step on X, the
    information gain is IG(X) = L(O; θ) − L(O; θ') (Antonello et al., ACL 2021, arXiv 2005.00175).
    Cost a label, in forward passes F of one context, with N objective contexts:

    - "exact", (N + 3) F: the definition.
    - "per-example", about 4 F: lr · ⟨∇L(O), first step on X / lr⟩ with per-example gradients.
    - "swapped", 2 F: the step is taken on O once, and each X asked how far *its own* loss falls.
      That ranks contexts alike, because ⟨∇L(O), ∇L(X)⟩ is symmetric; the figure is nats of the
      context, not of the objective, and on text the two may differ by a factor.

    Swapped labels may look further than one step. With `horizon=K` the model takes K updates on O,
    and the label, L(X; θ₀) − L(X; θ_K), is to first order the one-step gain summed along the way.
    With `against=pool` the label is the contrast L(X; θ'_K) − L(X; θ_K), θ'_K after as many updates
    on the pool: the gain over that of training on a random candidate, without the part that any
    text teaches. See `gains.methods.swapped` for the derivation.

    Args:
        model: any causal language model of transformers, left exactly as it was (weights, mode and
            what requires gradients).
        contexts: what is labeled: `Examples`, whose loss is the mean over the tokens that count, or
            int64 [contexts, length], of which all do.
        objective: likewise, what the model should get better at.
        against: for "swapped" the pool, or several, whose contrasts are averaged: candidates that
            are not labeled here, or a broad reference text. What "classifier" and "dsir" tell the
            objective from.
        batch_size: contexts a forward pass; by default chosen from free memory.
        method: "exact", "per-example", "swapped" (the default); "classifier" or "dsir", selectors
            that ask no model, see `gains.methods.selector`; or another of `gains.methods.METHODS`.
        optimizer: whose steps are taken, "adamw" (the default, without weight decay) or "sgd".
        learning_rate: of the steps, 5e-5 by default.
        eps: of AdamW, 1e-8 by default.
        unit: for "exact" and "per-example", "nats" (the default, of the objective's mean token
            loss) or "perplexity" (of its exponential).
        trainable: the parameters that training moves, by default those that require gradients.
            "all"; "last-layers" or "last-layers:N", the last one or N blocks; a list of names with
            wildcards (["transformer.h.*.mlp.*"]); or "lora", the active adapters of a PEFT model.
            A model without any gets LoRA adapters of rank 8 in every linear layer but the head,
            always the same ones, for as long as this takes (needs the extra `lora`). Fresh adapters
            are B A with B = 0, where the gradient of A is 0: a first step moves B alone. What is
            frozen may be in half precision, what is trained may not.
        seed: of the order in which the updates of a horizon take their contexts, 0 by default.
        precision: of the passes, "float32" (the default), "tf32" or "bfloat16"; weights, steps and
            losses are float32 in any case.
        horizon: updates on the objective, 1 by default: one step along the gradient of all of it.
        repeats: how many seeded orders of a longer horizon's updates to average over, 1 by default.
        update_batch: contexts an update of a longer horizon takes, 16 by default.
        horizon_learning_rate: of a longer horizon's updates, best that of the fine-tuning to come;
            by default `learning_rate`.
        combine: weights of the components "step", "horizon", "contrast", "classifier" and "dsir",
            each standardized over the contexts given: {"step": 1, "contrast": 1}. By default the
            one that `horizon` and `against` ask for, as it is.

    Returns:
        float64 [contexts]: for "exact" and "per-example" in `unit` of the objective, for "swapped"
        in nats of each context's own mean token loss, combined in standard deviations.

    Raises:
        DivergedError: where a loss is not finite.
        UnknownNameError: for an unknown method, optimizer, unit, precision, component or subset.
        SecondaryLearnersError: for parameters that the model does not have, and for settings that
            do not go together.
    """
    chosen = LabelSettings(**settings)
    candidates, target = as_examples(contexts), as_examples(objective)
    pools = (against,) if isinstance(against, Examples) else tuple(against)
    device = next(model.parameters()).device
    with trained(model, chosen.trainable), evaluation_mode(model):
        label = labeller(
            model,
            rows_of(target, device),
            chosen,
            against=[rows_of(pool, device) for pool in pools],
            batch_size=batch_size,
        )
        order = np.argsort(candidates.lengths, kind="stable")
        gains = np.empty((len(candidates), len(label.components) or 1))
        for begin in range(0, len(order), _TOGETHER):
            part = order[begin : begin + _TOGETHER]
            values = label.measure(rows_of(candidates.select(part), device)).double().cpu().numpy()
            gains[part] = finite(values.reshape(len(part), -1), part)
    return combined(gains, chosen.combine)


def labeller(
    model: nn.Module,
    objective: Rows,
    settings: LabelSettings,
    *,
    against: Sequence[Rows] = (),
    batch_size: int | None = None,
) -> Labeller:
    """A method, prepared for this model and objective: its `measure` labels rows of contexts.

    Call it inside `evaluation_mode`, at the weights the model has now, and `measure` too.
    """
    low = {p.dtype for p in model.parameters() if p.requires_grad} - {torch.float32, torch.float64}
    if low:
        raise SecondaryLearnersError(
            f"the model's weights are {low.pop()}, in which a step of {settings.learning_rate:g} "
            "is mostly lost in rounding. Label with `model.float()`."
        )
    size = batch_size or batch_size_for(model, objective.length)
    problem = Problem(model, objective, settings, size * objective.length, tuple(against))
    with evaluation_mode(model), computed_in(model, settings.precision):
        prepared = method_named(settings.method).prepare(problem)

    def measure(rows: Rows) -> Tensor:
        with computed_in(model, settings.precision):
            return prepared.measure(rows)

    if settings.unit == "nats":
        return replace(prepared, measure=measure)
    # exp(L) − exp(L − gain): the same ranking in another unit, so no method needs its own.
    scale = np.exp(problem.loss)
    return replace(prepared, measure=lambda rows: -scale * torch.expm1(-measure(rows).double()))


def finite(gains: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """`gains` [n, components], or DivergedError naming the first context that has none.

    places: which contexts they are [n].
    """
    bad = np.flatnonzero(~np.isfinite(gains).all(axis=1))
    if bad.size:
        raise DivergedError(
            f"{bad.size} of {len(gains)} gains are not finite, the first is {gains[bad[0]].min()} "
            f"for context {places[bad[0]]}. Try a lower learning rate."
        )
    return gains


def combined(components: NDArray[np.float64], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """The labels [n] of components [n, k]: a weighted sum of standardized ones, or the only one."""
    if not weights:
        return components[:, 0]
    spread = components.std(axis=0)
    if not (spread > 0).all():
        name = list(weights)[int(np.argmin(spread))]
        raise SecondaryLearnersError(
            f"the component {name!r} is the same for all {len(components)} contexts, so it cannot "
            "be standardized. Label more contexts, or leave it out."
        )
    standard = (components - components.mean(axis=0)) / spread
    total: NDArray[np.float64] = standard @ np.array(list(weights.values()), np.float64)
    return total
