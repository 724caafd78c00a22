"""The shards of a corpus by name, and folders that are written shard for shard beside them."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from secondary_learners.engines.streams import Shard
from secondary_learners.errors import CorpusError
from secondary_learners.files import held_alone

__all__ = [
    "NamedShard",
    "check_apart",
    "name_shards",
    "only_writer",
    "open_raw",
    "remove_unfinished",
    "stamp",
]


@dataclass(frozen=True)
class NamedShard:
    """A shard and its name: its path below the folder that all of them are in."""

    name: str
    shard: Shard

    @property
    def local(self) -> bool:
        return "://" not in self.shard.address


def name_shards(shards: Sequence[Shard]) -> list[NamedShard]:
    """The shards by their names, in the order of names: the order they were given in is nothing."""
    paths = {shard: _path(shard.address) for shard in shards}
    folder = os.path.commonpath([os.path.dirname(path) for path in paths.values()])
    named = [
        NamedShard(PurePosixPath(os.path.relpath(path, folder)).as_posix(), shard)
        for shard, path in paths.items()
    ]
    return sorted(named, key=lambda one: one.name)


def _path(address: str) -> str:
    if "://" in address:
        return "/" + str(fsspec.core.url_to_fs(address)[0]._strip_protocol(address)).lstrip("/")
    return os.path.abspath(address)


def open_raw(address: str) -> Any:
    """The bytes of a file as they are."""
    return fsspec.open(address, "rb") if "://" in address else open(address, "rb")


def stamp(shard: Shard) -> dict[str, Any]:
    """What the bytes of a shard are: their number and sha256, or what a store says of them."""
    if "://" in shard.address:
        system, path = fsspec.core.url_to_fs(shard.address)
        return {"bytes": system.size(path), "checksum": str(system.checksum(path))}
    with open_raw(shard.address) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def check_apart(
    inputs: Sequence[str], shards: Sequence[NamedShard], folders: Mapping[str, Path]
) -> None:
    """Raise CorpusError where a folder to write to, by its option, could replace or become input.

    That is one that holds a shard, and one in a folder of `inputs`, which would be read with it the
    next time.
    """
    read = [_root(given) for given in inputs if "://" not in given]
    files = [os.path.realpath(one.shard.address) for one in shards if one.local]
    for option, folder in folders.items():
        place = os.path.realpath(folder)
        if any(_within(place, root) for root in read) or any(
            _within(file, place) for file in files
        ):
            raise CorpusError(
                f"{option} {folder} and the input are in one folder, and would be read or replaced "
                "with each other. Name a folder elsewhere."
            )
    for (option, folder), (other, second) in itertools.combinations(folders.items(), 2):
        one, two = os.path.realpath(folder), os.path.realpath(second)
        if _within(one, two) or _within(two, one):
            raise CorpusError(
                f"{option} {folder} and {other} {second} are in one folder. Name two that are "
                "apart."
            )


def _root(given: str) -> str:
    """The folder that all below it is read of; of what is not such an input, the input itself."""
    return os.path.realpath(given.partition("**")[0] or ".")


def _within(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def remove_unfinished(path: Path) -> None:
    """What a killed run left behind of a file; nobody else writes it now."""
    for rest in path.parent.glob(f".{glob.escape(path.name)}.*"):
        rest.unlink(missing_ok=True)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Raises CorpusError while another process writes into `folder`, which is made."""
    busy = CorpusError(
        f"another run writes into {folder} at this moment. Wait for it, or name another folder."
    )
    with held_alone(folder / ".lock", busy):
        yield
