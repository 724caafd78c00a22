"""Multistage filtering against plain training and against random skipping, on three tasks.

    python benchmarks/multistage.py --data classification/

Arms: plain; multistage with naive Bayes; random skipping at that arm's rate; multistage with a
learner, loaded from its folder, as the meta predictor from the first step; random skipping at that
one's rate. The learner is made first, from the losses that a model trained on one part of the
training set (a quarter) has on another (a quarter): its cost is in the results, once a task.

The base model is `mini` with a classification head, trained by transformers' Trainer (plain) and by
FilteredTrainer (the other arms) on one CPU thread. The data folder has `<task>/train.tsv` and
`<task>/dev.tsv` with the columns text and label; GLUE's SST-2 and CoLA, and AG News.
Every run is a file under --runs, so a killed benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import RESULTS, table, write_result

from secondary_learners.experiments.multistage import (
    ARMS,
    HEADER,
    StagedRun,
    StagedSettings,
    cells,
    summary,
)
from secondary_learners.experiments.multistage_runs import Arms, StagedTask, progress_line, run_arms
from secondary_learners.experiments.statistics import permutation_test
from secondary_learners.figures import new_figure, save_figure, tidy
from secondary_learners.files import json_bytes, sha256_bytes, write_json
from secondary_learners.learners.artifact import Learner, save_learner
from secondary_learners.recipes.loss_learner.make import loss_learner, measure_losses
from secondary_learners.recipes.loss_learner.recipe import LossPlan
from secondary_learners.registry.load import load_base, load_learner

LOOKS = {
    "plain": ("#555555", "s"),
    "multistage": ("#0072b2", "o"),
    "random": ("#0072b2", "x"),
    "learner": ("#d55e00", "D"),
    "random-learner": ("#d55e00", "+"),
}
CLASSES = {"sst2": 2, "agnews": 4, "cola": 2}


def make_learner(
    task: StagedTask, settings: StagedSettings, base: tuple[str, Any, Any], folder: Path
) -> Learner:
    """The learner of losses in `folder`, made when it is not there; its facts in made.json."""
    note = folder / "made.json"
    if not note.exists():
        plan = LossPlan()
        losses = measure_losses(task, settings, plan)
        begun = time.process_time()
        name = f"{task.name}-losses"
        learner, fitted = loss_learner(task, losses, plan, name=name, base=base)
        facts = {
            "cpu_seconds": losses.cpu_seconds + time.process_time() - begun,
            "spearman": fitted.held_out_spearman,
        }
        save_learner(
            learner,
            folder / "learner",
            recipe_toml="",
            evaluation=facts,
            readme=f"Losses on {task.name}, for benchmarks/multistage.py.\n",
        )
        write_json(note, facts)
    return load_learner(folder / "learner")


def against_random(done: Sequence[StagedRun]) -> list[dict[str, Any]]:
    """Each filter against skipping blindly at its rate: points of score, and the paired p.

    A pair is a task and a seed, its numbers of epochs averaged: they share their first weights.
    """
    rows = []
    for arm, blind in (("multistage", "random"), ("learner", "random-learner")):
        scores: dict[str, list[float]] = {}
        for name in (arm, blind):
            runs = [run for run in done if run.arm == name]
            pairs = dict.fromkeys((run.task, run.seed) for run in runs)
            scores[name] = [
                statistics.fmean(run.score for run in runs if (run.task, run.seed) == pair)
                for pair in pairs
            ]
        if scores[arm] and len(scores[arm]) == len(scores[blind]):
            points = 100 * (statistics.fmean(scores[arm]) - statistics.fmean(scores[blind]))
            p = permutation_test(scores[arm], scores[blind])
            rows.append({"arm": arm, "points": points, "p": p, "pairs": len(scores[arm])})
    return rows


def _by_task(texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (text.partition("=") for text in texts)]


def _shown(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["arm"], f"{row['points']:+.1f}", f"{row['p']:.3f}", str(row["pairs"])


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Score against the examples trained on, a panel for each task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = new_figure(2.9 * -(-(len(tasks) + 1) // 2))
    panels = figure.subplots(-(-(len(tasks) + 1) // 2), 2, squeeze=False).ravel()
    for axes, task in zip(panels, tasks, strict=False):
        own = [row for row in rows if row["task"] == task]
        for row in own:
            color, marker = LOOKS[row["arm"]]
            axes.errorbar(
                row["trained"],
                100 * row["score"],
                100 * row["deviation"],
                fmt=marker,
                color=color,
                markerfacecolor="white" if row["epochs"] == 1 else color,
                markersize=7,
                capsize=2,
                label=row["arm"] if row["epochs"] == own[0]["epochs"] else None,
            )
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("examples trained on")
        axes.set_ylabel("Matthews × 100" if task == "cola" else "accuracy, %")
        tidy(axes, title=task)
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    panels[len(tasks)].legend(
        *panels[0].get_legend_handles_labels(),
        frameon=False,
        loc="center",
        title="Open: one epoch\nFilled: more, further to the right\nBars: deviation over seeds",
    )
    save_figure(figure, path)


def toy(folder: Path) -> Path:
    """Data of the right form for a smoke run: the first word tells the class."""
    random = np.random.default_rng(0)
    words = ["good", "bad", "large", "small", "red", "blue", "old", "new"]
    for name, classes in CLASSES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for part, count in (("train", 120), ("dev", 16)):
            lines = ["text\tlabel"]
            for _ in range(count):
                row = random.choice(words, 6)
                lines.append(f"{' '.join(row)}\t{words.index(row[0]) % classes}")
            (folder / name / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with <task>/train.tsv and dev.tsv")
    parser.add_argument("--tasks", default="sst2,agnews,cola")
    parser.add_argument("--epochs", default="1,2")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/multistage"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="TASK=N",
        help="other --examples for one task; may be given several times",
    )
    parser.add_argument(
        "--epochs-of",
        action="append",
        default=[],
        metavar="TASK=N,N",
        help="other --epochs for one task; may be given several times",
    )
    parser.add_argument("--quick", action="store_true", help="toy data, for a smoke run")
    for name, default in asdict(StagedSettings()).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=type(default), default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformers.logging.set_verbosity_error()
    settings = StagedSettings(**{name: getattr(given, name) for name in asdict(StagedSettings())})
    limits = {name: int(count) for name, count in _by_task(given.limit)}
    epochs_of = dict(_by_task(given.epochs_of))
    if given.quick:
        given.data, given.runs = toy(given.out / "data"), given.out / "runs"
        given.tasks, given.epochs, given.seeds = "cola", "1", 1
    if given.data is None:
        parser.error("--data is needed: the folder with sst2, agnews and cola")
    if given.arms.split(",")[0] != "plain":
        parser.error("--arms begins with plain, which the others are compared with")
    given.runs.mkdir(parents=True, exist_ok=True)
    base, tokenizer = load_base("mini")
    done: list[StagedRun] = []
    for name in given.tasks.split(","):
        own = replace(settings, examples=limits.get(name, settings.examples))
        task = StagedTask.read(given.data / name, base, tokenizer, own)
        arms = given.arms.split(",")
        learner = None
        if "learner" in arms:
            made = given.runs / f"{name}-learner-{sha256_bytes(json_bytes(asdict(own)))[:8]}"
            learner = make_learner(task, own, ("mini", base, tokenizer), made)
        for epochs in map(int, epochs_of.get(name, given.epochs).split(",")):
            plan = Arms(epochs, range(given.seeds), own, learner, arms)
            for run in run_arms(task, plan, given.runs):
                print(progress_line(run), flush=True)
                done.append(run)
    rows, differences = summary(done), against_random(done)
    print(table(HEADER, map(cells, rows)))
    print(table(("", "points over random skipping", "p", "pairs"), map(_shown, differences)))
    learners = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(given.runs.glob("*/made.json"))
    }
    figures = {
        "learners": learners,
        "settings": asdict(settings),
        "limits": limits,
        "rows": rows,
        "against_random": differences,
        "runs": [asdict(run) for run in done],
    }
    data = {name: given.data / name for name in given.tasks.split(",")}
    write_result(given.out / "multistage.json", figures, seeds=range(given.seeds), data=data)
    plot(rows, given.out / "multistage.png")


if __name__ == "__main__":
    main()
