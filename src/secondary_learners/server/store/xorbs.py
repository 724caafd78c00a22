"""Where xorbs lie until nobody needs them: xorbs/<user>/<folder>/<hash>.

The name of a folder is part of the address that a Xet client is given. The client remembers under
this address what it has sent, also in later processes and for every token on its machine, and
refers to it instead of sending it again. So each user has folders of their own, in which nobody
else's xorb can be named. And a folder can be dropped once its day is over and no upload uses it any
more: every later upload is given another address, and sends again what it needs.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from secondary_learners.files import fsync_folder
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.xet_formats import XetFormatError, Xorb, index_xorb

__all__ = ["XorbFolder", "drop_old_xorbs", "find_xorbs", "incoming_file", "xorbs_of_today"]

IDLE_S = 24 * 3600  # how long an upload may pause before its folder of an earlier day can go


class XorbFolder:
    """The xorbs that one user has sent to one address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        """The day it was put up and a random part: 20260131-0123456789abcdef."""
        return self._folder.name

    def keep(self, name: str, file: BinaryIO, path: Path) -> bool:
        """Check the xorb in `file`, which is at `path`, and put it in the folder as `name`.

        It replaces one of the same name: what a client sends again, it sends because the first did
        not do. Returns whether the name is new. Raises XetFormatError.
        """
        index_xorb(file)
        file.flush()
        os.fsync(file.fileno())
        target = self._folder / name
        new = not target.exists()
        try:
            path.replace(target)
        except FileNotFoundError:
            raise _no_xorbs(self.name) from None
        fsync_folder(self._folder)
        return new

    @contextmanager
    def xorb(self, name: str) -> Iterator[Xorb]:
        """Raises XetFormatError when there is none of this name."""
        try:
            file = (self._folder / name).open("rb")
        except FileNotFoundError:
            raise XetFormatError(f"xorb {name} has not been uploaded") from None
        with file:
            yield Xorb(file)


def xorbs_of_today(root: Path, user: str) -> XorbFolder:
    """The folder whose address a new upload of `user` is given. A new one makes old ones go."""
    folder = root / "xorbs" / user
    folder.mkdir(parents=True, exist_ok=True)
    today = _today()
    names = sorted(path.name for path in folder.iterdir() if path.name.startswith(today))
    if not names:
        drop_old_xorbs(root)
        names = [f"{today}-{secrets.token_hex(8)}"]
        (folder / names[0]).mkdir()
    return find_xorbs(root, user, names[0])


def find_xorbs(root: Path, user: str, name: str) -> XorbFolder:
    """A folder by its name, which from now on counts as used. Raises Refused 400."""
    if not name.replace("-", "").isalnum():  # a name could be a way out of the folder
        raise _no_xorbs(name)
    folder = root / "xorbs" / user / name
    try:
        os.utime(folder)
    except OSError:  # not there, or longer than a name can be
        raise _no_xorbs(name) from None
    return XorbFolder(folder)


def drop_old_xorbs(root: Path) -> None:
    """Remove the folders of earlier days that have not been used for a day."""
    for folder in (root / "xorbs").glob("*/*"):
        with suppress(FileNotFoundError):  # another thread was faster
            idle_s = time.time() - folder.stat().st_mtime
            if idle_s > IDLE_S and not folder.name.startswith(_today()):
                shutil.rmtree(folder)


@contextmanager
def incoming_file(root: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A temporary file, which goes when the block ends unless it has been moved.

    It is in the folder that the server empties when it starts.
    """
    descriptor, name = tempfile.mkstemp(dir=root / "incoming")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file, path
    finally:
        path.unlink(missing_ok=True)


def _today() -> str:
    return time.strftime("%Y%m%d", time.gmtime())


def _no_xorbs(name: str) -> Refused:
    return Refused(
        400,
        f"You have no folder {name[:40]!r} of xorbs: it is dropped when an upload pauses for more "
        "than a day. Start the upload again.",
    )
