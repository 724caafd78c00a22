"""Reading the files of an artifact: regular ones alone, and none larger than it can be."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from secondary_learners.artifacts.layout import FILES
from secondary_learners.errors import ArtifactError

__all__ = ["read_file", "size_of"]

_MB = 2**20
_MOST = {"evaluation.json": 64 * _MB, "model.safetensors": 4096 * _MB}
_MOST_OTHERS = 8 * _MB
_MOST_HEADER = 2 * _MB  # of a safetensors file: some 20,000 tensors


def read_file(path: Path, *, remedy: str = "") -> bytes:
    """The bytes of a file of an artifact.

    Raises ArtifactError for one that is missing, is not a regular file (a FIFO would never end), or
    is larger than any that an artifact has; before it is read.
    """
    with _opened(path, remedy) as file:
        if path.name.endswith(".safetensors"):
            _check_header(path, file.read(8), os.fstat(file.fileno()).st_size)
            file.seek(0)
        return file.read()


def size_of(path: Path) -> int:
    """The bytes of a file of an artifact, which are not read; raises as `read_file`."""
    with _opened(path, "") as file:
        return os.fstat(file.fileno()).st_size


def _opened(path: Path, remedy: str) -> BinaryIO:
    try:
        # Not blocking, so that a FIFO nobody writes to is opened at once, and refused.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read ({error.strerror}); an artifact has the files "
            f"{', '.join(FILES)}. {remedy or _again(path)}"
        ) from error
    status = os.fstat(descriptor)
    most = _MOST.get(path.name, _MOST_OTHERS)
    if stat.S_ISREG(status.st_mode) and status.st_size <= most:
        return open(descriptor, "rb")
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(f"{path} is not a regular file. {remedy or _again(path)}")
    raise ArtifactError(
        f"{path} has {status.st_size:,} bytes, and such a file has at most {most:,}. "
        f"{remedy or _again(path)}"
    )


def _check_header(path: Path, begin: bytes, whole: int) -> None:
    """Raise ArtifactError where a safetensors file that begins so has too many tensors to parse."""
    size = int.from_bytes(begin, "little")
    if _MOST_HEADER < size < whole:  # of one that is cut short, the parser says it best
        raise ArtifactError(
            f"{path} has a header of {size:,} bytes, and such a file has one of at most "
            f"{_MOST_HEADER:,}. {_again(path)}"
        )


_BINARY = getattr(os, "O_BINARY", 0)  # of Windows


def _again(path: Path) -> str:
    folder = path.parent
    return f"Get the folder again from where it came, and try `learners show {folder}`."
