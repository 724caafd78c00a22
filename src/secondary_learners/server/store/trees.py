"""The files of a commit, as rows and in the shapes the client reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.database import Database
from secondary_learners.server.store.oids import folder_oids, pointer_size

__all__ = [
    "Entry",
    "Row",
    "entries",
    "entry_view",
    "find_entry",
    "last_commits",
    "listing",
    "sibling",
]


@dataclass(frozen=True)
class Entry:
    """A file in a commit. `oid`: git's sha1. `changed`: the id of the commit that wrote it last."""

    path: str
    sha256: str
    size: int
    oid: str
    lfs: bool
    changed: int

    @property
    def etag(self) -> str:
        """What the client names its cached copy by: the sha256 of large files, else git's sha1."""
        return self.sha256 if self.lfs else self.oid


# (path, oid, files): a file with itself, a folder with all files below it.
Row = tuple[str, str, Sequence[Entry]]


def find_entry(database: Database, commit: int, path: str) -> Entry | None:
    row = database.row(f"{_SELECT} WHERE commit_id = ? AND path = ?", commit, path)
    return None if row is None else _entry(row)


def entries(database: Database, commit: int, folder: str = "") -> list[Entry]:
    """All files of a commit, or of one folder of it at any depth, by path."""
    if folder:
        rows = database.rows(
            f"{_SELECT} WHERE commit_id = ? AND path >= ? AND path < ? ORDER BY path",
            commit,
            f"{folder}/",
            f"{folder}0",  # "0" follows "/"
        )
    else:
        rows = database.rows(f"{_SELECT} WHERE commit_id = ? ORDER BY path", commit)
    return [_entry(row) for row in rows]


def listing(database: Database, commit: int, folder: str, recursive: bool) -> list[Row]:
    """Everything in `folder`, by path. Raises Refused 404 EntryNotFound."""
    files = entries(database, commit, folder)
    if folder and not files:
        raise Refused(404, f"There is no folder {folder!r} in this revision.", "EntryNotFound")
    start = len(folder) + 1 if folder else 0
    below: dict[str, list[Entry]] = {}
    found: dict[str, Row] = {}
    for file in files:
        parts = file.path[start:].split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            below.setdefault(file.path[:start] + "/".join(parts[:depth]), []).append(file)
        if recursive or len(parts) == 1:
            found[file.path] = (file.path, file.oid, (file,))
    if below:
        oids = folder_oids((file.path, file.oid) for file in files)
        found |= {path: (path, oids[path], inside) for path, inside in below.items()}
    return [found[path] for path in sorted(found)]


def last_commits(database: Database, commits: Iterable[int]) -> dict[int, dict[str, Any]]:
    """What `expand` shows of each commit, by its id."""
    wanted = sorted(set(commits))
    marks = ",".join("?" * len(wanted))
    rows = database.rows(f"SELECT * FROM commits WHERE id IN ({marks})", *wanted)
    return {
        row["id"]: {"id": row["oid"], "title": row["title"], "date": row["date"]} for row in rows
    }


def entry_view(path: str, oid: str, files: Sequence[Entry]) -> dict[str, Any]:
    """A row of a tree: a file, or a folder where `files` are those below it."""
    (file, *others) = files
    if others or file.path != path:
        return {"type": "directory", "oid": oid, "size": 0, "path": path}
    view = {"type": "file", "oid": oid, "size": file.size, "path": path}
    if file.lfs:
        view["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": _pointer(file)}
    return view


def sibling(file: Entry, blobs: bool) -> dict[str, Any]:
    """A row of a repository's `siblings`; with `blobs`, what it takes to compare the file."""
    if not blobs:
        return {"rfilename": file.path}
    view = {"rfilename": file.path, "size": file.size, "blobId": file.oid}
    if file.lfs:
        view["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": _pointer(file)}
    return view


_SELECT = "SELECT path, sha256, size, oid, lfs, changed FROM entries"


def _entry(row: sqlite3.Row) -> Entry:
    path, sha256, size, oid, lfs, changed = row
    return Entry(path, sha256, size, oid, bool(lfs), changed)


def _pointer(file: Entry) -> int:
    return pointer_size(file.sha256, file.size)
