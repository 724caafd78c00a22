"""learners.lock: references pinned to where they come from, a commit and digests."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secondary_learners.artifacts.kinds import artifact_kinds
from secondary_learners.artifacts.records import as_values, read_record
from secondary_learners.errors import LockError, SecondaryLearnersError
from secondary_learners.files import write_json
from secondary_learners.registry.references import (
    FolderReference,
    NameReference,
    is_commit,
    is_repository,
    parse_reference,
)

__all__ = ["Pinned", "are_digests", "is_required", "lock_path", "read_lock", "write_lock"]

VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"https?://\S+")


@dataclass(frozen=True)
class Pinned:
    """One reference: its kind of artifact, "bundled" or a repository, and its bytes.

    endpoint: the address of the repository's Hub, also when it was that of HF_ENDPOINT, so that the
    lock means the same on every machine; "" for what is bundled.
    """

    kind: str
    location: str
    endpoint: str
    commit: str
    files: Mapping[str, str]


def lock_path() -> Path:
    """$SECONDARY_LEARNERS_LOCK, else learners.lock in the working folder."""
    return Path(os.path.expanduser(os.environ.get("SECONDARY_LEARNERS_LOCK") or "learners.lock"))


def is_required(locked: bool | None) -> bool:
    """Whether what is not locked is refused: as told, else as SECONDARY_LEARNERS_LOCKED says."""
    if locked is not None:
        return locked
    value = os.environ.get("SECONDARY_LEARNERS_LOCKED", "")
    return value.lower() not in ("", "0", "false", "no", "off")


def read_lock(path: Path | None = None, *, may_be_new: bool = False) -> dict[str, Pinned]:
    """The pinned references; empty when there is no ./learners.lock.

    Raises LockError for a damaged lock, and for one that SECONDARY_LEARNERS_LOCK names in vain,
    unless it `may_be_new`.
    """
    named = path is None and bool(os.environ.get("SECONDARY_LEARNERS_LOCK"))
    path = path or lock_path()
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        if named and not may_be_new:
            raise LockError(
                f"SECONDARY_LEARNERS_LOCK names {path}, which does not exist. "
                "Try `learners lock NAME`."
            ) from error
        return {}
    except OSError as error:
        raise LockError(f"{path} cannot be read ({error.strerror}). Give another file.") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise _damaged(path, f"{error}.") from error
    if not isinstance(data, dict) or not isinstance(data.get("locked"), dict):
        raise _damaged(path, "it has no table of what is locked.")
    if data.get("version") != VERSION:
        raise LockError(
            f"{path} has version {data.get('version')!r}, and this package reads {VERSION}. "
            "Try `pip install --upgrade secondary-learners`, or write it anew with `learners lock`."
        )
    return {key: _pinned(path, key, value) for key, value in data["locked"].items()}


def _pinned(path: Path, key: str, value: object) -> Pinned:
    values = value if isinstance(value, dict) else {}
    pinned = read_record(Pinned, values, repr(key), lambda reason: _damaged(path, reason))
    if not _is_whole(key, pinned):
        raise _damaged(path, f"{key!r} lacks a kind, a place, a full commit or digests.")
    return pinned


def _is_whole(key: str, pinned: Pinned) -> bool:
    try:
        reference = parse_reference(key, is_folder=lambda _: False)
    except SecondaryLearnersError:
        return False
    if pinned.location == "bundled":
        placed = isinstance(reference, NameReference) and pinned.commit == pinned.endpoint == ""
    else:
        placed = (
            not isinstance(reference, FolderReference)
            and is_repository(pinned.location)
            and is_commit(pinned.commit)
            and _ADDRESS.fullmatch(pinned.endpoint) is not None
        )
    known = [kind.kind for kind in artifact_kinds()]
    return placed and pinned.kind in known and are_digests(pinned.files)


def are_digests(value: object) -> bool:
    """Whether `value` is what is recorded of an artifact: plain file names, each with a sha256."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(name, str)
            and name not in ("", ".", "..")
            and not set(name) & set("/\\\0")
            and isinstance(digest, str)
            and _SHA256.fullmatch(digest) is not None
            for name, digest in value.items()
        )
    )


def _damaged(path: Path, why: str) -> LockError:
    return LockError(f"{path} is damaged: {why} Write it anew with `learners lock NAME`.")


def write_lock(pins: Mapping[str, Pinned], path: Path | None = None) -> None:
    """Write `pins` whole; the same pins give the same bytes."""
    locked = {key: as_values(pinned) for key, pinned in pins.items()}
    write_json(path or lock_path(), {"version": VERSION, "locked": locked})
