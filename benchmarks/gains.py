"""Cost and agreement of the three ways to measure information gain, against the published loop.

    python benchmarks/gains.py

One thread, CPU time, in interleaved rounds; `mini` and the text built into Python unless --corpus
names the folder of the recipe books-mini. `published` is a plain re-implementation of the published
loop (igf.py of arXiv 2005.00175): for each label a deep copy of the model, torch's AdamW, one
clipped step, and the objective through a DataLoader one context at a time, with the library's
defaults (it records gradients and keeps a cache) and without dropout. `published, no_grad` is the
same with gradients switched off while the objective is evaluated, which the published code omits.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, cpu_seconds, environment, medians, rounds, table, write_result
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from transformers import PreTrainedModel

from secondary_learners.figures import SMALL, new_figure, save_figure, tidy
from secondary_learners.gains.labels import information_gain, labeller
from secondary_learners.gains.methods import METHODS
from secondary_learners.gains.objective import evaluation_mode
from secondary_learners.gains.rows import Rows
from secondary_learners.gains.settings import LabelSettings
from secondary_learners.learners.selectors import SELECTORS
from secondary_learners.learners.statistics import spearman
from secondary_learners.recipes.gain_learner.data import labelling_data, read_splits
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.registry.load import load_base
from secondary_learners.text.sequences import Examples

Gains = NDArray[np.float64]

PUBLISHED = "published"
COLORS = {PUBLISHED: "#555555", "exact": "#0072b2", "per-example": "#009e73", "swapped": "#d55e00"}


@dataclass(frozen=True)
class Plan:
    """How much is measured. counts: contexts labelled by each way in a round."""

    rounds: int
    counts: dict[str, int]
    agreement: int
    published: int
    contexts: dict[str, tuple[int, ...]]
    objectives: tuple[int, ...]
    objective: int


FULL = Plan(
    rounds=5,
    counts={PUBLISHED: 3, "published, no_grad": 2, "exact": 6, "per-example": 64, "swapped": 512},
    agreement=300,
    published=24,
    contexts={
        PUBLISHED: (1, 2, 4),
        "exact": (1, 4, 16),
        "per-example": (32, 128, 512),
        "swapped": (32, 128, 512, 2048),
    },
    objectives=(20, 40, 80, 160, 320),
    objective=160,
)
QUICK = Plan(
    rounds=1,
    counts={PUBLISHED: 1, "published, no_grad": 1, "exact": 1, "per-example": 4, "swapped": 16},
    agreement=6,
    published=2,
    contexts={PUBLISHED: (1, 2), "exact": (1, 2), "per-example": (2, 4), "swapped": (16, 32)},
    objectives=(4, 8),
    objective=8,
)


def published(
    model: PreTrainedModel, objective: Tensor, *, gradients: bool = True
) -> Callable[[Tensor], Gains]:
    """The published loop: contexts [contexts, length] to their perplexity gains, float64."""

    def perplexity(model: Any) -> float:
        total = 0.0
        with nullcontext() if gradients else torch.no_grad():
            for (context,) in DataLoader(TensorDataset(objective), batch_size=1):
                total += model(context, labels=context).loss.sum().item()
        return math.exp(total / len(objective))

    before = perplexity(model)

    def gain(context: Tensor) -> float:
        stepped: Any = copy.deepcopy(model)
        optimizer = torch.optim.AdamW(stepped.parameters(), lr=5e-5, eps=1e-8, weight_decay=0.0)
        optimizer.zero_grad()
        stepped(context[None], labels=context[None]).loss.backward()
        torch.nn.utils.clip_grad_norm_(stepped.parameters(), 3.0)
        optimizer.step()
        return before - perplexity(stepped)

    return lambda contexts: np.array([gain(context) for context in contexts])


def unit_of(method: str) -> str:
    """As published; but swapped labels are falls of the context's own loss, in nats."""
    return "nats" if method == "swapped" else "perplexity"


def labels_by(
    name: str, model: PreTrainedModel, objective: Tensor, precision: str = "float32"
) -> Callable[[Tensor], Gains]:
    """A way to label contexts, its set-up done: the base loss, and ∇L(O) where it needs that."""
    if name not in METHODS:
        return published(model, objective, gradients=name == PUBLISHED)
    settings = LabelSettings(method=name, unit=unit_of(name), precision=precision)
    label = labeller(model, Rows(objective), settings)

    def gains(ids: Tensor) -> Gains:
        with evaluation_mode(model):
            gained: Gains = label.measure(Rows(ids)).double().cpu().numpy()
            return gained

    return gains


def speed(model: PreTrainedModel, ids: Tensor, objective: Tensor, plan: Plan) -> dict[str, Any]:
    """Median CPU milliseconds a label after set-up, each way with fresh contexts every round."""
    taken = 0

    def milliseconds(name: str, label: Callable[[Tensor], Gains]) -> float:
        nonlocal taken
        count = plan.counts[name]
        rows = ids.roll(-taken, 0)[:count]
        taken += count
        return 1000 * cpu_seconds(lambda: label(rows)) / count

    ways = {name: labels_by(name, model, objective) for name in plan.counts}
    for name, label in ways.items():
        milliseconds(name, label)  # warm
    figures = rounds(
        {name: partial(milliseconds, name, label) for name, label in ways.items()}, plan.rounds
    )
    middle = medians(figures)
    return {
        name: {
            "ms_a_label": round(middle[name], 3),
            "speed_up": round(middle[PUBLISHED] / middle[name], 2),
            "rounds_ms": [round(value, 3) for value in figures[name]],
            "labels_a_round": plan.counts[name],
        }
        for name in plan.counts
    }


def agreement(model: PreTrainedModel, ids: Tensor, objective: Tensor, plan: Plan) -> dict[str, Any]:
    """Spearman of the fast methods with exact, and of exact with the published loop."""
    rows = ids[: plan.agreement]
    gains = {
        name: information_gain(model, rows, objective, method=name, unit=unit_of(name))
        for name in METHODS
        if name not in SELECTORS  # which ask no model
    }
    plain = published(model, objective)(rows[: plan.published])
    exact = gains["exact"]
    return {
        "contexts": len(rows),
        "per-example with exact": spearman(gains["per-example"], exact),
        "swapped with exact": spearman(gains["swapped"], exact),
        "published_contexts": len(plain),
        "exact with published": spearman(exact[: len(plain)], plain),
        "largest difference of exact and published": float(
            np.abs(exact[: len(plain)] - plain).max()
        ),
        "sd of exact": float(exact.std()),
        "unit": "perplexity",
    }


def growth(model: PreTrainedModel, ids: Tensor, objective: Tensor, plan: Plan) -> dict[str, Any]:
    """CPU seconds in all, set-up included: against contexts, and against objective contexts."""

    def seconds(name: str, contexts: int, objectives: int) -> float:
        return cpu_seconds(lambda: labels_by(name, model, objective[:objectives])(ids[:contexts]))

    names = list(plan.contexts)
    against_contexts = {
        name: [[count, round(seconds(name, count, plan.objective), 4)] for count in counts]
        for name, counts in plan.contexts.items()
    }
    against_objectives = {
        name: [
            [count, round(seconds(name, plan.counts[name], count) / plan.counts[name], 6)]
            for count in plan.objectives
        ]
        for name in names
    }
    return {
        "seconds_against_contexts": against_contexts,
        "seconds_a_label_against_objective_contexts": against_objectives,
        "labels_a_point": {name: plan.counts[name] for name in names},
    }


def plot(figures: dict[str, Any], objective: int, path: Path) -> None:
    """Both growths, log against log."""
    figure = new_figure(3.6)
    panels = (
        (
            "seconds_against_contexts",
            "contexts labelled",
            "CPU seconds, set-up included",
            f"{objective} objective contexts",
        ),
        (
            "seconds_a_label_against_objective_contexts",
            "objective contexts",
            "CPU seconds a label, set-up shared",
            "Larger objectives",
        ),
    )
    for axes, (key, x_label, y_label, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for name, points in figures[key].items():
            x, y = zip(*points, strict=True)
            axes.loglog(x, y, "o-", color=COLORS[name], markersize=4, linewidth=2, label=name)
        axes.set_xticks(x if len(x) > 4 else (1, 10, 100, 1000), minor=False)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.minorticks_off()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        tidy(axes, title=title)
    lines, names = axes.get_legend_handles_labels()
    figure.legend(lines, names, frameon=False, fontsize=SMALL, loc="outside lower center", ncols=4)
    save_figure(figure, path)


def read_contexts(tokenizer: Any, corpus: Path | None, plan: Plan) -> tuple[Examples, Examples]:
    """Candidates and objective of the recipe for this text, enough for every measurement."""
    recipe = find_recipe("books-mini" if corpus else "python-docs-mini")
    assert isinstance(recipe, LearnerRecipe)
    most = max(plan.agreement, *(max(counts) for counts in plan.contexts.values()))
    labels = replace(recipe.labels, contexts=most, objective_contexts=max(plan.objectives))
    recipe = replace(recipe, labels=labels)
    data = labelling_data(recipe, read_splits(recipe, corpus), tokenizer)
    return data.candidates, data.objective


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, help="folder of the recipe books-mini")
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for gains.json and .png")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL

    torch.set_num_threads(1)
    model, tokenizer = load_base("mini")
    candidates, objective = read_contexts(tokenizer, options.corpus, plan)
    ids = torch.from_numpy(candidates.input_ids)
    target = torch.from_numpy(objective.input_ids)
    target, larger = target[: plan.objective], target

    timed = speed(model, ids, target, plan)
    print(f"{plan.objective} objective contexts x {candidates.length}, {environment()['cpu']}\n")
    print(
        table(
            ("labels", "ms a label", "speed-up"),
            ((name, row["ms_a_label"], row["speed_up"]) for name, row in timed.items()),
        )
    )
    agreed = agreement(model, ids, target, plan)
    print(f"\nSpearman, {agreed['contexts']} contexts ({agreed['published_contexts']} published)")
    print(table(("", "rho"), ((key, agreed[key]) for key in agreed if " with " in key)))
    grown = growth(model, ids, larger, plan)
    write_result(
        options.out / "gains.json",
        {
            "base": "mini",
            "text": "books-mini" if options.corpus else "python-docs-mini",
            "objective_contexts": plan.objective,
            "context_length": candidates.length,
            "candidates_digest": candidates.digest,
            "objective_digest": objective.digest,
            "speed": timed,
            "agreement": agreed,
            "growth": grown,
        },
    )
    plot(grown, plan.objective, options.out / "gains.png")


if __name__ == "__main__":
    main()
