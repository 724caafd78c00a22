"""Deltas against full fine-tuning: what a task costs to store, and what that costs in quality.

    python benchmarks/deltas.py --data DATA

DATA holds sst2/ and cola/ with train.tsv and dev.tsv (classification/ of the project's data). Every
arm trains `mini` on the same examples with the same seeds, one thread. Arms: full fine-tuning; the
critical layers only, by the rule of `critical_layers` on the distances of that seed's full run; and
masks from three initial sparsities over layers chosen by the same rule. What is measured is what
ships: each delta is saved, read back, applied to a new classifier, and must be taken off exactly.
Bytes are those of the whole folder, and the full model's those of its float16 weights as `mini`
ships. Finished runs are kept in --work, and a killed benchmark goes on from them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, table, write_result
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from secondary_learners.content import content
from secondary_learners.deltas.artifact import Origin, make_delta, read_delta, save_delta
from secondary_learners.deltas.distance_figure import plot_distances
from secondary_learners.deltas.distances import (
    Distance,
    critical_layers,
    layer_distances,
)
from secondary_learners.deltas.fingerprints import base_fingerprint
from secondary_learners.deltas.making import fine_tune
from secondary_learners.deltas.masks import merge_masks
from secondary_learners.deltas.settings import Training, Tuning
from secondary_learners.experiments.runs import RunStore
from secondary_learners.figures import new_figure, save_figure, tidy
from secondary_learners.learners.artifact import tokenizer_fingerprint
from secondary_learners.learners.config import Reference
from secondary_learners.registry.load import load_base
from secondary_learners.tasks.classifier import classifier
from secondary_learners.tasks.encoding import Encoded, read_encoded
from secondary_learners.tasks.metrics import metrics_of
from secondary_learners.tasks.training import predict

METRICS = {"sst2": "accuracy", "cola": "mcc"}
SPARSITIES = (0.05, 0.2, 0.5)
COLORS = {"full": "#555555", "critical": "#d55e00", "mask": "#0072b2"}


@dataclass(frozen=True)
class Plan:
    """Encoded a task, seeds, and how each arm trains."""

    examples: int
    seeds: int
    arms: dict[str, Tuning]


def arms(training: Training) -> dict[str, Tuning]:
    full = Tuning(kind="full", sparsity=SPARSITIES[0], training=training)
    masks = {
        f"mask {sparsity:g}": replace(full, kind="mask", share=0.6, sparsity=sparsity)
        for sparsity in SPARSITIES
    }
    return {"full": full, "critical layers": replace(full, kind="layers", share=0.15), **masks}


@dataclass(frozen=True)
class Bench:
    """The base model and where runs are kept."""

    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    store: RunStore

    def run(
        self, task: str, arm: str, seed: int, tuning: Tuning, data: tuple[Encoded, Encoded]
    ) -> dict[str, Any]:
        """One arm with one seed, from the store where it has it."""
        own: dict[str, Any] = {"task": task, "arm": arm, "seed": seed, "tuning": asdict(tuning)}
        own["data"] = [examples.digest for examples in data]
        name = f"{task} {arm} {seed}"
        if kept := self.store.read(name, **own):
            return kept.figures
        layers: tuple[str, ...] = ()
        if tuning.kind != "full":
            full = replace(tuning, kind="full", share=None, sparsity=SPARSITIES[0])
            distances = self.run(task, "full", seed, full, data)["distances"]
            layers = critical_layers([Distance(**d) for d in distances], tuning.share or 0.15)
        figures = own | self.measure(task, tuning, layers, data, seed)
        self.store.write(name, figures, **own)
        return figures

    def measure(
        self,
        task: str,
        tuning: Tuning,
        layers: tuple[str, ...],
        data: tuple[Encoded, Encoded],
        seed: int,
    ) -> dict[str, Any]:
        examples, test = data
        tuned = fine_tune(self.base, examples, tuning, layers=layers, seed=seed)
        trained = predict(tuned.model, test)
        delta = make_delta(
            self.base,
            tuned.model,
            Origin(
                name=f"{task}-{tuning.kind}",
                base_model=("mini", None),
                tokenizer=Reference("mini", None, tokenizer_fingerprint(self.tokenizer)),
            ),
            classes=list(examples.classes),
        )
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "delta"
            digests = save_delta(delta, folder, recipe_toml="", evaluation={}, readme="")
            size = sum(file.stat().st_size for file in folder.iterdir())
            delta = read_delta(folder, digests)
        model = classifier(self.base, len(examples.classes), seed=seed + 1)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        applied = delta.apply(model)
        shown = predict(model, test)
        metrics = metrics_of(shown, test.targets)
        applied.remove()
        after = model.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
        distances = layer_distances(self.base, tuned.model)
        merge_masks(tuned.model)
        return {
            "accuracy": metrics.accuracy,
            "mcc": metrics.mcc,
            "bytes": size,
            "seconds": round(tuned.seconds, 2),
            "sparsity": tuned.sparsity,
            "layers": list(tuned.layers),
            "distances": [asdict(distance) for distance in distances],
            "largest_difference_of_logits": float(np.abs(trained - shown).max()),
        }


def summary(runs: list[dict[str, Any]], full: list[dict[str, Any]], whole: int) -> dict[str, Any]:
    """One arm of one task over its seeds; `difference` is paired with full fine-tuning."""
    metric = METRICS[runs[0]["task"]]
    values = 100 * np.array([run[metric] for run in runs])
    differences = values - 100 * np.array([run[metric] for run in full])

    def spread(numbers: Any) -> float:
        return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0

    size = max(run["bytes"] for run in runs)
    return {
        "task": runs[0]["task"],
        "arm": runs[0]["arm"],
        "metric": metric,
        "mean": float(values.mean()),
        "deviation": spread(values),
        "difference": float(differences.mean()),
        "difference_deviation": spread(differences),
        "bytes": size,
        "full_model_over_bytes": whole / size,
        "seconds": float(np.mean([run["seconds"] for run in runs])),
        "sparsity": float(np.mean([run["sparsity"] for run in runs])),
        "largest_difference_of_logits": max(run["largest_difference_of_logits"] for run in runs),
        "values": values.tolist(),
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Each arm's metric with its deviation and every seed, its bytes below; a panel a task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = new_figure(3.2 * len(tasks))
    panels = figure.subplots(len(tasks), 1, squeeze=False).ravel()
    for axes, task in zip(panels, tasks, strict=True):
        here = [row for row in rows if row["task"] == task]
        full = here[0]["mean"]
        axes.axhspan(full - 1, full + 1, color="#555555", alpha=0.12, lw=0)
        for place, row in enumerate(here):
            color = COLORS[row["arm"].split()[0]]
            axes.plot([place - 0.15] * len(row["values"]), row["values"], ".", color=color)
            axes.errorbar(
                place, row["mean"], yerr=row["deviation"], fmt="o", color=color, capsize=4
            )
        names = [
            f"{row['arm'].replace(' ', chr(10))}\n{row['bytes'] / 1e6:.2f} MB\n"
            f"1/{row['full_model_over_bytes']:.1f}"
            for row in here
        ]
        axes.set_xticks(range(len(here)), names)
        axes.set_ylabel(f"{METRICS[task]} × 100")
        axes.margins(x=0.08)
        seeds = len(here[0]["values"])
        tidy(axes, title=f"{task}, {seeds} seeds (band: full ± 1 point)", grid="y")
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder with sst2/ and cola/")
    parser.add_argument("--tasks", nargs="+", choices=list(METRICS), default=list(METRICS))
    parser.add_argument("--examples", type=int, default=5000, help="to train on, a task")
    parser.add_argument("--epochs", type=float, default=1.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--work", type=Path, default=Path("runs/deltas"), help="finished runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for deltas.json and .png")
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    base, tokenizer = load_base("mini")
    training = Training(epochs=options.epochs, learning_rate=5e-4, score_learning_rate=0.05)
    plan = Plan(options.examples, options.seeds, arms(training))
    if options.quick:
        plan = Plan(64, 1, arms(replace(training, epochs=1.0)))
        options.work = options.out / "work"
    whole = (content("learners") / "mini" / "model.safetensors").stat().st_size
    store = RunStore.begin(options.work, {"base": base_fingerprint(base)})
    bench = Bench(base, tokenizer, store)
    rows, first = [], []
    for task in options.tasks:
        data = read(options.data, task, tokenizer, plan, options.quick)
        full: list[dict[str, Any]] = []
        for arm, tuning in plan.arms.items():
            runs = [bench.run(task, arm, seed, tuning, data) for seed in range(plan.seeds)]
            full = full or runs
            rows.append(summary(runs, full, whole))
            print(rows[-1]["task"], rows[-1]["arm"], f"{rows[-1]['mean']:.1f}", flush=True)
        first.append([Distance(**d) for d in full[0]["distances"]])
    print(
        "\n"
        + table(
            ("task, arm", "metric", "× 100", "sd", "less full", "sd", "bytes", "1/", "seconds"),
            (
                (
                    f"{row['task']} {row['arm']}",
                    row["metric"],
                    f"{row['mean']:.1f}",
                    f"{row['deviation']:.1f}",
                    f"{row['difference']:+.1f}",
                    f"{row['difference_deviation']:.1f}",
                    f"{row['bytes']:,}",
                    f"{row['full_model_over_bytes']:.1f}",
                    f"{row['seconds']:.0f}",
                )
                for row in rows
            ),
        )
    )
    write_result(
        options.out / "deltas.json",
        {
            "base": "mini",
            "full_model_bytes": whole,
            "examples": plan.examples,
            "arms": {arm: asdict(tuning) for arm, tuning in plan.arms.items()},
            "rows": rows,
            "distances": {
                task: [asdict(distance) for distance in distances]
                for task, distances in zip(options.tasks, first, strict=True)
            },
        },
        seeds=range(plan.seeds),
        data={task: options.data / task for task in options.tasks} if options.data else {},
    )
    plot(rows, options.out / "deltas.png")
    plot_distances(first[0], options.out / "deltas_distances.png")


def read(
    data: Path | None,
    task: str,
    tokenizer: PreTrainedTokenizerBase,
    plan: Plan,
    quick: bool,
) -> tuple[Encoded, Encoded]:
    """The examples to train on, the same ones for every arm and seed, and all those to test on."""
    if data is None:
        if not quick:
            raise SystemExit("error: name the folder with sst2/ and cola/: --data DATA")
        words = [tokenizer(f"{word} text", add_special_tokens=False).input_ids for word in "ab"]
        made = Encoded(tuple(map(tuple, words * 40)), (0, 1) * 40, ("0", "1"))
        return made.sample(plan.examples), made
    examples = read_encoded(data / task / "train.tsv", tokenizer)
    test = read_encoded(data / task / "dev.tsv", tokenizer, classes=examples.classes)
    return examples.sample(plan.examples), test


if __name__ == "__main__":
    main()
