"""File contents, each kept once under its sha256: whole and on disk, or absent."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from secondary_learners.files import fsync_folder, sha256_file
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.disk import sync_files, sync_folders
from secondary_learners.server.store.names import is_sha256
from secondary_learners.server.store.soundness import Soundness

__all__ = ["MOST_IN_MEMORY", "Contents", "Incoming", "Objects", "Stored"]

_log = logging.getLogger(__name__)
_LIFETIME_S = 24 * 3600.0  # for how long an object that was hashed is not hashed again
MOST_IN_MEMORY = 16 * 2**20  # bytes of a commit's small files that are held before they are written


@dataclass(frozen=True)
class Stored:
    """A content: its sha256 in hex and its size in bytes."""

    sha256: str
    size: int


class Objects:
    """The folder of all contents: objects/ab/<sha256>, and incoming/ for what is not whole yet.

    What turns out not to be what its name says goes to damaged/, where nobody is served it: an
    object that is not there is asked for again when a client uploads.
    """

    def __init__(self, root: Path) -> None:
        self._folder, self._incoming = root / "objects", root / "incoming"
        self._damaged = root / "damaged"
        self.soundness = Soundness(_LIFETIME_S)
        self._turns = [threading.Lock() for _ in range(256)]
        for folder in (self._folder, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)

    def empty_incoming(self) -> None:
        """Drop what an earlier process left half-written. Only for the one process that serves."""
        shutil.rmtree(self._incoming)
        self._incoming.mkdir()

    def path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def has(self, sha256: str, size: int) -> bool:
        """Whether it is there with this size: a torn one is as good as none."""
        try:
            return self.path(sha256).stat().st_size == size
        except OSError:
            return False

    def is_sound(self, sha256: str, again: bool = False) -> bool:
        """Whether its bytes are what its name says; one that is not is set aside. Reads it all.

        One that was read lately is not read again unless `again`; several who ask at the same time
        wait for one reading.
        """
        with self._turns[int(sha256[:2], 16)]:
            with suppress(OSError):
                if not again and self.soundness.knows(sha256, self.path(sha256).stat()):
                    return True
            return self._read(sha256)

    def _read(self, sha256: str) -> bool:
        path = self.path(sha256)
        try:
            status = path.stat()
            sound = sha256_file(path) == sha256
        except FileNotFoundError:
            return False
        except OSError as error:  # the disk does not give it back
            _log.error("%s cannot be read: %s", path, error)
            sound = False
        if sound:
            self.soundness.trust(sha256, status)
        else:
            self.set_aside(sha256)
        return sound

    def set_aside(self, sha256: str) -> None:
        """Move a damaged object out of the way, to damaged/."""
        path = self.path(sha256)
        self.soundness.forget(sha256)
        self._damaged.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another thread was faster
            path.replace(self._damaged / sha256)
            _log.error("%s is damaged: it was moved to %s", path, self._damaged)

    def damaged_count(self) -> int:
        """How many lie in damaged/."""
        return sum(1 for _ in self._damaged.iterdir()) if self._damaged.is_dir() else 0

    def all(self) -> Iterator[str]:
        """The sha256 of every object."""
        for folder in sorted(self._folder.iterdir()):
            yield from sorted(path.name for path in folder.iterdir() if is_sha256(path.name))

    def remove(self, sha256: str) -> None:
        self.soundness.forget(sha256)
        self.path(sha256).unlink(missing_ok=True)

    def place(self, file: Path, sha256: str) -> set[Path]:
        """Rename a file that is on disk to an object. It replaces one that may be damaged.

        Returns the folders whose names have changed, which the caller brings to disk.
        """
        path, folders = self.path(sha256), {self.path(sha256).parent}
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.add(self._folder)
        file.replace(path)
        self.soundness.trust(sha256, path.stat())
        return folders

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

    def contents(self) -> Contents:
        """The small files of one commit. What was not kept when it is closed is gone."""
        return Contents(self, self._incoming)


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

    def write_through(self, data: bytes) -> None:
        """Write so that who reads the file sees it."""
        self.write(data)
        self._file.flush()

    def open_again(self) -> int:
        """A descriptor to read what was written through, and what will be. The caller closes it."""
        return os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def seal(self, expected: str | None = None) -> Stored:
        """Bring what was written to disk, and check it. Nothing can be written afterwards.

        Raises Refused 400 when the sha256 is not `expected`.
        """
        if self._sealed is None:
            received = self._digest.hexdigest()
            if expected not in (None, received):
                raise Refused(
                    400,
                    f"the bytes received have sha256 {received}, not {expected}. Send them again.",
                )
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._sealed = Stored(received, self.size)
        return self._sealed

    def keep(self, expected: str | None = None) -> Stored:
        """Seal, and make the content an object. It replaces an equal one, which may be damaged."""
        stored = self.seal(expected)
        for folder in self._objects.place(self._path, stored.sha256):
            fsync_folder(folder)
        return stored


class Contents:
    """Small contents on their way in: in memory at first, and brought to disk all at once."""

    def __init__(self, objects: Objects, incoming: Path) -> None:
        self._objects, self._incoming = objects, incoming
        self._folder: Path | None = None
        self._held: dict[str, bytes] = {}
        self._held_bytes = 0
        self._written: set[str] = set()

    def add(self, data: bytes) -> Stored:
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 not in self._held and sha256 not in self._written:
            self._held[sha256] = data
            self._held_bytes += len(data)
            if self._held_bytes > MOST_IN_MEMORY:
                self._spill()
        return Stored(sha256, len(data))

    def seal(self) -> None:
        """Bring all to disk, under temporary names."""
        self._spill()
        if self._folder is not None:
            sync_files([self._folder / sha256 for sha256 in self._written])

    def keep(self) -> None:
        """Make all of them objects, on disk when it returns. `seal` comes first."""
        folders: set[Path] = set()
        while self._written:
            sha256 = self._written.pop()
            assert self._folder is not None
            folders |= self._objects.place(self._folder / sha256, sha256)
        sync_folders(folders)

    def close(self) -> None:
        self._held.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def _spill(self) -> None:
        if self._held and self._folder is None:
            self._folder = Path(tempfile.mkdtemp(dir=self._incoming))
        while self._held:
            sha256, data = self._held.popitem()
            assert self._folder is not None
            (self._folder / sha256).write_bytes(data)
            self._written.add(sha256)
        self._held_bytes = 0
