"""The analysis of trials on 2,100 published ones, beside brute force and beside the paper.

    python benchmarks/dodge.py --trials FOLDER/dodge_best_validation_2100.csv

For each task: mean, deviations, expected best of n, diverged trials and the analysis of variance of
the best against the worst seeds. Checked in two ways that share no code with it: the expected best
by enumerating all trials and pairs and by 200,000 random draws for more; and in fractions of whole
numbers; deviations seed by seed with the standard library. The table is the best validation scores
of Dodge et al. 2020 (arXiv 2002.06305) as columns task, init_rank, data_rank, best_val, read off
their figure; --stopping is their three best early-stopping settings for each budget.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import statistics
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, table, write_result

from secondary_learners.experiments.trials.analysis import analyze
from secondary_learners.experiments.trials.analysis_figure import plot_analysis
from secondary_learners.experiments.trials.best import expected_best
from secondary_learners.experiments.trials.stopping import Setting
from secondary_learners.experiments.trials.table import Trial, read_table

NAME = "dodge_best_validation_2100.csv"
HERE = Path(__file__).parents[2] / "shared" / "data" / NAME
BUDGETS = (1, 2, 5, 10, 50, 100)

# The best score of each task in the paper's table 1.
PRINTED_BEST = {"mrpc": 0.914, "rte": 0.773, "cola": 0.676, "sst": 0.951}


def exact_best(scores: Sequence[float], budget: int) -> float:
    """The mean over all choices, from binomials in whole numbers, rounded only at the end."""
    ordered = sorted(map(Fraction, map(str, scores)))
    total = sum(
        value * math.comb(place, budget - 1) for place, value in enumerate(ordered) if value
    )
    return float(total / math.comb(len(ordered), budget))


def drawn_best(scores: Sequence[float], budget: int, draws: int, seed: int) -> tuple[float, float]:
    """Mean and its standard error: every single trial or pair, or else random draws.

    The draws: `budget` different trials each, the first of a random order.
    """
    if budget <= 2:
        best = [max(choice) for choice in itertools.combinations(scores, budget)]
        return statistics.fmean(best), 0.0
    rng, values = np.random.default_rng(seed), np.array(scores)
    found = []
    for _ in range(0, draws, 1000):
        keys = rng.random((min(1000, draws), len(values)), dtype=np.float32)
        places = np.argpartition(keys, budget, axis=1)[:, :budget]
        found.append(values[places].max(axis=1))
    best_of = np.concatenate(found)
    return float(best_of.mean()), float(best_of.std() / math.sqrt(len(best_of)))


def looped_deviations(trials: Sequence[Trial]) -> dict[str, float]:
    """The population's deviations, by the standard library, seed by seed."""
    by_init: dict[int, list[float]] = {}
    by_order: dict[int, list[float]] = {}
    for trial in trials:
        by_init.setdefault(trial.init_seed, []).append(trial.score)
        by_order.setdefault(trial.order_seed, []).append(trial.score)
    return {
        "all": statistics.pstdev(trial.score for trial in trials),
        "init": statistics.fmean(map(statistics.pstdev, by_init.values())),
        "order": statistics.fmean(map(statistics.pstdev, by_order.values())),
    }


def check_stopping(path: Path, scores: dict[str, list[float]]) -> dict[str, Any]:
    """The published settings: is their cost ours, and their best without stopping?

    Without curves the settings themselves cannot be valued again. Theirs are drawn with
    replacement, from runs thinned to 30 evaluations, which lowers the best of the longest (sst).
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cost = 0.0
    off: dict[str, list[float]] = {}
    for row in rows:
        start, finish = int(row["num_started"]), int(row["num_fully_trained"])
        setting = Setting(start, float(row["frac_data"]), finish)
        # Fractions are printed to four digits.
        cost = max(cost, abs(setting.cost - int(row["budget"])) / max(1, start - finish))
        theirs = float(row["performance"]) - float(row["improvement_over_no_stop"])
        ours = expected_best(scores[row["task"]], int(row["budget"]), replacement=True).mean
        off.setdefault(row["task"], []).append(theirs - ours)
    return {
        "rows": len(rows),
        "cost_off_per_stopped_trial": cost,
        "without_stopping_off_mean": {task: statistics.fmean(v) for task, v in off.items()},
        "without_stopping_off_most": {task: max(map(abs, v)) for task, v in off.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=Path, default=HERE, help=f"{NAME}")
    parser.add_argument("--stopping", type=Path, help="dodge_early_stopping_top3.csv beside it")
    parser.add_argument("--draws", type=int, default=200_000)
    parser.add_argument("--quick", action="store_true", help="a smoke run: fewer draws")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for dodge.json and .png")
    options = parser.parse_args(arguments)
    if not options.trials.is_file():
        print(f"{options.trials} is not there: nothing to measure. Name it with --trials.")
        return
    draws = 2_000 if options.quick else options.draws

    trials = read_table(options.trials)
    floors = {"mrpc": 0.75, "rte": 0.53, "cola": 0.0, "sst": 0.51}  # the most frequent label's
    analysis = analyze(trials, floors=floors)
    tasks, rows, off_exact, off_drawn = {}, [], 0.0, 0.0
    for found in analysis.tasks:
        held = trials.of(found.task)
        scores = [trial.score for trial in held]
        best: dict[str, dict[str, float]] = {}
        for budget in BUDGETS:
            ours, exact = expected_best(scores, budget), exact_best(scores, budget)
            drawn, error = drawn_best(scores, budget, draws, seed=budget)
            off_exact = max(off_exact, abs(ours.mean - exact))
            off_drawn = max(off_drawn, abs(ours.mean - drawn))
            best[str(budget)] = {
                "mean": ours.mean,
                "deviation": ours.deviation,
                "exact": exact,
                "drawn": drawn,
                "drawn_error": error,
                "with_replacement": expected_best(scores, budget, replacement=True).mean,
            }
        looped = looped_deviations(held)
        ours_all = (found.spread.deviation, found.spread.within_init, found.spread.within_order)
        for value, name in zip(ours_all, ("all", "init", "order"), strict=True):
            assert value is not None
            off_exact = max(off_exact, abs(value - looped[name]))
        tasks[found.task] = {
            "trials": found.spread.trials,
            "mean": found.spread.mean,
            "deviation": found.spread.deviation,
            "within_init": found.spread.within_init,
            "within_order": found.spread.within_order,
            "diverged": found.diverged,
            "expected_best": best,
            "contrasts": {
                contrast.kind: {
                    "f": contrast.f,
                    "p": contrast.p,
                    "f_all": contrast.f_all,
                    "p_all": contrast.p_all,
                }
                for contrast in found.contrasts
            },
            "best": found.spread.best,
            "printed_best": PRINTED_BEST.get(found.task),
        }
        rows.append(
            [
                found.task,
                *(f"{value:.4f}" for value in (found.spread.mean, *map(_known, ours_all))),
                *(f"{best[str(budget)]['mean']:.4f}" for budget in BUDGETS),
            ]
        )
    print(
        table(
            (
                "task",
                "mean",
                "sd",
                "within init",
                "within order",
                *(f"best of {b}" for b in BUDGETS),
            ),
            rows,
        )
    )
    print(f"furthest from the exact check: {off_exact:.1e}, from {draws} draws: {off_drawn:.1e}")
    figures: dict[str, Any] = {
        "tasks": tasks,
        "draws": draws,
        "off_exact": off_exact,
        "off_drawn": off_drawn,
    }
    stopping = options.stopping or options.trials.with_name("dodge_early_stopping_top3.csv")
    if stopping.is_file():
        scores_of = {task: [t.score for t in trials.of(task)] for task in trials.tasks}
        figures["stopping"] = check_stopping(stopping, scores_of)
        print("published early stopping:", figures["stopping"])
    plot_analysis(trials, analysis, options.out / "dodge.png")
    data = {path.name: path for path in (options.trials, stopping) if path.is_file()}
    # Seeds: of the draws for each budget.
    write_result(options.out / "dodge.json", figures, seeds=BUDGETS, data=data)


def _known(value: float | None) -> float:
    assert value is not None
    return value


if __name__ == "__main__":
    main()
