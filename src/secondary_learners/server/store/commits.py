"""One commit: checked, applied to the head of a branch and written, or nothing at all."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.clock import now
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.metadata import labels
from secondary_learners.server.store.objects import Incoming, Stored
from secondary_learners.server.store.oids import pointer_oid
from secondary_learners.server.store.repositories import Repository, grant

__all__ = [
    "AddFile",
    "AddUpload",
    "Delete",
    "NewCommit",
    "Operation",
    "write_commit",
    "write_first_commit",
]


@dataclass(frozen=True)
class AddFile:
    """A file sent inside the commit. `oid`: git's sha1 of it."""

    path: str
    incoming: Incoming
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


@dataclass(frozen=True)
class NewCommit:
    """What is asked for. `parent`: the oid, or its first digits, the head must have, or None.

    `card`: the metadata of the README among the operations as JSON; None where there is none.
    """

    branch: str
    parent: str | None
    author: str
    title: str
    message: str
    operations: Sequence[Operation]
    card: str | None


def write_commit(hub: Hub, repository: Repository, new: NewCommit) -> str:
    """Write `new` and return its oid; where nothing would change, the head's. Blocks: use a thread.

    Raises Refused: 412 when `parent` is not the head, 404 for a branch or a deleted file that
    does not exist, 400 for contents this repository does not hold and paths in each other's way,
    413 for too many files.
    """
    sent = [entry.incoming for entry in new.operations if isinstance(entry, AddFile)]
    for incoming in sent:
        incoming.seal()  # to disk before the turn to write comes
    with hub.database.transaction() as connection:
        head = _head(connection, repository, new.branch)
        if new.parent is not None and not head["oid"].startswith(new.parent.lower()):
            raise Refused(
                412,
                f"The head of {new.branch!r} is {head['oid']}, not {new.parent}: someone has "
                "committed since. Fetch it and try again.",
            )
        commit = _insert(connection, repository, head, new)
        changes = [_apply(connection, hub, repository, commit, entry) for entry in new.operations]
        if not any(changes):
            connection.execute("DELETE FROM commits WHERE id = ?", (commit,))
            return str(head["oid"])
        _check_tree(connection, hub, commit, new.operations)
        _relabel(connection, repository, commit, new.branch)
        _move_head(connection, repository, new.branch, commit)
        hub.objects.keep(sent)  # whole on disk before the rows that name it
        row = connection.execute("SELECT oid FROM commits WHERE id = ?", (commit,)).fetchone()
        return str(row["oid"])


def write_first_commit(
    connection: sqlite3.Connection, repository: Repository, author: str, first: AddFile
) -> None:
    """The commit a repository is born with, on its branch main."""
    stored = first.incoming.seal()
    cursor = connection.execute(
        "INSERT INTO commits (repository, oid, parent, author, date, title, message, card)"
        " VALUES (?, ?, NULL, ?, ?, 'initial commit', '', '')",
        (repository.id, _new_oid(stored.sha256), author, now()),
    )
    connection.execute(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, 0, ?)",
        (cursor.lastrowid, first.path, stored.sha256, stored.size, first.oid, cursor.lastrowid),
    )
    connection.execute(
        "INSERT INTO refs VALUES (?, 'main', 'branch', ?)", (repository.id, cursor.lastrowid)
    )
    grant(connection, repository.id, stored)
    first.incoming.keep()


def _head(connection: sqlite3.Connection, repository: Repository, branch: str) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute(
        "SELECT commits.* FROM commits JOIN refs ON refs.commit_id = commits.id"
        " WHERE refs.repository = ? AND refs.name = ? AND refs.kind = 'branch'",
        (repository.id, branch),
    ).fetchone()
    if row is None:
        raise Refused(
            404,
            f"{repository.full_name} has no branch {branch!r}: commits go to branches.",
            "RevisionNotFound",
        )
    return row


def _insert(
    connection: sqlite3.Connection, repository: Repository, head: sqlite3.Row, new: NewCommit
) -> int:
    card = head["card"] if new.card is None else new.card
    oid = _new_oid(head["oid"], new.author, new.title, new.message)
    commit = connection.execute(
        "INSERT INTO commits (repository, oid, parent, author, date, title, message, card)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (repository.id, oid, head["id"], new.author, now(), new.title, new.message, card),
    ).lastrowid
    assert commit is not None
    connection.execute(
        "INSERT INTO entries SELECT ?, path, sha256, size, oid, lfs, changed FROM entries"
        " WHERE commit_id = ?",
        (commit, head["id"]),
    )
    return commit


def _apply(
    connection: sqlite3.Connection,
    hub: Hub,
    repository: Repository,
    commit: int,
    operation: Operation,
) -> bool:
    """Change the new commit's entries. Returns whether anything changed."""
    if isinstance(operation, Delete):
        return _delete(connection, commit, operation)
    if isinstance(operation, AddFile):
        stored = operation.incoming.seal()
        oid, lfs = operation.oid, False
        grant(connection, repository.id, stored)
    else:
        stored = _held(connection, hub, repository, operation)
        oid, lfs = pointer_oid(stored.sha256, stored.size), True
    cursor = connection.execute(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " sha256 = excluded.sha256, size = excluded.size, oid = excluded.oid, lfs = excluded.lfs,"
        " changed = excluded.changed WHERE oid != excluded.oid",
        (commit, operation.path, stored.sha256, stored.size, oid, lfs, commit),
    )
    return cursor.rowcount > 0


def _delete(connection: sqlite3.Connection, commit: int, operation: Delete) -> bool:
    if operation.folder:
        cursor = connection.execute(
            "DELETE FROM entries WHERE commit_id = ? AND path >= ? AND path < ?",
            (commit, f"{operation.path}/", f"{operation.path}0"),  # "0" follows "/"
        )
    else:
        cursor = connection.execute(
            "DELETE FROM entries WHERE commit_id = ? AND path = ?", (commit, operation.path)
        )
    if cursor.rowcount == 0:
        kind = "folder" if operation.folder else "file"
        raise Refused(
            404, f"A {kind} with this name doesn't exist: {operation.path!r}.", "EntryNotFound"
        )
    return True


def _held(
    connection: sqlite3.Connection, hub: Hub, repository: Repository, operation: AddUpload
) -> Stored:
    row = connection.execute(
        "SELECT size FROM grants WHERE repository = ? AND sha256 = ?",
        (repository.id, operation.sha256),
    ).fetchone()
    if row is None or not hub.objects.has(operation.sha256):
        raise Refused(
            400,
            f"{operation.path!r}: no content with sha256 {operation.sha256} has been uploaded to "
            f"{repository.full_name}. Upload it and commit again.",
        )
    if operation.size not in (None, row["size"]):
        raise Refused(
            400, f"{operation.path!r} has {row['size']} bytes, not {operation.size} as stated."
        )
    return Stored(operation.sha256, row["size"])


def _check_tree(
    connection: sqlite3.Connection, hub: Hub, commit: int, operations: Sequence[Operation]
) -> None:
    (count,) = connection.execute(
        "SELECT count(*) FROM entries WHERE commit_id = ?", (commit,)
    ).fetchone()
    if count > hub.limits.files_per_repository:
        raise Refused(413, f"A repository holds at most {hub.limits.files_per_repository:,} files.")
    for path in {operation.path for operation in operations if not isinstance(operation, Delete)}:
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        marks = ",".join("?" * len(above))
        taken = connection.execute(
            f"SELECT path FROM entries WHERE commit_id = ? AND (path IN ({marks})"
            " OR (path >= ? AND path < ?))",
            (commit, *above, f"{path}/", f"{path}0"),
        ).fetchone()
        if taken is not None:
            raise Refused(400, f"{path!r} and {taken['path']!r} cannot both be in a repository.")


def _relabel(
    connection: sqlite3.Connection, repository: Repository, commit: int, branch: str
) -> None:
    """The labels are those of main's card, without one when main has no README any more."""
    readme = connection.execute(
        "SELECT 1 FROM entries WHERE commit_id = ? AND path = 'README.md'", (commit,)
    ).fetchone()
    if readme is None:
        connection.execute("UPDATE commits SET card = '' WHERE id = ?", (commit,))
    if branch == "main":
        row = connection.execute("SELECT card FROM commits WHERE id = ?", (commit,)).fetchone()
        connection.execute("DELETE FROM labels WHERE repository = ?", (repository.id,))
        connection.executemany(
            "INSERT OR IGNORE INTO labels VALUES (?, ?)",
            [(repository.id, label) for label in labels(row["card"])],
        )


def _move_head(
    connection: sqlite3.Connection, repository: Repository, branch: str, commit: int
) -> None:
    connection.execute(
        "UPDATE refs SET commit_id = ? WHERE repository = ? AND name = ?",
        (commit, repository.id, branch),
    )
    connection.execute("UPDATE repositories SET modified = ? WHERE id = ?", (now(), repository.id))


def _new_oid(*parts: str) -> str:
    """40 hex digits like git's, drawn anew for every commit."""
    text = "\0".join((*parts, secrets.token_hex(16)))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
