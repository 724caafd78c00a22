"""ROOT/written: the number of the last change, beside the database that counts its changes.

A database that was put back from a copy counts fewer changes than were written here. Its objects
must not be taken for those that nobody names: see `check_explained`.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["Mark"]


class Mark:
    """It is written after a change is on disk, and so never runs ahead of its own database."""

    def __init__(self, root: Path) -> None:
        self._path = root / "written"

    def read(self) -> int | None:
        """The number; None where there is none, as in a folder of an earlier version."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        return int(text) if text.strip().isdigit() else None

    def write(self, number: int) -> None:
        """In place and without waiting for the disk: after a power cut it may be behind."""
        with suppress(OSError):  # a full disk: then it is behind too
            if not self._path.exists():
                self._path.touch(0o600)
            with self._path.open("r+b", buffering=0) as file:
                file.write(b"%020d\n" % number)
