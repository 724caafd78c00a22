"""File contents, each kept once under its sha256: whole and on disk, or absent."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from secondary_learners.files import fsync_folder
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.names import is_sha256

__all__ = ["Incoming", "Objects", "Stored"]


@dataclass(frozen=True)
class Stored:
    """A content: its sha256 in hex and its size in bytes."""

    sha256: str
    size: int


class Incoming:
    """A content on its way in: a temporary file that is hashed as it is written."""

    def __init__(self, objects: Objects, file: IO[bytes], path: Path) -> None:
        self._objects, self._file, self._path = objects, file, path
        self._digest = hashlib.sha256()
        self._sealed: Stored | None = None
        self.size = 0

    def write(self, data: bytes | bytearray) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def seal(self, expected: str | None = None) -> Stored:
        """Bring what was written to disk, and check it. Nothing can be written afterwards.

        Raises Refused 400 when the sha256 is not `expected`.
        """
        if self._sealed is None:
            found = self._digest.hexdigest()
            if expected not in (None, found):
                raise Refused(
                    400, f"the bytes received have sha256 {found}, not {expected}. Send them again."
                )
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._sealed = Stored(found, self.size)
        return self._sealed

    def keep(self, expected: str | None = None) -> Stored:
        """Seal, and make the content an object. It replaces an equal one, which may be damaged."""
        stored = self.seal(expected)
        self._objects.keep([self])
        return stored

    def move(self, path: Path) -> None:
        """Rename what is sealed to `path`. Its folder is not brought to disk."""
        self._path.replace(path)


class Objects:
    """The folder of all contents: objects/ab/<sha256>, and incoming/ for what is not whole yet."""

    def __init__(self, root: Path) -> None:
        self._folder, self._incoming = root / "objects", root / "incoming"
        for folder in (self._folder, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)

    def empty_incoming(self) -> None:
        """Drop what an earlier process left half-written. Only for the one process that serves."""
        shutil.rmtree(self._incoming)
        self._incoming.mkdir()

    def path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def keep(self, contents: Iterable[Incoming]) -> None:
        """Make sealed contents objects, all on disk when it returns: a folder is synced once."""
        folders = set()
        for content in contents:
            path = self.path(content.seal().sha256)
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                folders.add(self._folder)
            content.move(path)
            folders.add(path.parent)
        for folder in folders:
            fsync_folder(folder)

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def all(self) -> Iterator[str]:
        """The sha256 of every object."""
        for folder in self._folder.iterdir():
            yield from (path.name for path in folder.iterdir() if is_sha256(path.name))

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A new content. What was not kept when the block ends is gone."""
        descriptor, name = tempfile.mkstemp(dir=self._incoming)
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield Incoming(self, file, path)
        finally:
            path.unlink(missing_ok=True)
