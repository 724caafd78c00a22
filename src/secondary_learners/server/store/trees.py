"""The files of a commit, as rows and in the shapes the client reads."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.database import Database
from secondary_learners.server.store.oids import folder_oids, pointer_size

__all__ = [
    "Row",
    "TreeEntry",
    "entries",
    "entries_in",
    "entry_from",
    "entry_view",
    "find_entry",
    "last_commits",
    "listing",
    "rows_to_read",
    "select",
    "sibling",
]


@dataclass(frozen=True)
class TreeEntry:
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
Row = tuple[str, str, Sequence[TreeEntry]]


def find_entry(database: Database, commit: int, path: str) -> TreeEntry | None:
    row = database.row(f"{_NEWEST} AND path = ? ORDER BY depth LIMIT 1", commit, path)
    return None if row is None or row["sha256"] is None else entry_from(row)


def entries(database: Database, commit: int, folder: str = "") -> list[TreeEntry]:
    """All files of a commit, or of one folder of it at any depth, by path."""
    if folder:
        rows = database.rows(
            f"{_NEWEST} AND path >= ? AND path < ? ORDER BY depth",
            commit,
            f"{folder}/",
            f"{folder}0",  # "0" follows "/"
        )
    else:
        rows = database.rows(f"{_NEWEST} ORDER BY depth", commit)
    return _tree(rows)


def entries_in(connection: sqlite3.Connection, commit: int) -> list[TreeEntry]:
    """The same of all files, as a transaction sees them."""
    return _tree(connection.execute(f"{_NEWEST} ORDER BY depth", (commit,)).fetchall())


def listing(database: Database, commit: int, folder: str, recursive: bool) -> list[Row]:
    """Everything in `folder`, by path. Raises Refused 404 EntryNotFound."""
    files = entries(database, commit, folder)
    if folder and not files:
        raise Refused(404, f"There is no folder {folder!r} in this revision.", "EntryNotFound")
    start = len(folder) + 1 if folder else 0
    below: dict[str, list[TreeEntry]] = {}
    rows: dict[str, Row] = {}
    for file in files:
        parts = file.path[start:].split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            below.setdefault(file.path[:start] + "/".join(parts[:depth]), []).append(file)
        if recursive or len(parts) == 1:
            rows[file.path] = (file.path, file.oid, (file,))
    if below:
        oids = folder_oids((file.path, file.oid) for file in files)
        rows |= {path: (path, oids[path], inside) for path, inside in below.items()}
    return [rows[path] for path in sorted(rows)]


def select(database: Database, commit: int, paths: Iterable[str]) -> list[Row]:
    """Those of the paths that are a file or a folder, in their order.

    Each file costs a look-up; folders, however many, one pass over all files.
    """
    files = {path: find_entry(database, commit, path) for path in paths}
    folders: dict[str, Row] = {}
    if any(path and file is None for path, file in files.items()):
        wanted = {path for path, file in files.items() if file is None}
        folders = _folders(entries(database, commit), wanted)
    rows: list[Row] = []
    for path, file in files.items():
        if file is not None:
            rows.append((path, file.oid, (file,)))
        elif path in folders:
            rows.append(folders[path])
    return rows


def _folders(files: Sequence[TreeEntry], wanted: set[str]) -> dict[str, Row]:
    """The folders of `files`, which are sorted by path, that are wanted, with what is in them."""
    paths = [file.path for file in files]
    inside = {}
    for path in wanted - {""}:
        first, last = bisect_left(paths, f"{path}/"), bisect_left(paths, f"{path}0")
        if first < last:
            inside[path] = files[first:last]
    if not inside:
        return {}
    oids = folder_oids((file.path, file.oid) for file in files)
    return {path: (path, oids[path], below) for path, below in inside.items()}


def last_commits(database: Database, commits: Iterable[int]) -> dict[int, dict[str, Any]]:
    """What `expand` shows of each commit, by its id."""
    wanted = sorted(set(commits))
    marks = ",".join("?" * len(wanted))
    rows = database.rows(f"SELECT * FROM commits WHERE id IN ({marks})", *wanted)
    return {
        row["id"]: {"id": row["oid"], "title": row["title"], "date": row["date"]} for row in rows
    }


def entry_view(path: str, oid: str, files: Sequence[TreeEntry]) -> dict[str, Any]:
    """A row of a tree: a file, or a folder where `files` are those below it."""
    (file, *others) = files
    if others or file.path != path:
        return {"type": "directory", "oid": oid, "size": 0, "path": path}
    view = {"type": "file", "oid": oid, "size": file.size, "path": path}
    if file.lfs:
        view["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": _pointer(file)}
    return view


def sibling(file: TreeEntry, blobs: bool) -> dict[str, Any]:
    """A row of a repository's `siblings`; with `blobs`, what it takes to compare the file."""
    if not blobs:
        return {"rfilename": file.path}
    view = {"rfilename": file.path, "size": file.size, "blobId": file.oid}
    if file.lfs:
        view["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": _pointer(file)}
    return view


def rows_to_read(connection: sqlite3.Connection, commit: int) -> int:
    """How many rows are read for all files of a commit."""
    (count,) = connection.execute(f"{_LINE} SELECT count(*) {_ENTRIES}", (commit,)).fetchone()
    return int(count)


# A commit's entries and those of the commits before it, as far as the one with its whole tree.
_LINE = """
WITH RECURSIVE line (id, parent, base, depth) AS (
    SELECT id, parent, base, 0 FROM commits WHERE id = ?
    UNION ALL
    SELECT commits.id, commits.parent, line.base, line.depth + 1
    FROM line JOIN commits ON commits.id = line.parent WHERE line.id != line.base
)"""
_ENTRIES = "FROM line CROSS JOIN entries ON entries.commit_id = line.id WHERE 1"
_NEWEST = f"{_LINE} SELECT path, sha256, size, entries.oid, lfs, changed {_ENTRIES}"


def entry_from(row: sqlite3.Row) -> TreeEntry:
    path, sha256, size, oid, lfs, changed = row
    return TreeEntry(path, sha256.hex(), size, oid.hex(), bool(lfs), changed)


def _tree(rows: Iterable[sqlite3.Row]) -> list[TreeEntry]:
    """The newest row of each path, without those that say it is gone."""
    newest: dict[str, sqlite3.Row] = {}
    for row in rows:
        newest.setdefault(row["path"], row)
    return [entry_from(newest[path]) for path in sorted(newest) if newest[path]["sha256"]]


def _pointer(file: TreeEntry) -> int:
    return pointer_size(file.sha256, file.size)
