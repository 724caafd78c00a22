"""A small base model in a folder and a task for it, for the tests of deltas above the engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recipes_helpers import OTHER, WANTED
from tiny_models import write_base


@dataclass(frozen=True)
class Task:
    """Files; the label says whether the text is about ships."""

    base: Path
    train: Path
    test: Path


def write_task(folder: Path) -> Task:
    base = folder / "base"
    base.mkdir()
    write_base(base)
    paths = []
    for name, count in (("train", 60), ("test", 20)):
        lines = ["label\ttext"]
        for number in range(count):
            words, label = ((WANTED, "ship"), (OTHER, "tax"))[number % 2]
            chosen = [words[(number * step) % len(words)] for step in (1, 2, 3)]
            lines.append(f"{label}\t{' '.join(chosen)}")
        paths.append(folder / f"{name}.tsv")
        paths[-1].write_text("\n".join(lines) + "\n")
    return Task(base, *paths)
