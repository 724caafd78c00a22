"""Labels on disk: a folder of Parquet parts that a killed run goes on from.

labels.json says what the labels are (method, optimizer, seeds, fingerprints, rank correlation with
an exact subsample); part-00000.parquet and so on hold `input_ids`, `document`, `domain`, `gain`,
and for examples `loss_mask`, of the length of each row's `input_ids`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from secondary_learners.errors import LabelStoreError
from secondary_learners.files import atomic_path, write_json
from secondary_learners.gains.fingerprints import weights_fingerprint
from secondary_learners.gains.labels import combined, finite, labeller
from secondary_learners.gains.methods import method_named
from secondary_learners.gains.objective import evaluation_mode
from secondary_learners.gains.problem import Labeller
from secondary_learners.gains.processes import ALONE, Team
from secondary_learners.gains.rows import rows_of
from secondary_learners.gains.settings import LabelSettings
from secondary_learners.gains.subsets import Trainable, trained
from secondary_learners.learners.statistics import spearman
from secondary_learners.text.sequences import Examples

__all__ = ["LabelSettings", "Labels", "label_to_store", "read_labels"]

_SECONDS = 10.0  # between savings of what is measured of a part


@dataclass(frozen=True, eq=False)
class Labels:
    """Contexts with their gains [contexts] and the facts of labels.json."""

    contexts: Examples
    gains: NDArray[np.float64]
    facts: dict[str, Any]


def label_to_store(
    model: nn.Module,
    contexts: Examples,
    objective: Examples,
    folder: Path,
    settings: LabelSettings,
    *,
    against: Sequence[Examples] = (),
    batch_size: int | None = None,
    progress: bool = True,
    team: Team = ALONE,
) -> Labels:
    """Label `contexts` into `folder`, going on from what is already there.

    A part is a file of many labels; what is measured of it is saved every ten seconds, so that a
    killed run loses no more. team: the processes that share the work, each of which calls this with
    the same arguments (the model on its own device). The labels are those of one process.

    Raises LabelStoreError when the folder was begun with other contexts, objective, weights or
    settings, and DivergedError when a gain is not finite.
    """
    facts = {
        **settings.facts(),
        "contexts": contexts.digest,
        "count": len(contexts),
        "domains": list(contexts.domains),
        "objective": objective.digest,
        "objective_contexts": len(objective),
        "model_fingerprint": weights_fingerprint(model),
        **({"against": [pool.digest for pool in against]} if against else {}),
        **_subset_facts(model, settings.trainable),
    }
    if not contexts.whole:
        facts["examples"] = _describe(contexts)
    size = method_named(settings.method).PART
    parts = [np.arange(len(contexts))[n : n + size] for n in range(0, len(contexts), size)]
    if team.first:
        _begin(folder, facts)
    own = [number for number in range(len(parts)) if not _part(folder, number).exists()]
    missing = team.gather(own)[0]  # one list for all: who sees it later may see new parts
    if not team.first:
        _compare(folder, facts)
    measuring = _Measuring(model, contexts, objective, tuple(against), batch_size)
    done = len(contexts) - sum(len(parts[number]) for number in missing)
    with tqdm(total=len(contexts), initial=done, desc="labels", disable=not progress) as bar:
        for number in team.share(missing):
            # The others are about as far.
            moved = partial(_move, bar, team.count)
            components = measuring.part(settings, parts[number], _begun(folder, number), moved)
            labeled = contexts.select(parts[number])
            _write_part(_part(folder, number), labeled, components, tuple(settings.combine))
            _begun(folder, number).unlink(missing_ok=True)
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
        agreement = _agreement(settings, gains, measuring, team, progress=progress)
        if team.first:
            write_json(folder / "labels.json", {**facts, **agreement})
        team.gather(None)
    return read_labels(folder)


def _move(bar: Any, count: int, labels: int) -> None:
    bar.update(labels * count)


@dataclass(frozen=True, eq=False)
class _Measuring:
    """Labels of some of the contexts, with methods that are prepared once."""

    model: nn.Module
    contexts: Examples
    objective: Examples
    against: tuple[Examples, ...]
    batch_size: int | None
    prepared: dict[str, Labeller] = field(default_factory=dict)

    def labels(self, settings: LabelSettings, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """The components of the labels of the contexts `chosen` [n, components]."""
        device = next(self.model.parameters()).device
        with trained(self.model, settings.trainable), evaluation_mode(self.model):
            label = self._labeller(settings)
            values = label.measure(rows_of(self.contexts.select(chosen), device))
        return finite(values.double().cpu().numpy().reshape(len(chosen), -1), chosen)

    def part(
        self,
        settings: LabelSettings,
        chosen: NDArray[np.int64],
        saved: Path,
        moved: Callable[[int], None],
    ) -> NDArray[np.float64]:
        """The same, saved in the file `saved` on the way; `moved` hears of what is done."""
        values = _read_begun(saved)
        done = sum(map(len, values))
        moved(done)
        with trained(self.model, settings.trainable), evaluation_mode(self.model):
            together = self._labeller(settings).rows
        clock = time.monotonic()
        while done < len(chosen):
            values.append(self.labels(settings, chosen[done : done + together]))
            done += len(values[-1])
            moved(len(values[-1]))
            if done < len(chosen) and time.monotonic() - clock > _SECONDS:
                _write_begun(saved, np.concatenate(values))
                clock = time.monotonic()
        return np.concatenate(values)

    def _labeller(self, settings: LabelSettings) -> Labeller:
        key = repr(settings)
        if key not in self.prepared:
            device = next(self.model.parameters()).device
            self.prepared[key] = labeller(
                self.model,
                rows_of(self.objective, device),
                settings,
                against=[rows_of(pool, device) for pool in self.against],
                batch_size=self.batch_size,
            )
        return self.prepared[key]


def _begun(folder: Path, number: int) -> Path:
    return folder / f"begun-{number:05d}.parquet"


def _write_begun(path: Path, values: NDArray[np.float64]) -> None:
    columns = {f"component {n}": column for n, column in enumerate(values.T)}
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(columns), temporary)


def _read_begun(path: Path) -> list[NDArray[np.float64]]:
    if not path.exists():
        return []
    return [np.stack([column.to_numpy() for column in _read_part(path).columns], axis=1)]


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
    stored = _read_facts(folder / "labels.json")
    for name, value in facts.items():
        if stored.get(name) != value:
            raise LabelStoreError(
                f"{folder} holds labels with {name} {stored.get(name)!r}, and this run has "
                f"{value!r}. Try another --out, or remove the folder."
            )


def _agreement(
    settings: LabelSettings,
    gains: NDArray[np.float64],
    measuring: _Measuring,
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
    exact = replace(settings.one_step(), method="exact", precision="float32")
    parts = list(enumerate(np.array_split(chosen, max(1, count // 4))))
    bar = tqdm(team.share(parts), desc=f"{count} exact labels", disable=not progress)
    expected: dict[int, NDArray[np.float64]] = {}
    own = {number: measuring.labels(exact, part)[:, 0] for number, part in bar}
    for theirs in team.gather(own):
        expected |= theirs
    values = np.concatenate([expected[number] for number, _ in parts])
    return {"spearman_with_exact": spearman(gains[chosen], values), "exact_count": count}


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def _write_part(
    path: Path, contexts: Examples, components: NDArray[np.float64], names: tuple[str, ...]
) -> None:
    """names: of the components [n, components] that a label is the weighted sum of, or none."""
    columns: dict[str, NDArray[Any]] = {
        "document": contexts.document,
        "domain": contexts.domain,
    }
    columns |= dict(zip(map(_column, names) if names else ["gain"], components.T, strict=True))
    ends = pyarrow.array(np.cumsum([0, *contexts.lengths]).astype(np.int32))
    arrays: dict[str, NDArray[Any]] = {"input_ids": contexts.tokens.astype(np.int32)}
    if not contexts.whole:
        arrays["loss_mask"] = contexts.loss_mask
    lists = {
        name: pyarrow.ListArray.from_arrays(ends, pyarrow.array(values))
        for name, values in arrays.items()
    }
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table({**lists, **columns}), temporary)


def _column(component: str) -> str:
    return f"component {component}"


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
    ids = table["input_ids"].to_numpy()
    tokens = np.concatenate(ids).astype(np.int64)
    mask = (
        np.concatenate(table["loss_mask"].to_numpy()).astype(np.bool_)
        if "loss_mask" in table.column_names
        else np.ones(len(tokens), np.bool_)
    )
    contexts = Examples(
        tokens,
        mask,
        np.array([len(row) for row in ids], np.int64),
        table["document"].to_numpy(),
        table["domain"].to_numpy(),
        tuple(facts["domains"]),
    )
    weights = facts.get("combine", {})
    names = [_column(name) for name in weights] or ["gain"]
    components = np.stack([table[name].to_numpy() for name in names], axis=1)
    return Labels(contexts, combined(components, weights), facts)


def _read_part(path: Path) -> pyarrow.Table:
    try:
        return pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise LabelStoreError(
            f"{path} is damaged: {error}. Remove it and run the same command again."
        ) from error
