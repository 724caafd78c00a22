"""Filtered fine-tuning on books among general text: 20 seeds, paired tests, both kinds of learner.

    python benchmarks/books.py --corpus DATA

DATA holds books.tar.xz and general.tar.xz. Runs (or goes on with) the recipe books-mini in
runs/books-mini and keeps every curve in benchmarks/results/books.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common import RESULTS, write_result

from secondary_learners.experiments.summary import plain_words
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.recipes.run import Run, run_recipe


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, help="without it, nothing is measured")
    parser.add_argument("--run", type=Path, default=Path("runs/books-mini"))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for books.json")
    options = parser.parse_args(arguments)
    if options.corpus is None:
        print("books: skipped, as it needs --corpus DATA")
        return
    recipe = find_recipe("books-mini")
    command = f"learners run {recipe.name} --corpus DATA"
    made = run_recipe(recipe, Run(out=options.run, corpus=options.corpus, command=command))
    assert made and made.comparison is not None
    print(made.comparison.table(), "", plain_words(made.comparison), sep="\n")
    write_result(
        options.out / "books.json",
        {
            "held_out": made.evaluation["held_out"],
            "labels": made.evaluation["labels"],
            "comparison": made.comparison.to_dict(),
        },
    )


if __name__ == "__main__":
    main(sys.argv[1:])
