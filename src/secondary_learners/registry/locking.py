"""Making learners.lock: what references resolve to now, with the bytes they have now."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from secondary_learners.errors import ArtefactError, LockError, UnknownNameError
from secondary_learners.learners.layout import FILES
from secondary_learners.registry.lock import Pinned, read_lock, write_lock
from secondary_learners.registry.references import (
    FolderReference,
    NameReference,
    RepositoryReference,
    parse_reference,
)
from secondary_learners.registry.requests import request
from secondary_learners.registry.resolve import Resolved, resolve

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
    before = read_lock(path, may_be_new=True)
    pins: dict[str, Pinned] = {}
    for ref in refs:
        reference = parse_reference(ref)
        if isinstance(reference, FolderReference):
            raise LockError(
                f"the folder {ref} cannot be locked: it has no commit. Give a name from "
                "`learners list`, or a repository owner/name."
            )
        _pin(reference, None, endpoint, token, pins)
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
    found = resolve(asked, {}, required=False)
    assert found.digests is not None  # only a folder of one's own has none
    config = _config(found)
    is_learner = "format_version" in config
    if is_learner:
        for name in FILES:
            found.read(name)
    else:
        found.check_all()
    pins[asked.key] = Pinned(
        kind="learner" if is_learner else "base-model",
        location=found.location,
        endpoint=found.endpoint,
        commit=found.commit,
        files=dict(found.digests),
    )
    for field in ("base_model", "tokenizer") if is_learner else ():
        needed = parse_reference(str(config[field]["repo"]))
        if isinstance(needed, NameReference):
            try:
                _pin(needed, "base-model", None, None, pins)
            except UnknownNameError:  # a name for transformers, such as "gpt2"
                continue


def _config(found: Resolved) -> dict[str, dict[str, object]]:
    try:
        config = json.loads(found.read("config.json"))
    except ValueError as error:
        raise ArtefactError(f"config.json of {found.key!r} is not JSON: {error}.") from error
    return config if isinstance(config, dict) else {}
