"""Commits of another hub, kept here under their own oids."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.commits import insert_entries, set_labels
from secondary_learners.server.store.database import Database
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.objects import Contents, Stored
from secondary_learners.server.store.repositories import (
    Repository,
    find_repository,
    grant,
    insert_repository,
)
from secondary_learners.server.store.trees import TreeEntry

__all__ = ["ForeignCommit", "is_local_namespace", "keep_commit", "mirrored"]


@dataclass(frozen=True)
class ForeignCommit:
    """A commit as the other hub describes it. `revision`: by which name it was asked for.

    `contents`: its small files, which are here already. The large ones come when they are read.
    """

    oid: str
    revision: str
    date: str
    files: Sequence[TreeEntry]
    card: str
    contents: Contents


def is_local_namespace(database: Database, owner: str) -> bool:
    """Whether a user or organization of this hub has the name: nobody else's files appear in it."""
    return database.row("SELECT 1 FROM namespaces WHERE name = ?", owner) is not None


def mirrored(database: Database, kind: str, owner: str, name: str) -> Repository | None:
    """The repository, where it was begun as a mirror."""
    repository = find_repository(database, kind, owner, name)
    return None if repository is None or is_local_namespace(database, owner) else repository


def keep_commit(hub: Hub, kind: str, owner: str, name: str, commit: ForeignCommit) -> None:
    """Keep `commit`, and let its revision lead to it. Blocks: use a thread."""
    commit.contents.seal()
    with hub.database.transaction() as connection:
        repository = find_repository(hub.database, kind, owner, name)
        if repository is None:
            repository = insert_repository(connection, kind, owner, name, False)
        row = connection.execute(
            "SELECT id FROM commits WHERE repository = ? AND oid = ?", (repository.id, commit.oid)
        ).fetchone()
        number = int(row["id"]) if row else _insert(connection, repository, commit)
        _lead_to(connection, repository.id, commit, number)
        if not row:
            commit.contents.keep()
        hub.check_quota(connection, owner)


def _insert(connection: sqlite3.Connection, repository: Repository, commit: ForeignCommit) -> int:
    number = connection.execute(
        "INSERT INTO commits (repository, oid, parent, base, depth, author, date, title, message,"
        " card) VALUES (?, ?, NULL, 0, 0, ?, ?, 'As it is upstream', '', ?)",
        (repository.id, commit.oid, repository.owner, commit.date, commit.card),
    ).lastrowid
    assert number is not None
    connection.execute("UPDATE commits SET base = id WHERE id = ?", (number,))
    insert_entries(connection, number, ((file.path, file) for file in commit.files))
    contents = {file.sha256: Stored(file.sha256, file.size) for file in commit.files}
    grant(connection, repository.id, *contents.values())
    return number


def _lead_to(
    connection: sqlite3.Connection, repository: int, commit: ForeignCommit, number: int
) -> None:
    """main leads somewhere always: to the first commit that was asked for, if not by that name."""
    sql = "INSERT INTO refs VALUES (?, ?, 'branch', ?)"
    if commit.revision != commit.oid:
        sql += " ON CONFLICT DO UPDATE SET commit_id = excluded.commit_id"
        connection.execute(sql, (repository, commit.revision, number))
    if commit.revision == "main":
        connection.execute(
            "UPDATE repositories SET modified = ? WHERE id = ?", (commit.date, repository)
        )
        set_labels(connection, repository, commit.card)
    elif commit.revision == commit.oid:
        try:
            connection.execute(f"{sql} ON CONFLICT DO NOTHING", (repository, "main", number))
        except sqlite3.IntegrityError:
            raise Refused(404, "The repository has been deleted.", "RepoNotFound") from None
