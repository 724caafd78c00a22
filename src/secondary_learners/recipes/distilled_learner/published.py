"""Labels that others published: an .npz file, its rows divided for reporting and for folds."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from secondary_learners.errors import CorpusError
from secondary_learners.files import sha256_file
from secondary_learners.recipes.distilled_learner.recipe import PublishedLabels
from secondary_learners.text.splitting import deal

__all__ = ["Labelled", "PublishedRows", "fold_rows", "found_file", "read_published_labels"]

_SHARED = 12  # tokens in a row that two contexts share when they belong together


@dataclass(frozen=True, eq=False)
class Labelled:
    """input_ids: int64 [n, length]. gains: float64 [n]. log_perplexity: of each context [n]."""

    input_ids: npt.NDArray[np.int64]
    gains: npt.NDArray[np.float64]
    log_perplexity: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PublishedRows:
    """fitted: to choose and fit by. reported: to report on, and for nothing else."""

    fitted: Labelled
    reported: Labelled
    digest: str


def read_published_labels(plan: PublishedLabels, corpus: Path | None) -> PublishedRows:
    """The labels of `plan` in the corpus folder; raises CorpusError for what is missing in it."""
    path = found_file(plan.file, corpus)
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            ids, gains, perplexity, rows = (
                file[name] for name in ("contexts", "information_gain", "perplexity", "row")
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CorpusError(
            f"{path} does not hold contexts, information_gain, perplexity and row: {error}. "
            "Get the file again from where it came."
        ) from error
    reported = rows < plan.reported
    if ids.ndim != 2 or {len(ids), *reported.shape} != {len(gains), len(perplexity)}:
        raise CorpusError(f"{path}: the arrays have different lengths. Get the file again.")
    if min(reported.sum(), (~reported).sum()) < 2:
        raise CorpusError(
            f"{path}: {int(reported.sum())} of {len(rows)} rows are below {plan.reported}, and "
            "both sides need some. Change `reported` in the recipe."
        )
    if not (np.isfinite(gains).all() and (perplexity > 0).all()):
        raise CorpusError(f"{path} holds labels that are not numbers. Get the file again.")

    def part(chosen: npt.NDArray[np.bool_]) -> Labelled:
        return Labelled(
            ids[chosen].astype(np.int64),
            gains[chosen].astype(np.float64),
            np.log(perplexity[chosen].astype(np.float64)),
        )

    return PublishedRows(part(~reported), part(reported), sha256_file(path))


def found_file(name: str, corpus: Path | None) -> Path:
    """A file of the corpus folder; raises CorpusError, which says what to type."""
    if corpus is None or not (corpus / name).is_file():
        place = "no corpus folder is given" if corpus is None else f"{corpus} has no {name}"
        raise CorpusError(f"{place}, and the recipe needs {name}. Try `--corpus FOLDER`.")
    return corpus / name


def fold_rows(input_ids: npt.NDArray[np.int64], folds: int, *, seed: int) -> npt.NDArray[np.int64]:
    """The fold 0, 1, ... of each context [n]; those that share 12 tokens in a row stay together."""
    count, length = input_ids.shape
    width = min(_SHARED, length)
    runs = np.lib.stride_tricks.sliding_window_view(input_ids, width, axis=1)
    _, place = np.unique(runs.reshape(-1, width), axis=0, return_inverse=True)
    owner = np.arange(count).repeat(length - width + 1)
    order = np.argsort(place.reshape(-1), kind="stable")
    same = np.diff(place.reshape(-1)[order]) == 0
    leader = np.arange(count)

    def first(row: int) -> int:
        while leader[row] != row:
            row = leader[row]
        return row

    for a, b in zip(owner[order[:-1]][same], owner[order[1:]][same], strict=True):
        leader[first(b)] = first(a)
    groups, group = np.unique([first(row) for row in range(count)], return_inverse=True)
    sizes = np.bincount(group, minlength=len(groups))
    return deal(sizes.tolist(), [1 / folds] * folds, seed=seed)[group]
