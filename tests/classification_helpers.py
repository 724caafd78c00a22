"""Small classification tasks and a base model for trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recipes_helpers import OTHER, WANTED


def write_task(folder: Path, train: int = 48, dev: int = 30, *, pairs: bool = False) -> Path:
    """Is the text about the sea? With train.tsv and dev.tsv; a tenth of the labels are wrong."""
    rng = np.random.default_rng(len(folder.name))
    folder.mkdir(parents=True)
    for name, count in (("train", train), ("dev", dev)):
        lines = ["label\ttext_a\ttext_b" if pairs else "label\ttext"]
        for _ in range(count):
            sea = int(rng.integers(2))
            words = rng.choice(WANTED if sea else OTHER, rng.integers(2, 9)).tolist()
            label = sea if rng.random() < 0.9 else 1 - sea
            texts = [" ".join(words), " ".join(words[:2])] if pairs else [" ".join(words)]
            lines.append("\t".join([str(label), *texts]))
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder
