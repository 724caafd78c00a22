"""Bringing many new files to disk at once."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Collection
from pathlib import Path

from secondary_learners.files import fsync_folder

__all__ = ["sync_files", "sync_folders"]

_FEW = 16  # up to here each one on its own, which leaves other programs' files alone


def sync_files(paths: Collection[Path]) -> None:
    """Bring the contents of files in one file system to disk."""
    if len(paths) > _FEW and _sync_file_system(next(iter(paths))):
        return
    for path in paths:
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def sync_folders(folders: Collection[Path]) -> None:
    """Bring the names in folders of one file system to disk."""
    if len(folders) > _FEW and _sync_file_system(next(iter(folders))):
        return
    for folder in folders:
        fsync_folder(folder)


def _sync_file_system(path: Path) -> bool:
    """Everything in the file system of `path`, where the system has a call for that: Linux."""
    call = _syncfs()
    if call is None:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if call(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)
    return True


@functools.cache
def _syncfs() -> Callable[[int], int] | None:
    if os.name == "nt":
        return None
    call: Callable[[int], int] | None = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    return call
