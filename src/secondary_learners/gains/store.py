"""Labels on disk: a folder of Parquet parts that a killed run goes on from.

labels.json says what the labels are (method, optimizer, seeds, fingerprints, rank correlation with
an exact subsample); part-00000.parquet and so on hold `input_ids`, `document`, `domain`, `gain`,
and for examples `loss_mask`, of the length of each row's `input_ids`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from secondary_learners.errors import LabelStoreError, UnknownNameError
from secondary_learners.files import atomic_path, write_json
from secondary_learners.gains.fingerprints import weights_fingerprint
from secondary_learners.gains.labels import METHODS, finite, labeller, token_ids
from secondary_learners.gains.objective import evaluation_mode
from secondary_learners.gains.optimizers import OPTIMIZERS, FirstStep
from secondary_learners.gains.precision import check_precision
from secondary_learners.gains.processes import ALONE, Team
from secondary_learners.gains.subsets import Trainable, check_trainable, trained
from secondary_learners.learners.statistics import spearman
from secondary_learners.text.contexts import Contexts
from secondary_learners.text.examples import Examples, with_mask

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
    precision: str = "float32"

    def __post_init__(self) -> None:
        for what, value, known in (
            ("method", self.method, METHODS),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("unit", self.unit, ("nats", "perplexity")),
        ):
            if value not in known:
                raise UnknownNameError(what, value, known, "learners gains --help")
        check_trainable(self.trainable)
        check_precision(self.precision, self.method)


@dataclass(frozen=True, eq=False)
class Labels:
    """Contexts with their gains [contexts] and the facts of labels.json."""

    contexts: Contexts | Examples
    gains: NDArray[np.float64]
    facts: dict[str, Any]


def label_to_store(
    model: nn.Module,
    contexts: Contexts | Examples,
    objective: Contexts | Examples,
    folder: Path,
    settings: LabelSettings,
    *,
    batch_size: int | None = None,
    progress: bool = True,
    team: Team = ALONE,
) -> Labels:
    """Label `contexts` into `folder`, going on from the parts that are already there.

    team: the processes that share the work, each of which calls this with the same arguments (the
    model on its own device). The labels are those of one process.

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
    if isinstance(contexts, Examples):
        facts["examples"] = _describe(contexts)
    size = _PART_ROWS[settings.method]
    parts = [np.arange(len(contexts))[n : n + size] for n in range(0, len(contexts), size)]
    if team.first:
        _begin(folder, facts)
    found = [number for number in range(len(parts)) if not _part(folder, number).exists()]
    missing = team.gather(found)[0]  # one list for all: who sees it later may see new parts
    if not team.first:
        _compare(folder, facts)

    device = next(model.parameters()).device
    step = FirstStep(settings.optimizer, settings.learning_rate, settings.eps)
    target = token_ids(objective, device)
    if isinstance(contexts, Examples):
        target = with_mask(target)

    def measure(method: str, precision: str, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        ids = token_ids(contexts.select(chosen), device)
        with trained(model, settings.trainable), evaluation_mode(model):
            if (method, precision) not in labellers:
                labellers[method, precision] = labeller(
                    model, target, method, step, settings.unit, batch_size, precision
                )
            return finite(labellers[method, precision](ids).double().cpu().numpy())

    labellers: dict[tuple[str, str], Any] = {}
    done = len(contexts) - sum(len(parts[number]) for number in missing)
    bar = tqdm(total=len(contexts), initial=done, desc="labels", disable=not progress)
    with bar:
        for number in team.share(missing):
            gains = measure(settings.method, settings.precision, parts[number])
            _write_part(_part(folder, number), contexts.select(parts[number]), gains)
            bar.update(len(gains) * team.count)  # the others are about as far
    # When all have answered all parts are there. The first one's answer is taken, as it is also the
    # one that changes it.
    checked = team.gather("spearman_with_exact" in _read_facts(folder / "labels.json"))[0]
    gains = read_labels(folder).gains
    if len(gains) != len(contexts):  # parts of another size, by another version of this package
        raise LabelStoreError(
            f"{folder} holds {len(gains)} labels, and should hold {len(contexts)}. "
            "Remove it and run the same command again."
        )
    if not checked:
        exact = partial(measure, "exact", "float32")
        agreement = _agreement(settings, gains, exact, team, progress=progress)
        if team.first:
            write_json(folder / "labels.json", {**facts, **agreement})
        team.gather(None)
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


def _describe(examples: Examples) -> dict[str, Any]:
    lengths = np.sort(examples.lengths)
    return {
        "loss": "completion",
        "shortest": int(lengths[0]),
        "median": int(lengths[len(lengths) // 2]),
        "longest": int(lengths[-1]),
        "tokens": int(lengths.sum()),
        "completion_tokens": int(examples.loss_mask.sum()),
    }


def _begin(folder: Path, facts: dict[str, Any]) -> None:
    path = folder / "labels.json"
    if path.exists():
        _compare(folder, facts)
    else:
        write_json(path, facts)


def _compare(folder: Path, facts: dict[str, Any]) -> None:
    found = _read_facts(folder / "labels.json")
    for name, value in facts.items():
        if found.get(name) != value:
            raise LabelStoreError(
                f"{folder} holds labels with {name} {found.get(name)!r}, and this run has "
                f"{value!r}. Try another --out, or remove the folder."
            )


def _agreement(
    settings: LabelSettings,
    gains: NDArray[np.float64],
    exact: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    team: Team,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Rank correlation of the labels with exact ones in float32, on a seeded subsample."""
    count = min(settings.exact, len(gains))
    if (settings.method, settings.precision) == ("exact", "float32"):
        return {"spearman_with_exact": None, "exact_count": 0}  # nothing to compare them with
    if count < 2:
        return {"spearman_with_exact": None, "exact_count": count}
    chosen = np.sort(np.random.default_rng(settings.seed).permutation(len(gains))[:count])
    parts = list(enumerate(np.array_split(chosen, max(1, count // 4))))
    bar = tqdm(team.share(parts), desc=f"{count} exact labels", disable=not progress)
    found: dict[int, NDArray[np.float64]] = {}
    for theirs in team.gather({number: exact(part) for number, part in bar}):
        found |= theirs
    expected = np.concatenate([found[number] for number, _ in parts])
    return {"spearman_with_exact": spearman(gains[chosen], expected), "exact_count": count}


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def _write_part(path: Path, contexts: Contexts | Examples, gains: NDArray[np.float64]) -> None:
    columns = {"document": contexts.document, "domain": contexts.domain, "gain": gains}
    if isinstance(contexts, Examples):
        ends = pyarrow.array(np.cumsum([0, *contexts.lengths]).astype(np.int32))
        arrays = {"input_ids": contexts.input_ids.astype(np.int32), "loss_mask": contexts.loss_mask}
        lists = {
            name: pyarrow.ListArray.from_arrays(ends, pyarrow.array(values))
            for name, values in arrays.items()
        }
    else:
        rows = list(contexts.input_ids.astype(np.int32))
        lists = {"input_ids": pyarrow.array(rows, pyarrow.list_(pyarrow.int32()))}
    table = pyarrow.table({**lists, **columns})
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
    return {"precision": "float32", **facts}  # before there was a choice, it was that


def read_labels(folder: Path) -> Labels:
    """Read a finished or unfinished store; raises LabelStoreError when it is none or damaged."""
    facts = _read_facts(folder / "labels.json")
    tables = [_read_part(path) for path in sorted(folder.glob("part-*.parquet"))]
    if not tables:
        raise LabelStoreError(f"{folder} holds no labels yet. Run the same command again.")
    table = pyarrow.concat_tables(tables)
    origin = table["document"].to_numpy(), table["domain"].to_numpy(), tuple(facts["domains"])
    contexts: Contexts | Examples
    if "loss_mask" in table.column_names:
        ids = table["input_ids"].to_numpy()
        contexts = Examples(
            np.concatenate(ids).astype(np.int64),
            np.concatenate(table["loss_mask"].to_numpy()).astype(np.bool_),
            np.array([len(row) for row in ids], np.int64),
            *origin,
        )
    else:
        contexts = Contexts(np.stack(table["input_ids"].to_numpy()).astype(np.int64), *origin)
    return Labels(contexts, table["gain"].to_numpy(), facts)


def _read_part(path: Path) -> pyarrow.Table:
    try:
        return pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise LabelStoreError(
            f"{path} is damaged: {error}. Remove it and run the same command again."
        ) from error
