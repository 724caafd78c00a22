"""Draw the pictures of the results again, from the committed result files alone.

python benchmarks/redraw.py                 # all of them, where they are
python benchmarks/redraw.py --out FOLDER    # into another folder
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import demo
import label_speed
import multistage
from common import RESULTS

import deltas
import gains
from secondary_learners.deltas.distance_figure import plot_distances
from secondary_learners.deltas.distances import Distance
from secondary_learners.experiments.compare import Comparison
from secondary_learners.experiments.comparison_figure import plot_comparison
from secondary_learners.experiments.trials.analysis import analyze
from secondary_learners.experiments.trials.analysis_figure import plot_analysis
from secondary_learners.experiments.trials.table import read_table

ROOT = Path(__file__).parents[1]


def books(path: Path) -> None:
    plot_comparison(Comparison.from_dict(result("books")["comparison"]), path)


def trials(path: Path) -> None:
    table = read_table(RESULTS / "trials.csv")
    plot_analysis(table, analyze(table), path)


def distances(path: Path) -> None:
    plot_distances([Distance(**each) for each in result("deltas")["distances"]["sst2"]], path)


def growth(path: Path) -> None:
    figures = result("gains")
    gains.plot(figures["growth"], figures["objective_contexts"], path)


PICTURES: Mapping[str, Callable[[Path], None]] = {
    "learners/books-mini/comparison.png": books,
    "benchmarks/results/deltas.png": lambda path: deltas.plot(result("deltas")["rows"], path),
    "benchmarks/results/deltas_distances.png": distances,
    "benchmarks/results/gains.png": growth,
    "benchmarks/results/label_speed.png": lambda path: label_speed.plot(
        result("label_speed"), path
    ),
    "benchmarks/results/multistage.png": lambda path: multistage.plot(
        result("multistage")["rows"], path
    ),
    "benchmarks/results/trials.png": trials,
    "docs/pictures/demo.svg": lambda path: demo.plot(result("demo"), path),
}


def result(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return values


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the pictures of the results again.")
    parser.add_argument("--out", type=Path, help="a folder, in place of where they are")
    out = parser.parse_args(arguments).out
    for name, draw in PICTURES.items():
        path = out / Path(name).name if out else ROOT / name
        draw(path)
        print(path)


if __name__ == "__main__":
    main()
