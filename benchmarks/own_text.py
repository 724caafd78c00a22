"""CPU time from an objective file and a pool of text to a usable learner.

    python benchmarks/own_text.py

Writes the text built into Python to a temporary folder (the language reference as the objective
file, the other domains of the recipe python-docs-mini as the pool) and runs `learners run
--objective FILE --pool FOLDER` on it in a process of its own, from its start to its end: user and
system time. One thread unless told otherwise, because the threads of OpenMP also take CPU time
while they wait for each other.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import RESULTS, environment, table, write_result

from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.registry.load import load_learner
from secondary_learners.text.corpus import read_documents

LEARNERS = str(Path(sysconfig.get_path("scripts")) / "learners")


def write_text(folder: Path, most: int | None) -> dict[str, int]:
    """objective.txt and pool/*.txt in `folder`, of at most `most` characters a domain."""
    recipe = find_recipe("python-docs-mini")
    assert isinstance(recipe, LearnerRecipe)
    (folder / "pool").mkdir()
    written = {}
    for source in recipe.sources:
        documents = read_documents((source,), None)
        text = "\n\n".join(document.text for document in documents)[:most]
        inside = source.domain == recipe.objective_domain
        path = folder / ("objective.txt" if inside else f"pool/{source.domain}.txt")
        path.write_text(text, encoding="utf-8")
        written[source.domain] = len(text)
    return written


def run(
    folder: Path, out: Path, contexts: int, threads: int, extra: Sequence[str]
) -> dict[str, float]:
    """Seconds of one run, which must end with a learner that loads and scores."""
    command = [LEARNERS, "run", "--objective", str(folder / "objective.txt")]
    command += ["--pool", str(folder / "pool"), "--contexts", str(contexts), "--out", str(out)]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command += ["--device", "cpu", "--quiet", *extra]
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=variables)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begun
    load_learner(out).score([[1, 2, 3]])
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {"cpu": user + system, "user": user, "system": system, "wall": wall}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--contexts", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for own_text.json")
    options = parser.parse_args(arguments)
    contexts = 60 if options.quick else options.contexts
    extra = ["--exact", "4"] if options.quick else []

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        characters = write_text(folder, 200_000 if options.quick else None)
        outs = [folder / f"learner-{n}" for n in range(1 if options.quick else options.rounds)]
        seconds = [run(folder, out, contexts, options.threads, extra) for out in outs]
        evaluation: dict[str, Any] = json.loads((outs[0] / "evaluation.json").read_text())

    middle = {key: round(statistics.median(row[key] for row in seconds), 2) for key in seconds[0]}
    labels = evaluation["labels"]
    print(f"{labels['count']} contexts, {environment()['cpu']}: median of {len(seconds)} runs")
    print(table(("seconds", *middle), [("", *middle.values())]))
    write_result(
        options.out / "own_text.json",
        {
            "seconds": middle,
            "rounds": [{key: round(value, 2) for key, value in row.items()} for row in seconds],
            "threads": options.threads,
            "contexts": labels["count"],
            "objective_contexts": labels["objective_contexts"],
            "exact_labels": labels["exact_count"],
            "spearman_with_exact": labels["spearman_with_exact"],
            "held_out": evaluation["held_out"],
            "characters": characters,
        },
    )


if __name__ == "__main__":
    main()
