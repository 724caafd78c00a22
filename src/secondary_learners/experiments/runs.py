"""Finished runs in a folder: what was measured or made once is read, and not done again.

A folder is begun with an identity, a plain mapping of settings and of the digests of data; a run
adds its own part, such as an arm and a seed. Every file holds the whole identity of its run, so
that nothing else can be taken for it, and is written whole or not at all: any number of processes
may share a folder, and one that is killed loses the run it was in.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.files import atomic_path, held_alone, json_bytes, sha256_bytes, write_json

__all__ = ["RunStore", "StoredRun", "alone_in", "differences"]

Identity = Mapping[str, Any]
Arrays = Mapping[str, npt.NDArray[Any]]
_SHA256 = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredRun:
    """What a run left: figures of JSON's types, and arrays where it made any."""

    figures: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunStore:
    """The runs of one folder that share an identity; with no folder, nothing is kept."""

    folder: Path | None
    identity: Identity

    @classmethod
    def begin(cls, folder: Path | None, identity: Identity) -> RunStore:
        """The store in `folder`, begun now with `identity` or before with an equal one.

        Raises SecondaryLearnersError for a folder begun with another identity, naming each setting
        that differs and both values.
        """
        plain: dict[str, Any] = json.loads(json_bytes(dict(identity)))
        if folder is not None:
            from filelock import FileLock

            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".begin.lock"):
                _claim(folder, plain)
        return cls(folder, plain)

    def read(self, name: str, **own: Any) -> StoredRun | None:
        """The run called `name` with this part of the identity of its own; None if it is not there.

        A damaged file counts as not there, with a warning: it is made again.
        """
        if self.folder is None:
            return None
        identity = self._identity(own)
        for path in self._paths(name, identity):
            if path.is_file():
                try:
                    return _read(path, identity)
                except Exception as error:  # whatever a damaged file leads to
                    _log.warning("%s is damaged (%s): making it again", path, error)
        return None

    def write(
        self, name: str, figures: Mapping[str, Any], arrays: Arrays | None = None, **own: Any
    ) -> None:
        """Keep a run under `name` and its part of the identity, for `read`."""
        if self.folder is None:
            return
        identity = self._identity(own)
        record = {"identity": identity, "figures": dict(figures)}
        plain, with_arrays = self._paths(name, identity)
        if not arrays:
            write_json(plain, record)
            return
        from safetensors.numpy import save_file

        held = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        with atomic_path(with_arrays) as temporary:
            save_file(held, temporary, metadata={"run": json_bytes(record).decode()})

    def _identity(self, own: Identity) -> dict[str, Any]:
        return {**self.identity, **json.loads(json_bytes(dict(own)))}

    def _paths(self, name: str, identity: Identity) -> tuple[Path, Path]:
        assert self.folder is not None
        readable = re.sub(r"[^\w.+-]", "_", name)
        stem = f"{readable}-{sha256_bytes(json_bytes(identity))[:12]}"
        return self.folder / "runs" / f"{stem}.json", self.folder / "runs" / f"{stem}.safetensors"


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    path = folder / "settings.json"
    if path.is_file():
        try:
            begun = json.loads(path.read_bytes())
            differing = differences(begun, identity)
        except (ValueError, AttributeError):
            _log.warning("%s is damaged: writing it again", path)
        else:
            if not differing:
                return
            raise SecondaryLearnersError(
                f"{folder} was begun with other settings: {'; '.join(differing)}. "
                "Try another folder, or delete this one to start afresh."
            )
    write_json(path, identity)


def _read(path: Path, identity: Identity) -> StoredRun:
    arrays: dict[str, npt.NDArray[Any]] = {}
    if path.suffix == ".json":
        record = json.loads(path.read_bytes())
    else:
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            record = json.loads(file.metadata()["run"])
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if record["identity"] != identity:
        raise ValueError("it holds another run")
    return StoredRun(dict(record["figures"]), arrays)


def differences(begun: Identity, now: Identity) -> list[str]:
    """Each setting that differs between two identities, nested ones too, and both of its values."""
    before, after = dict(_flat(begun)), dict(_flat(now))
    return [
        f"{name} was {_shown(before, name)} and is now {_shown(after, name)}"
        for name in {**before, **after}
        if before.get(name, ...) != after.get(name, ...)
    ]


def _flat(identity: Identity, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in identity.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _shown(values: Identity, name: str) -> str:
    if name not in values:
        return "not there"
    value = values[name]
    if isinstance(value, str) and _SHA256.fullmatch(value):
        return f"data of sha256 {value[:12]}…"
    return str(value)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """The only process that works in `folder`; what a killed process held is free again.

    Raises SecondaryLearnersError while another process is in the block.
    """
    busy = SecondaryLearnersError(
        f"another process is working in {folder}. Wait for it, or name another folder."
    )
    with held_alone(folder / ".lock", busy):
        yield
