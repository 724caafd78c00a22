"""Deltas by name, repository or folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from secondary_learners.registry.load import load_base, locate
from secondary_learners.registry.resolved import Resolved

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from secondary_learners.deltas.artifact import Applied, Delta
    from secondary_learners.deltas.config import DeltaConfig

__all__ = ["base_reference", "delta_files", "find_delta", "load_delta"]


def load_delta(
    ref: str | Path,
    model: PreTrainedModel | None = None,
    *,
    locked: bool | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Applied:
    """The delta that `ref` names, on `model`; `remove()` of the result takes it off, exactly.

    Args:
        ref: As for `load_learner`: a name (see `learners list`), a repository or a folder; every
            file is hashed.
        model: The delta's base model with a classification head; by default a new one is loaded.
        locked: As for `load_learner`.
        endpoint: As for `load_learner`.
        token: As for `load_learner`.

    Returns:
        The delta on its model, which is `.model`; `.remove()` gives the base model back, every bit
        (after Radiya-Dixit and Wang 2020, arXiv 2004.14129).

    Raises:
        UnknownNameError: For a name that is in no registry; the message has the near ones.
        IncompatibleError: For another base model.
        ArtifactError: For files that are not sound; DigestMismatchError for changed ones.
        HubError: What `load_learner` raises for a Hub.
    """
    delta = find_delta(ref, locked=locked, endpoint=endpoint, token=token)
    if model is None:
        from secondary_learners.tasks.classifier import classifier

        base, _ = load_base(base_reference(delta.config))
        model = classifier(base, len(delta.config.classes))
    return delta.apply(model)


def find_delta(
    ref: str | Path,
    *,
    locked: bool | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Delta:
    """The delta that `ref` names, on no model yet; raises as `load_delta`."""
    from secondary_learners.deltas.artifact import read_delta

    resolved = delta_files(ref, locked=locked, endpoint=endpoint, token=token)
    return read_delta(resolved.folder, resolved.digests, remedy=resolved.remedy or None)


def delta_files(
    ref: str | Path,
    *,
    locked: bool | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Resolved:
    """Where the files of the delta that `ref` names are, and their digests; needs no torch."""
    return locate(ref, kind="delta", locked=locked, endpoint=endpoint, token=token)


def base_reference(config: DeltaConfig) -> str:
    """The base model that a delta was made from, at its commit, for `load_base`."""
    base = config.base_model
    return f"{base.repo}@{base.revision}" if base.revision else base.repo
