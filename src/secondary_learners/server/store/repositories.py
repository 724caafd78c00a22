"""Repositories, their branches and tags, and the contents each one may commit."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.clock import now
from secondary_learners.server.store.database import Database
from secondary_learners.server.store.objects import Stored

__all__ = [
    "Commit",
    "Ref",
    "Repository",
    "create_ref",
    "delete_ref",
    "delete_repository",
    "find_commit",
    "find_moved",
    "find_repository",
    "free_name",
    "grant",
    "granted",
    "insert_repository",
    "list_refs",
    "owner_of",
    "repository_from",
    "unheld",
    "update_settings",
    "used_by",
]


@dataclass(frozen=True)
class Repository:
    """A row of repositories. `kind`: model or dataset. `gated`: "", "auto" or "manual"."""

    id: int
    kind: str
    owner: str
    name: str
    private: bool
    gated: str
    created: str
    modified: str

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True)
class Commit:
    """A row of commits. `card`: the README's metadata as JSON, or "" where there is none."""

    id: int
    oid: str
    parent: int | None
    author: str
    date: str
    title: str
    message: str
    card: str


@dataclass(frozen=True)
class Ref:
    """A branch or a tag, and the full oid it points to."""

    name: str
    kind: str
    oid: str


def find_repository(database: Database, kind: str, owner: str, name: str) -> Repository | None:
    row = database.row(
        "SELECT * FROM repositories WHERE kind = ? AND owner = ? AND name = ?", kind, owner, name
    )
    # Names are unique whatever their case, but are found only as they are written.
    if row is None or (row["owner"], row["name"]) != (owner, name):
        return None
    return repository_from(row)


def find_moved(database: Database, kind: str, owner: str, name: str) -> Repository | None:
    """The repository that was called so before, where none is now."""
    row = database.row(
        "SELECT repositories.* FROM moves JOIN repositories ON repositories.id = repository"
        " WHERE moves.kind = ? AND moves.owner = ? AND moves.name = ?",
        *(kind, owner, name),
    )
    return repository_from(row) if row is not None else None


def free_name(connection: sqlite3.Connection, kind: str, owner: str, name: str) -> None:
    """From now on the name leads to no repository that was called so before."""
    connection.execute(
        "DELETE FROM moves WHERE kind = ? AND owner = ? AND name = ?", (kind, owner, name)
    )


def repository_from(row: sqlite3.Row) -> Repository:
    return Repository(
        row["id"],
        row["kind"],
        row["owner"],
        row["name"],
        bool(row["private"]),
        row["gated"],
        row["created"],
        row["modified"],
    )


def insert_repository(
    connection: sqlite3.Connection, kind: str, owner: str, name: str, private: bool
) -> Repository:
    """A new repository without a commit. Raises Refused 409 when the name is in use."""
    date = now()
    free_name(connection, kind, owner, name)
    try:
        cursor = connection.execute(
            "INSERT INTO repositories (kind, owner, name, private, gated, created, modified)"
            " VALUES (?, ?, ?, ?, '', ?, ?)",
            (kind, owner, name, private, date, date),
        )
    except sqlite3.IntegrityError:
        raise Refused(409, f"You already created this {kind} repo: {owner}/{name}") from None
    assert cursor.lastrowid is not None
    return Repository(cursor.lastrowid, kind, owner, name, private, "", date, date)


def update_settings(
    connection: sqlite3.Connection, repository: int, private: bool | None, gated: str | None
) -> None:
    """Set what is not None."""
    connection.execute(
        "UPDATE repositories SET private = coalesce(?, private), gated = coalesce(?, gated)"
        " WHERE id = ?",
        (private, gated, repository),
    )


def delete_repository(connection: sqlite3.Connection, repository: int) -> list[str]:
    """Delete with all that belongs to it. Returns the sha256s that no repository holds any more."""
    held = connection.execute("SELECT sha256 FROM grants WHERE repository = ?", (repository,))
    contents = [row["sha256"] for row in held]
    connection.execute("DELETE FROM repositories WHERE id = ?", (repository,))
    return unheld(connection, contents)


def unheld(connection: sqlite3.Connection, contents: Iterable[bytes]) -> list[str]:
    """Those of the sha256s that no repository holds, in hex."""
    held = "SELECT 1 FROM grants WHERE sha256 = ?"
    return [
        sha256.hex()
        for sha256 in contents
        if connection.execute(held, (sha256,)).fetchone() is None
    ]


def grant(connection: sqlite3.Connection, repository: int, *contents: Stored) -> None:
    """Let `repository` commit these contents: their bytes came from someone who may write there.

    One that it holds counts as new again. Raises Refused 404 when the repository has been deleted.
    """
    try:
        connection.executemany(
            "INSERT INTO grants VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET added = excluded.added",
            [
                (bytes.fromhex(content.sha256), repository, content.size, int(time.time()))
                for content in contents
            ],
        )
    except sqlite3.IntegrityError:
        raise Refused(404, "The repository has been deleted.", "RepoNotFound") from None


def owner_of(connection: sqlite3.Connection, repository: int) -> str:
    sql = "SELECT owner FROM repositories WHERE id = ?"
    return str(connection.execute(sql, (repository,)).fetchone()["owner"])


def used_by(connection: sqlite3.Connection, owner: str) -> int:
    """The bytes that an owner's repositories hold: what two of them share counts twice."""
    (used,) = connection.execute(
        "SELECT coalesce(sum(bytes), 0) FROM repositories"
        " WHERE kind IN ('model', 'dataset') AND owner = ?",
        (owner,),
    ).fetchone()
    return int(used)


def granted(database: Database, repository: int, sha256: str) -> int | None:
    """The size of a content that `repository` holds, or None. What others hold does not count."""
    row = database.row(
        "SELECT size FROM grants WHERE repository = ? AND sha256 = ?",
        repository,
        bytes.fromhex(sha256),
    )
    return None if row is None else int(row["size"])


def find_commit(database: Database, repository: Repository, revision: str) -> Commit:
    """The commit a revision names: a full oid, a branch, a tag, refs/heads/…, refs/tags/…, or the
    first seven or more digits of one oid. Raises Refused 404 RevisionNotFound.
    """
    for sql, values in _ways(repository.id, revision):
        rows = database.rows(f"SELECT commits.* FROM commits {sql} LIMIT 2", *values)
        if len(rows) == 1:
            return Commit(*(rows[0][key] for key in _COMMIT_COLUMNS))
    raise Refused(
        404,
        f"{repository.full_name} has no branch, tag or commit {revision!r}.",
        "RevisionNotFound",
    )


_COMMIT_COLUMNS = ("id", "oid", "parent", "author", "date", "title", "message", "card")
_HEX = frozenset("0123456789abcdef")


def _ways(repository: int, revision: str) -> Iterable[tuple[str, tuple[object, ...]]]:
    by_oid = "WHERE repository = ? AND oid = ?"
    by_ref = "JOIN refs ON refs.commit_id = commits.id WHERE refs.repository = ? AND refs.name = ?"
    hexadecimal = set(revision) <= _HEX
    if len(revision) == 40 and hexadecimal:
        yield by_oid, (repository, revision)
        return
    yield by_ref, (repository, revision)
    for prefix, kind in (("refs/heads/", "branch"), ("refs/tags/", "tag")):
        if revision.startswith(prefix):
            name = revision.removeprefix(prefix)
            yield f"{by_ref} AND refs.kind = '{kind}'", (repository, name)
    if 7 <= len(revision) < 40 and hexadecimal:
        yield (
            "WHERE repository = ? AND oid >= ? AND oid < ?",
            (repository, revision, revision + "g"),
        )


def list_refs(database: Database, repository: int) -> list[Ref]:
    """By name, main first."""
    rows = database.rows(
        "SELECT refs.name, refs.kind, commits.oid FROM refs JOIN commits"
        " ON commits.id = refs.commit_id WHERE refs.repository = ?"
        " ORDER BY refs.name != 'main', refs.name",
        repository,
    )
    return [Ref(row["name"], row["kind"], row["oid"]) for row in rows]


def create_ref(
    connection: sqlite3.Connection, repository: int, kind: str, name: str, commit: int
) -> None:
    """Raises Refused 409 when a branch or a tag has this name: one name, one meaning."""
    row = connection.execute(
        "SELECT kind FROM refs WHERE repository = ? AND name = ?", (repository, name)
    ).fetchone()
    if row is not None:
        raise Refused(409, f"There is a {row['kind']} named {name!r} already.")
    try:
        connection.execute("INSERT INTO refs VALUES (?, ?, ?, ?)", (repository, name, kind, commit))
    except sqlite3.IntegrityError:
        raise Refused(404, "The repository has been deleted.", "RepoNotFound") from None


def delete_ref(connection: sqlite3.Connection, repository: int, kind: str, name: str) -> None:
    """Raises Refused 404 RevisionNotFound, 403 for main."""
    if (kind, name) == ("branch", "main"):
        raise Refused(403, "The branch main cannot be deleted.")
    deleted = connection.execute(
        "DELETE FROM refs WHERE repository = ? AND kind = ? AND name = ?", (repository, kind, name)
    ).rowcount
    if not deleted:
        raise Refused(404, f"There is no {kind} named {name!r}.", "RevisionNotFound")
