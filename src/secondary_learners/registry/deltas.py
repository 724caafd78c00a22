"""Deltas by name or folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from secondary_learners.catalogue import content
from secondary_learners.errors import ArtefactError, UnknownNameError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from secondary_learners.finetuning.sparse.deltas import Applied, Delta

__all__ = ["delta_folder", "find_delta", "load_delta"]

_DELTA = re.compile(rb'"kind":\s*"(layers|mask)"')


def load_delta(ref: str | Path, model: PreTrainedModel | None = None) -> Applied:
    """The delta that `ref` names, on `model`; `remove()` of the result takes it off, exactly.

    ref: a name (see `learners delta show`), or a folder. model: the delta's base model with a
        classification head; by default a new one is loaded, and is `.model` of the result.

    Raises UnknownNameError, IncompatibleError for another base model, and what `read_delta` raises
    for a folder that is not sound.
    """
    delta = find_delta(ref)
    if model is None:
        from secondary_learners.finetuning.sparse.tasks import classifier
        from secondary_learners.registry.load import load_base

        base, _ = load_base(delta.config.base_model.repo)
        model = classifier(base, len(delta.config.labels))
    return delta.apply(model)


def find_delta(ref: str | Path) -> Delta:
    """The delta that `ref` names, on no model yet; raises as `load_delta`."""
    from secondary_learners.finetuning.sparse.deltas import read_delta

    return read_delta(delta_folder(ref))


def delta_folder(ref: str | Path) -> Path:
    """Where the delta that `ref` names is. A name is one that ships; needs no torch."""
    folder = Path(ref)
    if (folder / "config.json").is_file() and (isinstance(ref, Path) or "/" in ref):
        return folder
    if isinstance(ref, Path) or "/" in ref:
        raise ArtefactError(f"the folder {ref} has no config.json, so it holds no delta.")
    names = [path.name for path in content("learners").iterdir() if _is_delta(path)]
    if ref not in names:
        raise UnknownNameError("delta", ref, names, "learners delta show")
    return content("learners") / ref


def _is_delta(folder: Path) -> bool:
    try:
        return _DELTA.search((folder / "config.json").read_bytes()) is not None
    except OSError:
        return False
