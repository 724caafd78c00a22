"""Making learners.lock: what references resolve to now, with the bytes they have now."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from secondary_learners.artifacts.kinds import ArtifactKind, artifact_kind
from secondary_learners.errors import ArtifactError, LockError, UnknownNameError
from secondary_learners.files import sha256_bytes
from secondary_learners.registry.guard import alone
from secondary_learners.registry.lock import Pinned, lock_path, read_lock, write_lock
from secondary_learners.registry.references import (
    FolderReference,
    NameReference,
    Reference,
    RepositoryReference,
    parse_reference,
)
from secondary_learners.registry.requests import request
from secondary_learners.registry.resolve import resolve
from secondary_learners.registry.resolved import Resolved

__all__ = ["lock_references"]


def lock_references(
    refs: Iterable[str],
    path: Path | None = None,
    *,
    endpoint: str | None = None,
    token: str | None = None,
) -> dict[str, tuple[Pinned | None, Pinned]]:
    """Pin `refs`, and the base models in a registry that they need; returns what is new.

    That is each reference with its pin before (None when it had none) and after.
    What else the lock holds stays. Every file is fetched and hashed. Raises LockError for a folder,
    and what `load_learner` raises.
    """
    read_lock(path, may_be_new=True)  # a damaged one is refused before anything is fetched
    pins: dict[str, Pinned] = {}
    for ref in refs:
        reference = parse_reference(ref)
        if isinstance(reference, FolderReference):
            raise LockError(
                f"the folder {ref} cannot be locked: it has no commit. Give a name from "
                "`learners list`, or a repository owner/name."
            )
        _pin(reference, None, endpoint, token, pins)
    path = path or lock_path()
    with alone(f"lock-{sha256_bytes(str(path.absolute()).encode())[:16]}"):
        before = read_lock(path, may_be_new=True)  # another process may have pinned others
        write_lock({**before, **pins}, path)
    return {key: (before.get(key), pin) for key, pin in pins.items() if before.get(key) != pin}


def _pin(
    reference: NameReference | RepositoryReference,
    kind: str | None,
    endpoint: str | None,
    token: str | None,
    pins: dict[str, Pinned],
) -> None:
    asked = request(reference, kind, endpoint=endpoint, token=token)
    if asked.key in pins:
        return
    resolved = resolve(asked, {}, required=False)
    assert resolved.digests is not None  # only a folder of one's own has none
    assert resolved.kind is not None  # decided when it was resolved
    made = artifact_kind(resolved.kind)
    if made.whole:
        for name in made.files:
            resolved.read(name)
    else:
        resolved.check_all()
    pins[asked.key] = Pinned(
        kind=resolved.kind,
        location=resolved.location,
        endpoint=resolved.endpoint,
        commit=resolved.commit,
        files=dict(resolved.digests),
    )
    for needed in _needed(resolved, made):
        if isinstance(needed, NameReference):
            try:
                _pin(needed, "base-model", None, None, pins)
            except UnknownNameError:  # a name for transformers, such as "gpt2"
                continue


def _needed(resolved: Resolved, kind: ArtifactKind) -> list[Reference]:
    """The base models and tokenizers that it was made for."""
    try:
        return [
            parse_reference(ref) for ref in kind.needs(json.loads(resolved.read("config.json")))
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"config.json of {resolved.key!r} does not say which base model and tokenizer it was "
            f"made for ({type(error).__name__}: {error}). Ask its maker to publish it again."
        ) from error
