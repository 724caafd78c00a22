"""What a reference asks for, and the folder of files that it leads to, their digests checked."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from secondary_learners.artifacts.reading import read_file
from secondary_learners.errors import DigestMismatchError
from secondary_learners.files import sha256_bytes, sha256_file
from secondary_learners.registry.remote import Remote, fetchable

__all__ = ["Request", "Resolved", "Storage"]


class Storage(StrEnum):
    """Where the files that are read were found."""

    FOLDER = "folder"
    BUNDLED = "bundled"
    CACHE = "cache"
    HUB = "hub"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a reference asks for.

    key: the reference in full, as learners.lock has it. kind: "learner", "base-model", or None when
    a repository may be either. Of `folder` (what ships) and `remote` one is given. digests: the
    recorded sha256 of each file, or None when no index and no lock has them. remedy: what to do
    about a wrong byte, beside getting the file again.
    """

    key: str
    kind: str | None
    folder: Path | None = None
    remote: Remote | None = None
    revision: str | None = None
    digests: Mapping[str, str] | None = None
    remedy: str = ""

    @property
    def location(self) -> str:
        return "bundled" if self.remote is None else self.remote.repository

    @property
    def follows_client(self) -> bool:
        """Whether only HF_ENDPOINT says which Hub it is on."""
        return self.remote is not None and not self.remote.endpoint

    @property
    def endpoint(self) -> str:
        """The address of the Hub, whichever HF_ENDPOINT it was asked under; "" for what ships."""
        return "" if self.remote is None else self.remote.address


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A folder and the digests that its files must have (None for a folder of one's own)."""

    key: str
    kind: str | None
    folder: Path
    digests: Mapping[str, str] | None
    source: Storage
    location: str = ""
    endpoint: str = ""
    commit: str = ""
    remedy: str = ""

    def read(self, name: str) -> bytes:
        """The bytes of a file, its digest checked. Raises ArtifactError when it is not there."""
        data = read_file(self.folder / name, remedy=self.remedy)
        if self.digests is not None:
            self._compare(name, sha256_bytes(data))
        return data

    def check_all(self) -> None:
        """Every recorded file has its bytes; and what ships has no other files.

        A cache is shared with other tools, so that it may hold more than is recorded, and less:
        files that are never fetched, such as pictures. Whoever reads the folder afterwards reads
        only the recorded names, or reads `checked` instead.
        """
        if self.digests is None:
            return
        self._refuse_unrecorded()
        for name in self._present():
            self._check(name, self.folder / name)

    @contextmanager
    def checked(self) -> Iterator[Path]:
        """A folder with the recorded files and nothing else, for what reads a whole folder.

        Other files are read once, hashed, and written there, in a folder that only this user can
        change. Tensors, which may be large, are linked and hashed through the link: a file that is
        renamed over the one in the cache changes nothing. What remains is a process with the right
        to write into the cached tensors themselves between the hashing and the end of the block
        (or, where hard links cannot be made, to replace them): they hold numbers, never code.
        A mapped file stays readable when the folder goes at the end of the block.
        """
        if self.digests is None:
            yield self.folder
            return
        self._refuse_unrecorded()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            for name in self._present():
                source, path = self.folder / name, Path(temporary) / name
                if not source.is_file():
                    raise DigestMismatchError.of(source, self.digests[name], None, self.remedy)
                if source.suffix == ".safetensors":
                    _link(source.resolve(), path)
                    self._check(name, path)
                else:
                    path.write_bytes(self.read(name))
            yield Path(temporary)

    def _present(self) -> list[str]:
        """The recorded files that must be there, or are."""
        assert self.digests is not None
        cached = self.source is not Storage.BUNDLED
        return sorted(
            name
            for name in self.digests
            if not cached or fetchable(name) or (self.folder / name).exists()
        )

    def _refuse_unrecorded(self) -> None:
        assert self.digests is not None
        if self.source is Storage.BUNDLED:
            for path in sorted(self.folder.glob("[!.]*")):
                if path.name not in self.digests:
                    raise DigestMismatchError.of(path, None, sha256_file(path), self.remedy)

    def _check(self, name: str, path: Path) -> None:
        """Compare the bytes at `path` with what is recorded of the file `name`."""
        self._compare(name, sha256_file(path) if path.is_file() else None)

    def _compare(self, name: str, actual: str | None) -> None:
        expected = (self.digests or {}).get(name)
        if actual is None or actual != expected:
            raise DigestMismatchError.of(self.folder / name, expected, actual, self.remedy)


def _link(target: Path, path: Path) -> None:
    """Give `target` a second name, in the best way that the file systems of both allow."""
    for make in (os.link, os.symlink):
        with suppress(OSError):
            make(target, path)
            return
    shutil.copyfile(target, path)
