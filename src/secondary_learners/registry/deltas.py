"""Deltas by name, repository or folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from secondary_learners.registry.load import locate
from secondary_learners.registry.resolve import Resolved

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from secondary_learners.finetuning.sparse.deltas import Applied, Delta

__all__ = ["delta_files", "find_delta", "load_delta"]


def load_delta(
    ref: str | Path, model: PreTrainedModel | None = None, *, locked: bool | None = None
) -> Applied:
    """The delta that `ref` names, on `model`; `remove()` of the result takes it off, exactly.

    ref: as for `load_learner`: a name (see `learners list`), a repository or a folder; every file
    is hashed. model: the delta's base model with a classification head; by default a new one is
    loaded, and is `.model` of the result. locked: whether what learners.lock does not pin is
    refused.

    Raises UnknownNameError, IncompatibleError for another base model, what `read_delta` raises for
    files that are not sound, and what `load_learner` raises for a Hub.
    """
    delta = find_delta(ref, locked=locked)
    if model is None:
        from secondary_learners.finetuning.sparse.tasks import classifier
        from secondary_learners.registry.load import load_base

        base, _ = load_base(delta.config.base_model.repo)
        model = classifier(base, len(delta.config.labels))
    return delta.apply(model)


def find_delta(ref: str | Path, *, locked: bool | None = None) -> Delta:
    """The delta that `ref` names, on no model yet; raises as `load_delta`."""
    from secondary_learners.finetuning.sparse.deltas import read_delta

    found = delta_files(ref, locked=locked)
    return read_delta(found.folder, found.digests, remedy=found.remedy)


def delta_files(ref: str | Path, *, locked: bool | None = None) -> Resolved:
    """Where the files of the delta that `ref` names are, and their digests; needs no torch."""
    return locate(ref, kind="delta", locked=locked)
