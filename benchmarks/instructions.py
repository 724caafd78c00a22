"""Filtered supervised fine-tuning on real prompts with completions, against plain and random.

    python benchmarks/instructions.py --data DATA

The objective: the next step of a cooking recipe, from its ingredients and the steps before. The
pool: 30 % of such steps, the rest in equal parts the second sentence of a pair (MRPC, those that
are paraphrases), what follows from a text (RTE, the entailed), the topic of a news item (AG News)
and the sentiment of a sentence (SST-2). DATA holds other/recipes/*.txt and
classification/{mrpc,rte,agnews,sst2}/train.tsv; `mini` was pretrained on none of them.

A recipe's documents have the headings `## Ingredients` and `## Directions` (or Instructions) and
numbered steps: 348 of 350 parse. Steps under 20 characters are left out. Every step of a recipe
is an example, and all of them go to the same split.

`learners run --instructions` labels, fits and packages in a process of its own. Then `mini` is
fine-tuned by FilteredTrainer with the learner, with random skipping at the learner's own rate, and
without a filter: the same number of updates of as many kept examples, the same constant learning
rate, the same order of candidates for each seed; measured by the mean loss of unseen completions.
With --methods, instead, the two fast methods are compared with exact labels of the same examples,
and each with the number of tokens in the completion.
Without --data, or with --quick, made-up rows are used: figures mean nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, table, write_result
from transformers import DataCollatorForSeq2Seq, TrainerCallback, TrainingArguments

from secondary_learners.engines.scoring import score_examples
from secondary_learners.experiments.statistics import mean, permutation_test, standard_error
from secondary_learners.filtering.decisions import BatchFilter, LearnerFilter, RandomFilter
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.objective import losses_of
from secondary_learners.gains.rows import rows_of
from secondary_learners.gains.store import read_labels
from secondary_learners.learners.fitting import fit
from secondary_learners.learners.statistics import spearman
from secondary_learners.recipes.gain_learner.data import (
    finetuning_data,
    labelling_data,
    read_splits,
)
from secondary_learners.recipes.gain_learner.recipe import (
    EvaluationPlan,
    InstructionPlan,
    LabelPlan,
    LearnerRecipe,
    own_recipe,
)
from secondary_learners.registry.load import load_base, load_learner
from secondary_learners.text.sequences import Examples
from secondary_learners.trainers.trainer import FilteredTrainer

LEARNERS = str(Path(sysconfig.get_path("scripts")) / "learners")
Row = dict[str, Any]
LONGEST = 96  # tokens of an example


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    seeds: int
    updates: int
    batch_size: int
    learning_rate: float
    threshold: str
    labels: int
    objective: int
    exact: int
    test: int
    a_task: int


FULL = Plan(5, 30, 8, 2e-4, "0.5", 1000, 60, 60, 120, 900)
QUICK = Plan(2, 2, 2, 2e-4, "0", 60, 4, 4, 8, 60)


def steps(text: str, name: str) -> Iterator[Row]:
    """The next step of a recipe, again and again."""
    found = re.search(
        r"## Ingredients\s*(.*?)\n## (?:Directions|Instructions)\s*(.*?)(?:\n## |\Z)", text, re.S
    )
    if not found:
        return
    listed = ", ".join(re.findall(r"^\s*[-*]\s+(.+?)\s*$", found[1], flags=re.M))
    every = [" ".join(step.split()) for step in re.split(r"^\s*\d+\.\s+", found[2], flags=re.M)]
    before = ""
    for step in every:
        if len(step) >= 20:
            prompt = f"Ingredients: {listed}. Steps so far:{before or ' none.'} Next step:"
            yield {"prompt": prompt, "completion": f" {step}", "group": name}
        if step:
            before += f" {step}"


def pairs(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


def tasks(data: Path) -> dict[str, list[Row]]:
    """The rows of each task; the first is the objective."""
    recipes = [
        text
        for path in sorted((data / "other" / "recipes").glob("*.txt"))
        for text in path.read_text(encoding="utf-8").split("<|doc|>")
    ]
    kinds = {
        "paraphrase": ("mrpc", "text_a", "In other words:", "text_b", "1"),
        "entailment": ("rte", "text_a", "It follows that:", "text_b", "entailment"),
        "topic": ("agnews", "text", "The topic is:", "label", None),
        "sentiment": ("sst2", "text", "The sentiment is:", "label", None),
    }
    spelled = {"0": "negative", "1": "positive"}
    found = {"steps": [row for n, text in enumerate(recipes) for row in steps(text, str(n))]}
    for task, (folder, asked, words, answer, wanted) in kinds.items():
        found[task] = [
            {
                "prompt": f"{row[asked]} {words}",
                "completion": f" {spelled.get(row[answer], row[answer])}",
            }
            for row in pairs(data / "classification" / folder / "train.tsv")
            if wanted is None or row["label"] == wanted
        ]
    return found


def made_up(count: int) -> dict[str, list[Row]]:
    """Rows of no meaning, for smoke runs."""
    random = np.random.default_rng(0)
    words = {
        "steps": ["boil", "stir", "salt", "oven", "butter", "pan"],
        "other": ["tax", "form", "page", "rule"],
    }
    return {
        task: [
            {
                "prompt": f"{n} " + " ".join(random.choice(own, random.integers(3, 12))),
                "completion": " " + " ".join(random.choice(own, random.integers(1, 6))),
            }
            for n in range(4 * count)
        ]
        for task, own in words.items()
    }


def write_rows(rows: dict[str, list[Row]], folder: Path, most: int) -> dict[str, int]:
    """objective.jsonl and pool/*.jsonl; of each task of the pool a random `most`."""
    (folder / "pool").mkdir()
    random = np.random.default_rng(0)
    written = {}
    for number, (task, every) in enumerate(rows.items()):
        chosen = every if number == 0 else [every[n] for n in random.permutation(len(every))[:most]]
        path = folder / (
            "pool/" * (number > 0) + (f"{task}.jsonl" if number else "objective.jsonl")
        )
        path.write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf-8")
        written[task] = len(chosen)
    return written


class Stop(TrainerCallback):
    """Ends a run after so many updates."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self.trainer: FilteredTrainer | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        assert self.trainer is not None
        if self.trainer.savings.updates >= self.updates:
            control.should_training_stop = True


def tune(stream: Examples, test: Examples, chosen: BatchFilter, seed: int, plan: Plan) -> Row:
    """One run: the loss of the unseen completions, and what was drawn."""
    model, tokenizer = load_base("mini")
    stop = Stop(plan.updates)
    with tempfile.TemporaryDirectory() as folder:
        trainer = FilteredTrainer(
            model,
            TrainingArguments(
                folder,
                per_device_train_batch_size=plan.batch_size,
                num_train_epochs=1,
                learning_rate=plan.learning_rate,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                seed=seed,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=stream.rows(),
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            processing_class=tokenizer,
            filter=chosen,
            callbacks=[stop],
        )
        stop.trainer = trainer
        trainer.train()
    savings = trainer.savings
    if savings.updates != plan.updates:
        raise SystemExit(f"the stream is too short: {savings.updates} of {plan.updates} updates.")
    model.eval()
    return {
        "seed": seed,
        "loss": float(losses_of(model, rows_of(test), 2048).mean()),
        "seen": savings.seen,
        "trained": savings.trained,
        "updates": savings.updates,
    }


def agreement(labels: Path, contexts: Examples, objective: Examples, exact: int) -> Row:
    """Rank correlation of the labels with exact ones, also within the two domains."""
    stored = read_labels(labels)
    model, _ = load_base("mini")
    chosen = np.random.default_rng(1).permutation(len(contexts))[:exact]
    true = information_gain(model, contexts.select(chosen), objective, method="exact")
    found = stored.gains[chosen]
    return {"labels": len(chosen), **by_domain(true, found, contexts.select(chosen))}


def by_domain(true: Any, found: Any, examples: Examples) -> Row:
    """Spearman over all, and over those of each domain."""
    parts = {"all": np.ones(len(examples), np.bool_)}
    parts |= {name: examples.domain == n for n, name in enumerate(examples.domains)}
    return {
        name: round(spearman(true[part], found[part]), 4) if part.sum() > 2 else None
        for name, part in parts.items()
    }


def methods(folder: Path, plan: Plan) -> Row:
    """Rank correlations of each method's labels with exact ones and with completion lengths."""
    recipe = recipe_of(folder, plan)
    model, tokenizer = load_base("mini")
    data = labelling_data(recipe, read_splits(recipe, None), tokenizer)
    chosen = np.random.default_rng(1).permutation(len(data.candidates))[: plan.exact]
    examples = data.candidates.select(chosen)
    tokens = np.add.reduceat(
        examples.loss_mask.astype(np.float64), np.cumsum(examples.lengths) - examples.lengths
    )
    gains = {
        method: information_gain(model, examples, data.objective, method=method)
        for method in ("swapped", "per-example", "exact")
    }
    return {
        "examples": len(examples),
        "objective": len(data.objective),
        "with_exact": {
            name: by_domain(gains["exact"], found, examples) for name, found in gains.items()
        },
        "with_completion_tokens": {
            name: round(spearman(tokens, found), 4) for name, found in gains.items()
        },
    }


def recipe_of(folder: Path, plan: Plan) -> LearnerRecipe:
    """What `learners run` makes of the same options."""
    return replace(
        own_recipe("own", folder / "objective.jsonl", folder / "pool", InstructionPlan()),
        context_length=LONGEST,
        labels=LabelPlan(contexts=plan.labels, objective_contexts=plan.objective),
        evaluation=EvaluationPlan(seeds=0, test_contexts=plan.test),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder with other/ and classification/")
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--methods", action="store_true", help="compare methods of labelling")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    options = parser.parse_args(arguments)
    quick = options.quick or options.data is None
    if quick and options.out == RESULTS:
        parser.error("a smoke run needs --out FOLDER; a whole one --data DATA.")
    plan = QUICK if quick else FULL
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = made_up(plan.a_task) if quick else tasks(options.data)
        written = write_rows(rows, folder, plan.a_task)
        result = methods(folder, plan) if options.methods else measure(folder, plan)
    children = os.times()
    seconds = time.process_time() - begun + children.children_user + children.children_system
    write_result(
        options.out / ("instruction_methods.json" if options.methods else "instructions.json"),
        {"plan": asdict(plan), "rows": written, "cpu_seconds": round(seconds, 1), **result},
    )


def measure(folder: Path, plan: Plan) -> Row:
    objective, pool, out = folder / "objective.jsonl", folder / "pool", folder / "learner"
    sizes = {
        "contexts": plan.labels,
        "objective-contexts": plan.objective,
        "exact": 0,  # more of them are measured below
        "context-length": LONGEST,
    }
    command = [LEARNERS, "run", "--instructions", "--objective", objective, "--pool", pool]
    command += [word for option, value in sizes.items() for word in (f"--{option}", value)]
    command += [
        "--method",
        "swapped",
        "--device",
        "cpu",
        "--license",
        "other",
        "--out",
        out,
        "--quiet",
    ]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    recipe = recipe_of(folder, plan)
    _, tokenizer = load_base("mini")
    splits = read_splits(recipe, None)
    text, data = (
        labelling_data(recipe, splits, tokenizer),
        finetuning_data(recipe, splits, tokenizer),
    )
    learner = load_learner(out)
    evaluation = json.loads((out / "evaluation.json").read_text())

    # What ships is linear; the convolutional one is fitted on the same labels for comparison.
    stored = read_labels(out / "work" / "labels")
    ids, mask = stored.contexts.input_ids, stored.contexts.attention_mask
    held_out = {}
    for kind in ("linear", "conv"):
        fitted = fit(
            kind,
            ids,
            stored.gains,
            stored.contexts.document,
            stored.contexts.domain,
            vocabulary=len(tokenizer),
            attention_mask=mask,
        )
        part = fitted.held_out
        held_out[kind] = {
            "examples": len(part),
            "r2": round(fitted.held_out_r2, 4),
            **by_domain(stored.gains[part], fitted.predictions, stored.contexts.select(part)),
        }
    exact = agreement(out / "work" / "labels", stored.contexts, text.objective, plan.exact)

    scores = score_examples(learner, data.stream)
    model, _ = load_base("mini")
    model.eval()
    before = float(losses_of(model, rows_of(data.test), 2048).mean())
    runs: dict[str, list[Row]] = {"plain": [], "filtered": [], "random": []}
    for seed in range(plan.seeds):
        judged = LearnerFilter(learner, plan.threshold)
        filtered = tune(data.stream, data.test, judged, seed, plan)
        rate = filtered["trained"] / filtered["seen"]
        runs["filtered"].append(filtered)
        runs["random"].append(
            tune(data.stream, data.test, RandomFilter(rate, seed=seed), seed, plan)
        )
        runs["plain"].append(tune(data.stream, data.test, RandomFilter(1.0), seed, plan))
    losses = {name: [run["loss"] for run in found] for name, found in runs.items()}
    arms = {
        name: {
            "loss": round(mean(values), 4),
            "error": round(standard_error(values) or 0.0, 4),
            "drawn_for_each_trained": round(
                mean([run["seen"] / run["trained"] for run in runs[name]]), 2
            ),
            "p_plain": None if name == "plain" else permutation_test(values, losses["plain"]),
            "p_random": permutation_test(values, losses["random"]) if name == "filtered" else None,
        }
        for name, values in losses.items()
    }
    kept = scores >= float(plan.threshold)
    print(f"loss of unseen completions, {before:.4f} before; {plan.seeds} seeds")
    print(
        table(("arm", "loss", "±", "drawn"), [(n, *list(a.values())[:3]) for n, a in arms.items()])
    )
    return {
        "before": round(before, 4),
        "arms": arms,
        "runs": runs,
        "held_out_spearman": held_out,
        "lengths": evaluation["lengths"],
        "examples": evaluation["labels"]["examples"],
        "swapped_with_exact": exact,
        "share_of_steps": {
            "stream": round(float((data.stream.domain == 0).mean()), 3),
            "kept": round(float((data.stream.domain[kept] == 0).mean()), 3) if kept.any() else None,
        },
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
