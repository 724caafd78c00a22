"""How alike a rebuilt artifact is to the published one: bytes, figures, scores, circumstances.

Rounding differs between processors and versions of torch, and training carries it on, so equal
bytes come only from equal circumstances. Elsewhere a rebuild has to reach the published
figures within the limits below: wider than what rounding does, narrower than what another recipe
or other text does. Measured with python-docs-mini, the limits in brackets:

                               correlation of scores, below 1 [0.01]   Spearman, held out [0.02]
two threads instead of one                                    0.0000                      0.0000
a tenth of the documents left out                             0.0032                      0.016
half of the documents left out                                0.0238                      0.006
another seed, linear                                          0.0000                      0.025
another seed, convolutional                                   0.0431                      0.023
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from secondary_learners.artifacts.checks import read_json
from secondary_learners.files import sha256_file
from secondary_learners.learners.artifact import read_learner
from secondary_learners.learners.statistics import spearman

__all__ = [
    "DECISIVE",
    "Circumstance",
    "Figure",
    "FileBytes",
    "Limit",
    "Verdict",
    "compare_circumstances",
    "compare_figures",
    "compare_files",
    "compare_learners",
    "compare_logits",
    "compare_scores",
    "number",
    "verdict",
]


class Verdict(StrEnum):
    """IDENTICAL: the same bytes in every file of `DECISIVE`. WITHIN: every figure within limits."""

    IDENTICAL = "identical"
    WITHIN = "within tolerance"
    DIFFERENT = "different"


@dataclass(frozen=True)
class Limit:
    """The most a figure may differ: in itself, or (`relative`) as a share of the published one."""

    most: float
    relative: bool = False

    def __str__(self) -> str:
        return f"{self.most:.0%}" if self.relative else f"{self.most:g}"


# Of the files that make an artifact act as it does; the others also hold times and machine names.
DECISIVE = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")

HELD_OUT_SPEARMAN = Limit(0.02)
HELD_OUT_R2 = Limit(0.04)
LABEL_AGREEMENT = Limit(0.02)  # Spearman of the labels with the exact subsample
LABEL_MOMENTS = Limit(0.03, relative=True)  # mean and sd of the labels, in published sds
PERPLEXITY = Limit(0.02, relative=True)  # of each arm at the end of fine-tuning
TASK_SCORE = Limit(0.03)  # accuracy or Matthews' correlation of each arm
LOSS = Limit(0.01, relative=True)  # of a base model, on held-out text
ACCURACY = Limit(0.03)  # of a delta, and of full fine-tuning
MATTHEWS = Limit(0.06)
SPARSITY = Limit(0.005)
_LOGITS = {"correlation of logits": Limit(0.05), "share of the same answers": Limit(0.05)}
SCORES = Limit(0.01)  # what the correlation of both learners' scores may lack of 1


@dataclass(frozen=True)
class FileBytes:
    """sha256 of one file in both folders; None where it is missing."""

    name: str
    published: str | None
    rebuilt: str | None

    @property
    def same(self) -> bool:
        return self.published == self.rebuilt

    @property
    def decisive(self) -> bool:
        return self.name in DECISIVE


@dataclass(frozen=True)
class Figure:
    """One figure in both evaluations; None where it is missing."""

    name: str
    published: float | None
    rebuilt: float | None
    limit: Limit
    scale: float | None = None  # of a relative limit, where it is not the published figure

    @property
    def difference(self) -> float:
        """In the terms of the limit; infinite where one of the two is missing."""
        if self.published is None or self.rebuilt is None:
            return math.inf
        apart = abs(self.rebuilt - self.published)
        if apart == 0 or not self.limit.relative:
            return apart
        scale = abs(self.published if self.scale is None else self.scale)
        return apart / scale if scale else math.inf

    @property
    def within(self) -> bool:
        return self.difference <= self.limit.most


@dataclass(frozen=True)
class Circumstance:
    """Something that both were made with or from, where the two are not the same."""

    name: str
    published: str
    rebuilt: str


def compare_files(published: Path, rebuilt: Path) -> list[FileBytes]:
    """Every file of either folder, without hidden ones and folders."""
    folders = (published, rebuilt)
    names = {p.name for folder in folders for p in folder.glob("[!.]*") if p.is_file()}
    digests = [
        {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}
        for folder in folders
    ]
    return [FileBytes(name, digests[0].get(name), digests[1].get(name)) for name in sorted(names)]


def compare_figures(published: Path, rebuilt: Path) -> list[Figure]:
    """The figures of either folder's evaluation.json (and of config.json, for labels)."""
    (ours, theirs), scale = _both(_figures, published, rebuilt), _label_sd(published)
    return [
        Figure(
            name,
            ours.get(name, (None, limit))[0],
            theirs.get(name, (None, limit))[0],
            limit,
            scale if limit is LABEL_MOMENTS else None,
        )
        for name, (_, limit) in (theirs | ours).items()
    ]


def compare_scores(
    published: npt.NDArray[np.floating], rebuilt: npt.NDArray[np.floating]
) -> list[Figure]:
    """Linear and rank correlation of both learners' scores [n] for the same unseen contexts."""
    correlations = {
        "correlation of scores": float(np.corrcoef(published, rebuilt)[0, 1]),
        "rank correlation of scores": spearman(published, rebuilt),
    }
    return [Figure(name, 1.0, value, SCORES) for name, value in correlations.items()]


def compare_learners(
    published: Path, rebuilt: Path, input_ids: Any, attention_mask: Any
) -> list[Figure]:
    """The scores of the learners in two folders for contexts [n, length] that neither saw."""
    parts = [torch.from_numpy(array).split(512) for array in (input_ids, attention_mask)]
    scores = [
        torch.cat([learner.score(ids, mask) for ids, mask in zip(*parts, strict=True)]).numpy()
        for learner in map(read_learner, (published, rebuilt))
    ]
    return compare_scores(*scores)


def compare_logits(
    published: npt.NDArray[np.floating], rebuilt: npt.NDArray[np.floating]
) -> list[Figure]:
    """Of both deltas' logits [examples, labels]: how they correlate, and how often they agree.

    What moves all logits of an example alike says nothing, and is taken off. Deltas that do not
    have the same labels have no figures in common: then both are missing.
    """
    if published.shape != rebuilt.shape:
        return [Figure(name, 1.0, None, limit) for name, limit in _LOGITS.items()]
    centered = [logits - logits.mean(axis=1, keepdims=True) for logits in (published, rebuilt)]
    values = (
        float(np.corrcoef(*(logits.ravel() for logits in centered))[0, 1]),
        float(np.mean(published.argmax(axis=1) == rebuilt.argmax(axis=1))),
    )
    return [
        Figure(name, 1.0, value, limit)
        for (name, limit), value in zip(_LOGITS.items(), values, strict=True)
    ]


def compare_circumstances(published: Path, rebuilt: Path) -> list[Circumstance]:
    """What explains a difference: text, base model, versions, device; only where they differ."""
    ours, theirs = _both(_circumstances, published, rebuilt)
    return [
        Circumstance(name, ours.get(name, "unknown"), theirs.get(name, "unknown"))
        for name in ours | theirs
        if ours.get(name) != theirs.get(name)
    ]


def verdict(files: list[FileBytes], figures: list[Figure]) -> Verdict:
    """Figures outweigh bytes: the same weights with other perplexities are not reproduced."""
    if not all(figure.within for figure in figures):
        return Verdict.DIFFERENT
    decisive = [file for file in files if file.decisive]
    if decisive and all(file.same for file in decisive):
        return Verdict.IDENTICAL
    return Verdict.WITHIN if figures else Verdict.DIFFERENT


def number(value: object) -> float:
    """A figure of a JSON file; nan for what is none, such as a number beyond all reason."""
    good = isinstance(value, int | float) and abs(value) < 1e300
    return float(value) if good else math.nan  # type: ignore[arg-type]


def _both(read: Any, published: Path, rebuilt: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return dict(read(published)), dict(read(rebuilt))


def _figures(folder: Path) -> Iterator[tuple[str, tuple[float, Limit]]]:
    evaluation, config = (read_json(folder / f"{name}.json") for name in ("evaluation", "config"))
    listed: list[tuple[str, object, Limit]] = [
        ("held-out loss", evaluation.get("held_out_loss"), LOSS),
        ("unigram entropy", evaluation.get("unigram_entropy"), LOSS),
    ]
    for architecture, figures in _table(evaluation, "held_out").items():
        place = f"{architecture}, held out"
        listed.append((f"Spearman ({place})", _get(figures, "spearman"), HELD_OUT_SPEARMAN))
        listed.append((f"R2 ({place})", _get(figures, "r2"), HELD_OUT_R2))
    labels = _table(evaluation, "labels")
    listed += [
        ("Spearman (labels, exact labels)", labels.get("spearman_with_exact"), LABEL_AGREEMENT),
        ("mean of the labels", _table(config, "score").get("mean"), LABEL_MOMENTS),
        ("sd of the labels", _table(config, "score").get("sd"), LABEL_MOMENTS),
    ]
    comparison = _table(evaluation, "fine_tuning")
    listed.append(("perplexity before fine-tuning", comparison.get("before"), PERPLEXITY))
    rows = comparison.get("rows")
    for row in rows if isinstance(rows, list) else []:
        listed.append((f"perplexity ({_get(row, 'arm')})", _get(row, "perplexity"), PERPLEXITY))
        listed.append((f"score ({_get(row, 'arm')})", _get(row, "score"), TASK_SCORE))
    for how, key in (("", "metrics"), (", full fine-tuning", "full_fine_tuning")):
        metrics = _table(evaluation, key)
        listed.append((f"accuracy{how}", metrics.get("accuracy"), ACCURACY))
        listed.append((f"Matthews correlation{how}", metrics.get("mcc"), MATTHEWS))
    listed.append(("share of zeros in the masked layers", evaluation.get("sparsity"), SPARSITY))
    for name, value, limit in listed:
        if not math.isnan(number(value)):
            yield name, (number(value), limit)


def _circumstances(folder: Path) -> Iterator[tuple[str, str]]:
    evaluation, config = (read_json(folder / f"{name}.json") for name in ("evaluation", "config"))
    known: list[tuple[str, object]] = [
        ("contexts (corpus digest)", _table(config, "corpus").get("digest")),
        ("objective (corpus digest)", _table(config, "objective").get("digest")),
        ("tokens in the corpus", evaluation.get("tokens_in_corpus")),
        ("weights of the base model", _table(config, "labels").get("model_fingerprint")),
        ("tokenizer", _table(config, "tokenizer").get("fingerprint")),
        ("architecture", config.get("architecture")),
        ("device", evaluation.get("device")),
        ("torch", evaluation.get("torch")),
        ("training examples (digest)", _table(config, "task").get("train")),
        ("test examples (digest)", _table(config, "task").get("test")),
        ("weights of the base model", _table(config, "base_model").get("fingerprint")),
        *_table(config, "versions").items(),
    ]
    yield from ((name, str(value)) for name, value in known if value is not None)


def _label_sd(folder: Path) -> float | None:
    sd = number(_table(read_json(folder / "config.json"), "score").get("sd"))
    return None if math.isnan(sd) else sd


def _table(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = value.get(name)
    return table if isinstance(table, dict) else {}


def _get(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None
