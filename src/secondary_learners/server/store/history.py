"""Rewriting what is stored: one commit in place of many, another name, a copy, a file gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.clock import now
from secondary_learners.server.store.commits import insert_first_commit
from secondary_learners.server.store.database import Database
from secondary_learners.server.store.objects import Stored
from secondary_learners.server.store.repositories import (
    Repository,
    find_commit,
    free_name,
    grant,
    insert_repository,
    unheld,
)
from secondary_learners.server.store.trees import entries

__all__ = [
    "LargeFile",
    "committed",
    "delete_large_files",
    "duplicate_repository",
    "large_files",
    "move_repository",
    "squash",
]


@dataclass(frozen=True)
class LargeFile:
    """A content that a repository's commits name as a large file, and one of its paths."""

    sha256: str
    oid: str
    size: int
    path: str
    date: str


def squash(
    database: Database, repository: Repository, branch: str, author: str, title: str
) -> None:
    """Make the head of `branch` a commit without a past.

    The commits that only the old head led to are gone with what only they named, once it has aged
    out. Raises Refused 404 RevisionNotFound.
    """
    head = find_commit(database, repository, f"refs/heads/{branch}")
    files = entries(database, head.id)
    with database.transaction() as connection:
        ref = connection.execute(
            "SELECT commit_id FROM refs WHERE repository = ? AND name = ? AND kind = 'branch'",
            (repository.id, branch),
        ).fetchone()
        if ref is None or ref["commit_id"] != head.id:
            raise Refused(409, f"Someone has committed to {branch!r} meanwhile. Try again.")
        commit = insert_first_commit(connection, repository, author, files, title, head.card)
        connection.execute(
            "UPDATE refs SET commit_id = ? WHERE repository = ? AND name = ?",
            (commit, repository.id, branch),
        )
        connection.execute(
            f"DELETE FROM commits WHERE id IN ({_LINE_OF}) AND id NOT IN ({_REACHABLE})",
            (head.id, repository.id),
        )
        _touch(connection, repository.id)


_LINE_OF = """
WITH RECURSIVE line (id) AS (
    SELECT ? UNION SELECT commits.parent FROM line JOIN commits ON commits.id = line.id
    WHERE commits.parent IS NOT NULL
) SELECT id FROM line"""
_REACHABLE = """
WITH RECURSIVE line (id) AS (
    SELECT commit_id FROM refs WHERE repository = ?
    UNION SELECT commits.parent FROM line JOIN commits ON commits.id = line.id
    WHERE commits.parent IS NOT NULL
) SELECT id FROM line"""


def move_repository(
    connection: sqlite3.Connection, repository: Repository, owner: str, name: str
) -> None:
    """Give it another owner or name; the old one leads to it until another repository has it.

    Raises Refused 409 when the new one is in use.
    """
    free_name(connection, repository.kind, owner, name)
    try:
        connection.execute(
            "UPDATE repositories SET owner = ?, name = ? WHERE id = ?",
            (owner, name, repository.id),
        )
    except sqlite3.IntegrityError:
        raise Refused(409, f"There is a {repository.kind} {owner}/{name} already.") from None
    if (owner.lower(), name.lower()) != (repository.owner.lower(), repository.name.lower()):
        connection.execute(
            "INSERT OR REPLACE INTO moves VALUES (?, ?, ?, ?)",
            (repository.kind, repository.owner, repository.name, repository.id),
        )


def duplicate_repository(
    connection: sqlite3.Connection, source: Repository, owner: str, name: str, private: bool
) -> Repository:
    """A copy with every commit, branch and tag; no content is stored twice. Raises Refused 409."""
    copy = insert_repository(connection, source.kind, owner, name, private)
    connection.execute("UPDATE repositories SET gated = ? WHERE id = ?", (source.gated, copy.id))
    (offset,) = connection.execute("SELECT max(id) FROM commits").fetchone()
    connection.execute(
        "INSERT INTO commits SELECT id + ?1, ?2, oid, parent + ?1, base + ?1, depth, author, date,"
        " title, message, card FROM commits WHERE repository = ?3",
        (offset, copy.id, source.id),
    )
    connection.execute(
        "INSERT INTO entries SELECT commit_id + ?1, path, sha256, size, entries.oid, lfs,"
        " changed + ?1 FROM entries JOIN commits ON commits.id = commit_id"
        " WHERE commits.repository = ?2",
        (offset, source.id),
    )
    connection.execute(
        "INSERT INTO refs SELECT ?2, name, kind, commit_id + ?1 FROM refs WHERE repository = ?3",
        (offset, copy.id, source.id),
    )
    connection.execute(
        "INSERT INTO labels SELECT ?1, label FROM labels WHERE repository = ?2",
        (copy.id, source.id),
    )
    rows = connection.execute(
        "SELECT DISTINCT sha256, size FROM entries JOIN commits ON commits.id = commit_id"
        " WHERE repository = ? AND sha256 IS NOT NULL",
        (source.id,),
    )
    grant(connection, copy.id, *(Stored(row["sha256"].hex(), row["size"]) for row in rows))
    return copy


def committed(database: Database, repository: int) -> dict[str, int]:
    """The size of every content that a commit of the repository names, by its sha256."""
    rows = database.rows(
        "SELECT DISTINCT sha256, size FROM entries JOIN commits ON commits.id = commit_id"
        " WHERE repository = ? AND sha256 IS NOT NULL",
        repository,
    )
    return {row["sha256"].hex(): row["size"] for row in rows}


def large_files(database: Database, repository: int, after: str, limit: int) -> list[LargeFile]:
    """Those behind the sha256 `after`, by sha256, each with the date it was first committed."""
    rows = database.rows(
        "SELECT sha256, entries.oid, size, path, min(date) AS date FROM entries"
        " JOIN commits ON commits.id = commit_id"
        " WHERE repository = ? AND lfs AND sha256 > ? GROUP BY sha256 ORDER BY sha256 LIMIT ?",
        repository,
        bytes.fromhex(after),
        limit,
    )
    return [
        LargeFile(row["sha256"].hex(), row["oid"].hex(), row["size"], row["path"], row["date"])
        for row in rows
    ]


def delete_large_files(
    connection: sqlite3.Connection, repository: int, contents: Iterable[str], rewrite: bool
) -> list[str]:
    """Forget large files in every commit. Returns those sha256s that nobody holds any more.

    `rewrite`: their paths go from the commits too; else they stay, and lead nowhere.
    """
    held = set[bytes]()
    for sha256 in map(bytes.fromhex, contents):
        dropped = connection.execute(
            "DELETE FROM grants WHERE sha256 = ? AND repository = ? AND NOT EXISTS (SELECT 1 FROM"
            " entries JOIN commits ON commits.id = commit_id"
            " WHERE repository = grants.repository AND sha256 = grants.sha256 AND NOT lfs)",
            (sha256, repository),
        )
        if dropped.rowcount:
            held.add(sha256)
        if rewrite:
            connection.execute(
                "UPDATE entries SET sha256 = NULL, oid = NULL, size = 0 WHERE sha256 = ? AND lfs"
                " AND commit_id IN (SELECT id FROM commits WHERE repository = ?)",
                (sha256, repository),
            )
    _touch(connection, repository)
    return unheld(connection, held)


def _touch(connection: sqlite3.Connection, repository: int) -> None:
    connection.execute("UPDATE repositories SET modified = ? WHERE id = ?", (now(), repository))
