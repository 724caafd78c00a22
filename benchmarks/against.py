"""A filter beside what a user would take instead, on a recipe's own pool and an unseen one.

    python benchmarks/against.py books-smollm2 --corpus DATA --base ./smollm2-135m
    python benchmarks/against.py books-mini --shipped --corpus DATA --seeds 8

Runs (or goes on with) the recipe in runs/RECIPE, or with --shipped judges the learner of that name
that ships, and writes benchmarks/results/against-RECIPE.json: every way to select with its
perplexity for each seed, on both pools.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import RESULTS, table, write_result

from secondary_learners.recipes.gain_learner.comparing import (
    OWN,
    UNSEEN,
    compare_plan,
    selector_rows,
)
from secondary_learners.recipes.gain_learner.data import (
    finetuning_data,
    labelling_data,
    learner_recipe,
    read_splits,
    unseen_pool,
)
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.recipes.run import Run, run_recipe
from secondary_learners.registry.load import load_base, load_learner


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipe", nargs="?", default="books-smollm2")
    parser.add_argument("--corpus", type=Path, help="without it, nothing is measured")
    parser.add_argument("--base", help="in place of the recipe's own")
    parser.add_argument("--shipped", action="store_true", help="judge the learner that ships")
    parser.add_argument("--seeds", type=int, help="in place of the recipe's own")
    parser.add_argument("--run", type=Path, help="folder of the run  [runs/RECIPE]")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the result")
    options = parser.parse_args(arguments)
    if options.corpus is None:
        print("against: skipped, as it needs --corpus DATA")
        return
    recipe = _recipe(options)
    out = options.run or Path("runs") / recipe.name
    figures = _shipped(recipe, options.corpus, out) if options.shipped else _made(recipe, options)
    rows = figures["selectors"]
    shown = [
        (row["pool"], row["arm"], row["perplexity"], row["se"] or 0.0, row["p"]) for row in rows
    ]
    print(table(("pool", "arm", "perplexity", "standard error", "p (filter)"), shown))
    archives = {source.archive for source in (*recipe.sources, *recipe.unseen) if source.archive}
    data = {name: options.corpus / name for name in sorted(archives)}
    write_result(
        options.out / f"against-{recipe.name}.json",
        figures,
        seeds=range(recipe.evaluation.seeds),
        data={name: path for name, path in data.items() if path.is_file()},
    )


def _recipe(options: argparse.Namespace) -> LearnerRecipe:
    recipe = learner_recipe(options.recipe) if options.shipped else find_recipe(options.recipe)
    assert isinstance(recipe, LearnerRecipe)
    if options.base:
        recipe = recipe.changed(base=options.base)
    if options.shipped:  # recipes from before there were such
        unseen = find_recipe("books-smollm2")
        assert isinstance(unseen, LearnerRecipe)
        plan = replace(recipe.evaluation, thresholds=("1",), against=("classifier", "dsir"))
        recipe = replace(recipe, evaluation=plan, unseen=recipe.unseen or unseen.unseen)
    if options.seeds is not None:
        recipe = recipe.changed(seeds=options.seeds)
    return recipe


def _made(recipe: LearnerRecipe, options: argparse.Namespace) -> dict[str, Any]:
    command = f"learners run {recipe.name} --corpus DATA"
    if options.base:
        command += f" --base {options.base}"
    out = options.run or Path("runs") / recipe.name
    made = run_recipe(recipe, Run(out=out, corpus=options.corpus, command=command))
    assert made is not None
    names = ("held_out", "labels", "fine_tuning", "selectors")
    return {name: made.evaluation[name] for name in names}


def _shipped(recipe: LearnerRecipe, corpus: Path, out: Path) -> dict[str, Any]:
    model, tokenizer = load_base(recipe.base)
    splits = read_splits(recipe, corpus)
    data = finetuning_data(recipe, splits, tokenizer)
    unseen = unseen_pool(recipe, splits, tokenizer, corpus)
    assert unseen is not None
    comparisons = compare_plan(
        recipe,
        {OWN: data.stream, UNSEEN: unseen},
        data.test,
        labelling_data(recipe, splits, tokenizer),
        load_learner(recipe.name),
        (model, tokenizer),
        out,
        Run(out=out, corpus=corpus),
    )
    return {"selectors": selector_rows(comparisons)}


if __name__ == "__main__":
    main(sys.argv[1:])
