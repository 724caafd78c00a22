"""What was found when a repository was first loaded: its digests, and which commit a tag was.

A Hub's cache says nothing of the kind: it has no digests of small files, and its tags are shared
by all Hubs that have a repository of that name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from secondary_learners.errors import ArtifactError, HubError
from secondary_learners.files import sha256_bytes, write_json
from secondary_learners.registry.home import pins_folder
from secondary_learners.registry.lock import are_digests
from secondary_learners.registry.references import is_commit, is_repository
from secondary_learners.registry.remote import Remote

__all__ = ["all_pins", "read_pin", "read_ref", "write_pin", "write_ref"]


def read_pin(remote: Remote, commit: str) -> dict[str, str]:
    """The sha256 of each file of `commit` as first loaded; empty when it never was."""
    path = _folder(remote) / f"{commit}.json"
    value = _read(path)
    return {} if value is None else _files(path, value)


def write_pin(remote: Remote, commit: str, digests: Mapping[str, str]) -> None:
    _write(
        _folder(remote) / f"{commit}.json",
        {
            "repository": remote.repository,
            "endpoint": remote.address,
            "commit": commit,
            "files": dict(digests),
        },
    )


def read_ref(remote: Remote, revision: str | None) -> str | None:
    """The commit that a branch or tag (None: the default branch) was when last loaded."""
    path = _ref_path(remote, revision)
    value = _read(path)
    if value is None:
        return None
    commit = value.get("commit")
    if not isinstance(commit, str) or not is_commit(commit):
        raise _damaged(path, "it has no full commit")
    return commit


def write_ref(remote: Remote, revision: str | None, commit: str) -> None:
    if read_ref(remote, revision) != commit:
        _write(_ref_path(remote, revision), {"revision": revision, "commit": commit})


def all_pins() -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """Repository, address of its Hub, commit and digests of everything that was loaded."""
    for path in sorted((pins_folder()).glob("*/*/*.json")):
        value = _read(path) or {}
        repository, endpoint = value.get("repository"), value.get("endpoint")
        if not (isinstance(repository, str) and is_repository(repository)):
            raise _damaged(path, "it names no repository")
        if not (isinstance(endpoint, str) and endpoint) or value.get("commit") != path.stem:
            raise _damaged(path, "it lacks the address of a Hub, or a full commit")
        yield repository, endpoint, path.stem, _files(path, value)


def _files(path: Path, value: Mapping[str, Any]) -> dict[str, str]:
    if not are_digests(value.get("files")):
        raise _damaged(path, "it has no table of digests")
    return dict(value["files"])


def _damaged(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged: {why}. Delete it and load again.")


def _folder(remote: Remote) -> Path:
    hub = sha256_bytes(remote.address.encode())[:16]
    return pins_folder() / hub / remote.repository.replace("/", "--")


def _ref_path(remote: Remote, revision: str | None) -> Path:
    # A digest, because a revision may have slashes, or be too long for a file name.
    name = "default" if revision is None else sha256_bytes(revision.encode())[:32]
    return _folder(remote) / "refs" / f"{name}.json"


def _write(path: Path, value: Mapping[str, object]) -> None:
    try:
        write_json(path, dict(value))
    except OSError as error:
        raise HubError(
            f"{path} cannot be written ({error.strerror}), and digests are recorded there when a "
            "repository is first loaded. Free some space, or set SECONDARY_LEARNERS_HOME to a "
            "folder that can be written."
        ) from error


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise _damaged(path, "it is not a table")
    return value
