"""Labels on disk: a folder of Parquet parts that a killed run goes on from.

labels.json says what the labels are (method, optimizer, seeds, fingerprints, rank correlation with
an exact subsample); part-00000.parquet and so on hold `input_ids`, `document`, `domain`, `gain`.
"""

from __future__ import annotations

import json
import time
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

from secondary_learners.errors import LabelStoreError
from secondary_learners.files import atomic_path, write_json
from secondary_learners.gains.contexts import Contexts
from secondary_learners.gains.fingerprints import weights_fingerprint
from secondary_learners.gains.labels import finite, labeller, token_ids
from secondary_learners.gains.objective import evaluation_mode
from secondary_learners.gains.optimizers import FirstStep
from secondary_learners.learners.statistics import spearman

__all__ = ["LabelSettings", "Labels", "label_to_store", "read_labels"]

_PART_ROWS = {"exact": 64, "per-example": 256, "swapped": 1024}


@dataclass(frozen=True)
class LabelSettings:
    """How gains are measured; `exact` is the size of the exact subsample they are checked on."""

    method: str = "swapped"
    optimizer: str = "adamw"
    learning_rate: float = 5e-5
    eps: float = 1e-8
    unit: str = "nats"
    exact: int = 64
    seed: int = 0


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
    }
    _begin(folder, facts)
    device = next(model.parameters()).device
    step = FirstStep(settings.optimizer, settings.learning_rate, settings.eps)
    target = token_ids(objective, device)
    ids = token_ids(contexts, device)

    def measure(method: str, rows: torch.Tensor) -> NDArray[np.float64]:
        if method not in labellers:
            labellers[method] = labeller(model, target, method, step, settings.unit, batch_size)
        with evaluation_mode(model):
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
    gains = _read_parts(folder, facts["count"]).gains
    _finish(folder, facts, gains, lambda rows: measure("exact", ids[rows]), progress=progress)
    return read_labels(folder)


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
    if facts["method"] == "exact":
        correlation: float | None = 1.0
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


def read_labels(folder: Path) -> Labels:
    """Read a finished or unfinished store; raises LabelStoreError when it is none or damaged."""
    facts = _read_facts(folder / "labels.json")
    return _read_parts(folder, facts["count"])


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text())
    except FileNotFoundError:
        raise LabelStoreError(
            f"{path.parent} holds no labels.json. Try `learners gains --out {path.parent}`."
        ) from None
    except ValueError as error:
        raise LabelStoreError(f"{path} is not JSON: {error}. Remove the folder.") from error
    return dict(facts)


def _read_parts(folder: Path, count: int) -> Labels:
    facts = _read_facts(folder / "labels.json")
    parts = sorted(folder.glob("part-*.parquet"))
    try:
        tables = [pyarrow.parquet.read_table(part) for part in parts]
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise LabelStoreError(f"a part of {folder} is damaged: {error}. Remove it.") from error
    if not tables:
        raise LabelStoreError(f"{folder} holds no labels yet. Run the same command again.")
    table = pyarrow.concat_tables(tables)
    ids = np.stack(table["input_ids"].to_numpy()).astype(np.int64)
    contexts = Contexts(
        ids, table["document"].to_numpy(), table["domain"].to_numpy(), tuple(facts["domains"])
    )
    return Labels(contexts, table["gain"].to_numpy(), facts)
