"""What a commit asks for, applied to the files that are there. Pure: nothing is stored here."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.objects import Stored
from secondary_learners.server.store.oids import pointer_oid
from secondary_learners.server.store.trees import TreeEntry

__all__ = ["AddFile", "AddUpload", "Delete", "Operation", "Tree"]


@dataclass(frozen=True)
class AddFile:
    """A file sent inside the commit. `oid`: git's sha1 of it."""

    path: str
    stored: Stored
    oid: str


@dataclass(frozen=True)
class AddUpload:
    """A file uploaded before, by its sha256. `size`: what the client says it is, if it does."""

    path: str
    sha256: str
    size: int | None


@dataclass(frozen=True)
class Delete:
    """A file, or a folder with all that is in it."""

    path: str
    folder: bool


Operation = AddFile | AddUpload | Delete


class Tree:
    """The files of a commit in the making, by path."""

    def __init__(self, files: Sequence[TreeEntry], commit: int) -> None:
        """`files`: those of the head, by path. `commit`: the id of the new commit."""
        self._before = {file.path: file for file in files}
        self._files = dict(self._before)
        self._paths = [file.path for file in files]
        self._commit = commit

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, path: str) -> bool:
        return path in self._files

    def put(self, path: str, stored: Stored, oid: str | None) -> None:
        """`oid`: git's sha1 of a small file; None for a large one, which a pointer stands for."""
        lfs = oid is None
        oid = oid or pointer_oid(stored.sha256, stored.size)
        old = self._files.get(path)
        if old is not None and old.oid == oid:
            return
        if old is None:
            insort(self._paths, path)
        self._files[path] = TreeEntry(path, stored.sha256, stored.size, oid, lfs, self._commit)

    def delete(self, operation: Delete) -> None:
        """Raises Refused 404 EntryNotFound."""
        path = operation.path
        if operation.folder:
            first = bisect_left(self._paths, f"{path}/")
            last = bisect_left(self._paths, f"{path}0")  # "0" follows "/"
        else:
            first = bisect_left(self._paths, path)
            last = first + (path in self._files)
        if first == last:
            kind = "folder" if operation.folder else "file"
            message = f"A {kind} with this name doesn't exist: {path!r}."
            raise Refused(404, message, "EntryNotFound")
        for gone in self._paths[first:last]:
            del self._files[gone]
        del self._paths[first:last]

    def changed(self) -> list[tuple[str, TreeEntry | None]]:
        """(path, the new file, or None where it is gone) of all that is not as it was."""
        new = [(path, file) for path, file in self._files.items() if file.changed == self._commit]
        new = [(path, file) for path, file in new if not _same(self._before.get(path), file)]
        return [*new, *((path, None) for path in self._before if path not in self._files)]

    def all(self) -> list[TreeEntry]:
        return list(self._files.values())

    def check(self, paths: Iterable[str]) -> None:
        """Whether every disk can hold the new ones of `paths` beside all else. Raises Refused 400.

        A file cannot be a folder too, and some disks take names that differ in case, or in how an
        accent is written, for the same.
        """
        new = {path for path in paths if path in self._files and path not in self._before}
        if not new:
            return
        by_name: dict[str, str] = {}
        for path in self._files:
            other = by_name.setdefault(_folded(path), path)
            if other != path and not new.isdisjoint((path, other)):
                raise _clash(path, other)
        names = sorted(by_name)
        for path in new:
            name = _folded(path)
            parts = name.split("/")
            for count in range(1, len(parts)):
                if (above := by_name.get("/".join(parts[:count]))) is not None:
                    raise _clash(path, above)
            at = bisect_left(names, f"{name}/")
            if at < len(names) and names[at].startswith(f"{name}/"):
                raise _clash(path, by_name[names[at]])


def _clash(path: str, other: str) -> Refused:
    return Refused(
        400,
        f"{path!r} and {other!r} cannot both be in a repository: one is a folder of the other, or "
        "Windows and macOS take them for one name.",
    )


def _same(old: TreeEntry | None, new: TreeEntry) -> bool:
    return old is not None and old.oid == new.oid


def _folded(path: str) -> str:
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
