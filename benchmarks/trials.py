"""How much is luck, for a small model? A sweep over two seeds, with and without a filter.

    python benchmarks/trials.py --data FOLDER/classification

`mini` on CoLA and RTE, 5 initialization seeds × 5 order seeds, standard and filtered by
`books-mini` with a threshold. A killed sweep goes on with the same command. Then the analysis of
benchmarks/dodge.py on it; the paper's early stopping against none at equal cost, by drawing sweeps
from the trials, beside the exact expectation; and whether the filter changes mean or spread. The
trials take two epochs of all of CoLA, below which `mini` only ever answers its most frequent label,
and of 500 of RTE's 2,490 examples, cut at 64 tokens: about an hour of one quiet core, to the same
figures with --processes 2. --train-examples cola=1000 makes it short. The data are GLUE's, as cola/
and rte/ with train.tsv and dev.tsv.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, table, write_result
from dodge import drawn_best, exact_best, looped_deviations

from secondary_learners import load_base, load_learner
from secondary_learners.experiments.trials.analysis import TaskAnalysis, analyze
from secondary_learners.experiments.trials.analysis_figure import plot_analysis
from secondary_learners.experiments.trials.best import expected_best
from secondary_learners.experiments.trials.stopping import (
    Curves,
    Setting,
    paper_setting,
    value_setting,
)
from secondary_learners.experiments.trials.sweep import (
    Filter,
    Running,
    Sweep,
    SweepPlan,
    run_trials,
)
from secondary_learners.experiments.trials.table import Floats, Trial, write_table
from secondary_learners.experiments.trials.training import TrialSettings
from secondary_learners.filtering.thresholds import parse_threshold
from secondary_learners.tasks.reading import read_task

HERE = Path(__file__).parents[2] / "shared" / "data" / "classification"
BUDGETS = (1, 2, 5, 10)
EXAMPLES = {"rte": 500}


def resampled(
    trials: Curves, setting: Setting, budget: int, draws: int, seed: int
) -> tuple[float, float]:
    """The best score of a drawn sweep under `setting`: mean over the draws, and its error.

    Each sweep starts different trials, from as many copies of the table as `value_setting` takes;
    equal scores at the look are told apart by a coin.
    """
    drawn_from = trials.repeated(budget)
    full = drawn_from.full
    partial = drawn_from.at(setting.fraction) if setting.stops else full
    rng = np.random.default_rng(seed)
    best = []
    for _ in range(draws):
        places = rng.permutation(len(full))[: setting.start]
        looked = places[np.argsort(-partial[places], kind="stable")]
        reached: Floats = np.concatenate(
            [full[looked[: setting.finish]], partial[looked[setting.finish :]]]
        )
        best.append(float(reached.max()))
    return statistics.fmean(best), statistics.stdev(best) / len(best) ** 0.5


def early_stopping(trials: Sequence[Trial], draws: int) -> list[dict[str, Any]]:
    """For each budget of full runs: the paper's advice, and all run to the end."""
    known = Curves.of(trials)
    rows = []
    for budget in range(1, max(2, len(trials) // 2 + 1)):
        setting = paper_setting(known.fractions, budget)
        found = value_setting(known, setting, budget)
        drawn, error = resampled(known, setting, budget, draws, seed=budget)
        plain, plain_error = resampled(known, Setting(budget, 1.0, budget), budget, draws, budget)
        rows.append(
            {
                "budget": budget,
                "setting": {**asdict(setting), "cost": setting.cost},
                "drawn": drawn,
                "drawn_error": error,
                "exact": found.mean,
                "plain_drawn": plain,
                "plain_drawn_error": plain_error,
                "plain_exact": found.plain.mean,
                "gain": found.gain,
            }
        )
    return rows


def task_figures(
    found: TaskAnalysis, plain: dict[str, Any], trials: Sequence[Trial], draws: int
) -> dict[str, Any]:
    scores = [trial.score for trial in trials]
    best = {}
    for budget in BUDGETS:
        if budget < len(scores):
            ours = expected_best(scores, budget)
            drawn, error = drawn_best(scores, budget, draws, seed=budget)
            best[str(budget)] = {
                "mean": ours.mean,
                "deviation": ours.deviation,
                "exact": exact_best(scores, budget),
                "drawn": drawn,
                "drawn_error": error,
            }
    return {
        "task": found.task,
        "arm": found.arm,
        **asdict(found.spread),
        "looped": looped_deviations(trials),
        "diverged": found.diverged,
        "expected_best": best,
        "contrasts": plain["contrasts"],
        "early_stopping": early_stopping(trials, draws),
    }


def run(options: argparse.Namespace) -> Sweep:
    examples = {**EXAMPLES, **dict(_pair(text) for text in options.train_examples)}
    if options.quick:
        examples = dict.fromkeys(options.tasks, 48)
    model, tokenizer = load_base(options.base)
    name, _, threshold = options.filter.rpartition("=")
    return run_trials(
        [
            read_task(
                options.data / task,
                train_examples=examples.get(task),
                dev_examples=40 if options.quick else None,
            )
            for task in options.tasks
        ],
        model,
        tokenizer,
        init_seeds=range(2 if options.quick else options.seeds),
        order_seeds=range(2 if options.quick else options.seeds),
        plan=SweepPlan(
            filters=(None, Filter(name, load_learner(name), parse_threshold(threshold))),
            settings=TrialSettings(
                epochs=options.epochs,
                learning_rate=options.learning_rate,
                evaluations=4,
                max_length=32 if options.quick else options.max_length,
                precision=options.precision,
            ),
        ),
        running=Running(processes=options.processes, progress=sys.stderr.isatty()),
        folder=options.folder,
    )


def _pair(text: str) -> tuple[str, int]:
    task, _, count = text.partition("=")
    return task, int(count)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=HERE, help="folder with cola/ and rte/")
    parser.add_argument("--tasks", nargs="+", default=["cola", "rte"])
    parser.add_argument("--base", default="mini")
    parser.add_argument("--filter", default="books-mini=quantile:0.5")
    parser.add_argument("--seeds", type=int, default=5, help="of each kind")
    parser.add_argument("--train-examples", nargs="*", default=[], metavar="TASK=N", help="rte=500")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/trials"), help="of the sweep")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 2 × 2 seeds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="trials.json, .csv and .png")
    options = parser.parse_args(arguments)
    if not all((options.data / task).is_dir() for task in options.tasks):
        print(f"{options.data} has no {' or '.join(options.tasks)}. Name it with --data.")
        return
    draws = 500 if options.quick else options.draws
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("secondary_learners").setLevel(logging.INFO)

    sweep = run(options)
    analysis = analyze(sweep.table)
    in_json = analysis.to_dict()
    figures = [
        task_figures(found, plain, sweep.table.of(found.task, found.arm), draws)
        for found, plain in zip(analysis.tasks, in_json["tasks"], strict=True)
    ]
    head = ("task, arm", "mean", "sd", "within init", "within order", "diverged")
    rows = [
        [
            f"{row['task']}, {row['arm']}",
            *(f"{row[key]:.4f}" for key in ("mean", "deviation", "within_init", "within_order")),
            row["diverged"],
            *(f"{row['expected_best'][str(n)]['mean']:.4f}" for n in (1, 2, 5, 10) if n <= 4),
        ]
        for row in figures
    ]
    print(table((*head, "best of 1", "best of 2"), rows))
    for row in figures:
        print(f"\n{row['task']}, {row['arm']}: the paper's early stopping against none")
        print(
            table(
                ("budget", "started", "look", "finished", "stopping", "none", "gain"),
                [
                    [
                        stop["budget"],
                        stop["setting"]["start"],
                        stop["setting"]["fraction"],
                        stop["setting"]["finish"],
                        f"{stop['drawn']:.4f} ± {stop['drawn_error']:.4f}",
                        f"{stop['plain_drawn']:.4f} ± {stop['plain_drawn_error']:.4f}",
                        f"{stop['gain']:+.4f}",
                    ]
                    for stop in row["early_stopping"]
                ],
            )
        )
    print()
    for test in analysis.arms:
        print(
            f"{test.task}: {test.second} - {test.first}: mean {test.difference:+.4f} "
            f"(p = {test.p:.3g}); sd {test.deviations[0]:.4f} and {test.deviations[1]:.4f} "
            f"(p = {test.p_spread:.3g}); {test.pairs} pairs of seeds"
        )
    seconds = [max(p["seconds"] for p in curve["curve"].values()) for curve in sweep.curves]
    kept = [
        point["kept"] / point["seen"]
        for curve in sweep.curves
        if curve["arm"] != "standard"
        for point in [max(curve["curve"].values(), key=lambda p: p["seen"])]
    ]
    plot_analysis(sweep.table, analysis, options.out / "trials.png")
    write_table(sweep.table, options.out / "trials.csv")
    write_result(
        options.out / "trials.json",
        {
            "settings": asdict(sweep.settings),
            "tasks": figures,
            "floors": dict(sweep.table.floors),
            "arms": in_json["arms"],
            "initializations": in_json["initializations"],
            "kept": statistics.fmean(kept),
            "training_seconds": sum(seconds),
            "draws": draws,
        },
        seeds=range(2 if options.quick else options.seeds),
        data={task: options.data / task for task in options.tasks},
    )


if __name__ == "__main__":
    main()
