"""Files that are either whole or absent: temporary file, fsync, rename. And their digests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "atomic_folder",
    "atomic_path",
    "fsync_folder",
    "git_sha1",
    "held_alone",
    "json_bytes",
    "sha256_bytes",
    "sha256_file",
    "write_bytes",
    "write_json",
]


_UMASK = os.umask(0)  # there is no other way to read it, and later ones may be of other threads
os.umask(_UMASK)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well.

    On any exception (a full disk, an interrupt) the temporary file goes and `path` stays as it was.
    A link stays a link, and what it leads to is replaced; a file keeps its mode; what is not a
    regular file (a device, a FIFO) stays one, and is written to.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG | (0o666 & ~_UMASK)
    beside = path.parent if stat.S_ISREG(mode) else None
    handle, name = tempfile.mkstemp(dir=beside, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if beside is None:
            with temporary.open("rb") as source, path.open("wb", buffering=0) as target:
                shutil.copyfileobj(source, target)
            return
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(stat.S_IMODE(mode))
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder`, which must not exist, when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(folder)
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def fsync_folder(folder: Path) -> None:
    """Bring the names in `folder` to disk: a rename is not there for good before."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def json_bytes(value: Any) -> bytes:
    """`value` as the one JSON spelling used here: sorted keys, two spaces, no NaN."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, json_bytes(value))


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(source: Path | bytes) -> str:
    """What git, and so a Hub for small files, calls these bytes or those of this file."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    if isinstance(source, bytes):
        digest.update(source)
    else:
        with source.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def held_alone(lock: Path, busy: Exception, **options: Any) -> Iterator[None]:
    """Hold a lock file while the block runs; the system lets go of it even after a SIGKILL.

    Raises `busy` while another process holds it. options: of `filelock.FileLock`.
    """
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, **options)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise busy from error
    try:
        yield
    finally:
        held.release()
