"""How well learners made on `mini` rank for its later weights and for a deeper sibling.

    learners run benchmarks/mini-deep.toml --corpus DATA --out runs/mini-deep
    python benchmarks/transfer.py --corpus DATA --sibling runs/mini-deep
    python benchmarks/transfer.py --record learners registry

The first makes the sibling, the second measures, the third writes what was measured into the
learners' evaluation.json, cards and registry entries. Scores against fresh labels of contexts that
no learner was fitted on and no model trained on, after so many updates of fine-tuning on the
objective's own text. What has been measured in --out is kept, so that a killed run goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, table, write_result

from secondary_learners.experiments.compare import Settings, finetune
from secondary_learners.experiments.refresh import card_figure, refresh
from secondary_learners.filtering.thresholds import Constant
from secondary_learners.learners.artifact import tokenizer_fingerprint
from secondary_learners.recipes.gain_learner.data import (
    finetuning_data,
    fresh_data,
    learner_recipe,
    read_splits,
)
from secondary_learners.recipes.gain_learner.transfer import TransferRow, record_transfer
from secondary_learners.registry.load import load_base, load_learner, locate

LEARNERS = ("python-docs-mini", "books-mini")
ALL = Constant(-1e6)  # a threshold that takes every candidate


def measure(
    name: str, base: str, updates: Sequence[int], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each number of updates: 0, or one run of that length with its own schedule."""
    learner, recipe = load_learner(name), learner_recipe(name)
    card = card_figure(locate(name, kind="learner").folder)
    model, tokenizer = load_base(base)
    learner.check_tokenizer(tokenizer)
    splits = read_splits(recipe, options.corpus)
    fresh = fresh_data(recipe, splits, tokenizer, options.contexts)
    data = finetuning_data(recipe, splits, tokenizer)
    stream = data.stream.in_domain(recipe.objective_domain)
    plan, rows = recipe.evaluation, []
    for count in updates:
        tuned, perplexity = copy.deepcopy(model), list[float]()
        if count:
            settings = Settings(
                updates=count,
                batch_size=plan.batch_size,
                learning_rate=plan.learning_rate,
                evaluate_every=count,
            )
            run = finetune(tuned, stream, data.test, learner, threshold=ALL, settings=settings)
            perplexity = [run.points[0].perplexity, run.points[-1].perplexity]
        found = refresh(
            learner, tuned, fresh.candidates, fresh.objective, card=card, progress=False
        )
        rows.append(
            {
                "learner": name,
                "base": Path(base).name,
                "updates": count,
                **{k: v for k, v in asdict(found).items() if k != "learner"},
                "objective_perplexity": perplexity,
            }
        )
        print(rows[-1], flush=True)
    return rows


def record(result: Path, learners: Path, registry: Path) -> None:
    """Write the figures of `result` into the folders of the learners that it measured."""
    found = json.loads(result.read_text())
    rows, about = found["rows"], ""
    if sibling := found.get("sibling"):
        size, loss = sibling["parameters"] / 1e6, sibling["held_out_loss"]
        about = f" ({size:.1f}M parameters, held-out loss {loss:.2f})"
    for name in dict.fromkeys(row["learner"] for row in rows):
        own = [
            TransferRow(
                base=row["base"] + about * (row["base"] != "mini"),
                updates=row["updates"],
                spearman=row["spearman"],
                contexts=row["contexts"],
            )
            for row in rows
            if row["learner"] == name
        ]
        record_transfer(learners / name, own, registry=registry)
        print(f"{learners / name}: {len(own)} rows")


def sibling_facts(folder: Path) -> dict[str, Any]:
    """What the sibling is, and whether its tokenizer is that of mini."""
    (mini, own), (deep, other) = load_base("mini"), load_base(folder)
    return {
        "parameters": sum(p.numel() for p in deep.parameters()),
        "parameters_of_mini": sum(p.numel() for p in mini.parameters()),
        "same_tokenizer": tokenizer_fingerprint(own) == tokenizer_fingerprint(other),
        **json.loads((folder / "evaluation.json").read_text()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, help="with books and general text")
    parser.add_argument("--sibling", type=Path, help="folder of the run of mini-deep.toml")
    parser.add_argument("--contexts", type=int, default=600)
    parser.add_argument("--record", type=Path, nargs=2, metavar=("LEARNERS", "REGISTRY"))
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for transfer.json")
    options = parser.parse_args(arguments)
    path = options.out / "transfer.json"
    if options.record:
        record(path, *options.record)
        return
    torch.set_num_threads(1)
    names: Sequence[str] = LEARNERS
    updates: dict[str, Sequence[int]] = {"mini": (0, 60, 300)}
    if options.quick:
        options.contexts, names, updates["mini"] = 40, LEARNERS[:1], (0, 1)
    elif options.corpus is None:
        print("books-mini: skipped, as it needs --corpus DATA")
        names = LEARNERS[:1]
    kept = json.loads(path.read_text()) if path.is_file() else {}
    found: dict[str, Any] = {key: kept[key] for key in ("rows", "sibling") if key in kept}
    found.setdefault("rows", [])
    if options.sibling is not None:
        found["sibling"] = sibling_facts(options.sibling)
        updates[str(options.sibling)] = (0, 60)
    for name in names:
        for base, counts in updates.items():
            done = {
                row["updates"]
                for row in found["rows"]
                if (row["learner"], row["base"]) == (name, Path(base).name)
            }
            missing = [count for count in counts if count not in done]
            if missing:
                found["rows"] += measure(name, base, missing, options)
                write_result(path, {"method": "swapped", **found})
    keys = ("learner", "base", "updates", "spearman", "low", "high", "card", "verdict")
    print(table(keys, [[row[key] for key in keys] for row in found["rows"]]))


if __name__ == "__main__":
    main(sys.argv[1:])
