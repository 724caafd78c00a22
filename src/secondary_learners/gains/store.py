"""Labels on disk: a folder of Parquet parts that a killed run goes on from.

labels.json says what the labels are (method, optimizer, seeds, fingerprints, rank correlation with
an exact subsample); part-00000.parquet and so on hold `input_ids`, `document`, `domain`, `gain`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from secondary_learners.errors import LabelStoreError, UnknownNameError
from secondary_learners.files import atomic_path, write_json
from secondary_learners.gains.contexts import Contexts
from secondary_learners.gains.fingerprints import weights_fingerprint
from secondary_learners.gains.labels import METHODS, finite, labeller, token_ids
from secondary_learners.gains.objective import evaluation_mode
from secondary_learners.gains.optimizers import OPTIMIZERS, FirstStep
from secondary_learners.gains.subsets import Trainable, check_trainable, trained
from secondary_learners.learners.statistics import spearman

__all__ = ["LabelSettings", "Labels", "label_to_store", "read_labels"]

_PART_ROWS = {"exact": 64, "per-example": 256, "swapped": 1024}


@dataclass(frozen=True)
class LabelSettings:
    """How gains are measured; `exact` is the size of the exact subsample they are checked on.

    trainable: the parameters that the step moves, see `information_gain`; the exact ones' too.
    Raises UnknownNameError for a method that does not exist, before a folder is begun with it.
    """

    method: str = "swapped"
    optimizer: str = "adamw"
    learning_rate: float = 5e-5
    eps: float = 1e-8
    unit: str = "nats"
    trainable: Trainable = None
    exact: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for what, value, known in (
            ("method", self.method, METHODS),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("unit", self.unit, ("nats", "perplexity")),
        ):
            if value not in known:
                raise UnknownNameError(what, value, known, "learners gains --help")
        check_trainable(self.trainable)


@dataclass(frozen=True, eq=False)
class Labels:
    """Contexts with their gains [contexts] and the facts of labels.json."""

    contexts: Contexts
    gains: NDArray[np.float64]
    facts: dict[str, Any]


def label_to_store(
    model: nn.Module,
    contexts: Contexts,
    objective: Contexts,
    folder: Path,
    settings: LabelSettings,
    *,
    batch_size: int | None = None,
    progress: bool = True,
) -> Labels:
    """Label `contexts` into `folder`, going on from the parts that are already there.

    Raises LabelStoreError when the folder was begun with other contexts, objective, weights or
    settings, and DivergedError when a gain is not finite.
    """
    facts = {
        **asdict(settings),
        "contexts": contexts.digest,
        "count": len(contexts),
        "domains": list(contexts.domains),
        "objective": objective.digest,
        "objective_contexts": len(objective),
        "model_fingerprint": weights_fingerprint(model),
        **_subset_facts(model, settings.trainable),
    }
    _begin(folder, facts)
    device = next(model.parameters()).device
    step = FirstStep(settings.optimizer, settings.learning_rate, settings.eps)
    target = token_ids(objective, device)
    ids = token_ids(contexts, device)

    def measure(method: str, rows: torch.Tensor) -> NDArray[np.float64]:
        with trained(model, settings.trainable), evaluation_mode(model):
            if method not in labellers:
                labellers[method] = labeller(model, target, method, step, settings.unit, batch_size)
            return finite(labellers[method](rows).double().cpu().numpy())

    labellers: dict[str, Any] = {}
    size = _PART_ROWS[settings.method]
    with tqdm(total=len(contexts), desc="labels", disable=not progress) as bar:
        for begin in range(0, len(contexts), size):
            part = folder / f"part-{begin // size:05d}.parquet"
            rows = slice(begin, begin + size)
            if not part.exists():
                gains = measure(settings.method, ids[rows])
                _write_part(part, contexts.select(np.arange(len(contexts))[rows]), gains)
            bar.update(len(ids[rows]))
    gains = read_labels(folder).gains
    if len(gains) != len(contexts):  # parts of another size, by another version of this package
        raise LabelStoreError(
            f"{folder} holds {len(gains)} labels, and should hold {len(contexts)}. "
            "Remove it and run the same command again."
        )
    _finish(folder, facts, gains, lambda rows: measure("exact", ids[rows]), progress=progress)
    return read_labels(folder)


def _subset_facts(model: nn.Module, trainable: Trainable) -> dict[str, Any]:
    """What labels.json says of a subset, as JSON gives it back.

    Raises what `trained` raises, so that no folder is begun with a subset that is not there.
    """
    with trained(model, trainable):
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if trainable is None:
        return {}
    named = trainable if isinstance(trainable, str) else list(trainable)
    return {"trainable": named, "trainable_parameters": count}


def _begin(folder: Path, facts: dict[str, Any]) -> None:
    path = folder / "labels.json"
    if not path.exists():
        write_json(path, facts)
        return
    found = _read_facts(path)
    for name, value in facts.items():
        if found.get(name) != value:
            raise LabelStoreError(
                f"{folder} holds labels with {name} {found.get(name)!r}, and this run has "
                f"{value!r}. Try another --out, or remove the folder."
            )


def _finish(
    folder: Path,
    facts: dict[str, Any],
    gains: NDArray[np.float64],
    exact: Any,
    *,
    progress: bool,
) -> None:
    """Check the labels against exact ones on a seeded subsample, once."""
    if "spearman_with_exact" in _read_facts(folder / "labels.json"):
        return
    count = min(facts["exact"], len(gains))
    chosen = np.sort(np.random.default_rng(facts["seed"]).permutation(len(gains))[:count])
    correlation: float | None
    if facts["method"] == "exact":
        correlation, count = None, 0  # there is nothing to compare them with
    elif count < 2:
        correlation = None
    else:
        parts = np.array_split(chosen, max(1, count // 4))
        bar = tqdm(parts, desc=f"{count} exact labels", disable=not progress)
        correlation = spearman(gains[chosen], np.concatenate([exact(part) for part in bar]))
    write_json(
        folder / "labels.json",
        {**facts, "spearman_with_exact": correlation, "exact_count": count},
    )


def _write_part(path: Path, contexts: Contexts, gains: NDArray[np.float64]) -> None:
    ids = pyarrow.array(list(contexts.input_ids.astype(np.int32)), pyarrow.list_(pyarrow.int32()))
    table = pyarrow.table(
        {
            "input_ids": ids,
            "document": contexts.document,
            "domain": contexts.domain,
            "gain": gains,
        }
    )
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text())
    except FileNotFoundError:
        raise LabelStoreError(
            f"{path.parent} holds no labels.json. Try `learners gains RECIPE --out {path.parent}`."
        ) from None
    except ValueError as error:
        raise LabelStoreError(f"{path} is not JSON: {error}. Remove the folder.") from error
    if not isinstance(facts, dict) or "domains" not in facts:
        raise LabelStoreError(f"{path} does not describe labels. Try another folder.")
    return facts


def read_labels(folder: Path) -> Labels:
    """Read a finished or unfinished store; raises LabelStoreError when it is none or damaged."""
    facts = _read_facts(folder / "labels.json")
    tables = [_read_part(path) for path in sorted(folder.glob("part-*.parquet"))]
    if not tables:
        raise LabelStoreError(f"{folder} holds no labels yet. Run the same command again.")
    table = pyarrow.concat_tables(tables)
    ids = np.stack(table["input_ids"].to_numpy()).astype(np.int64)
    contexts = Contexts(
        ids, table["document"].to_numpy(), table["domain"].to_numpy(), tuple(facts["domains"])
    )
    return Labels(contexts, table["gain"].to_numpy(), facts)


def _read_part(path: Path) -> pyarrow.Table:
    try:
        return pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise LabelStoreError(
            f"{path} is damaged: {error}. Remove it and run the same command again."
        ) from error
