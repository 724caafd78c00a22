"""One commit: checked, applied to the head of a branch and written, or nothing at all."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.changes import AddFile, AddUpload, Delete, Operation, Tree
from secondary_learners.server.store.clock import now
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.metadata import labels
from secondary_learners.server.store.objects import Contents, Stored
from secondary_learners.server.store.repositories import Repository, grant
from secondary_learners.server.store.trees import TreeEntry, entries_in, rows_to_read

__all__ = ["NewCommit", "insert_entries", "insert_first_commit", "set_labels", "write_commit"]

_LONGEST_LINE = 100  # commits between one with its whole tree and the next
_FEW_ROWS = 1000  # so many to read cost nothing


@dataclass(frozen=True)
class NewCommit:
    """What is asked for. `parent`: the oid, or its first digits, the head must have, or None.

    `contents`: the files sent inside it. `card`: the metadata of the README among the operations
    as JSON; None where there is none.
    """

    branch: str
    parent: str | None
    author: str
    title: str
    message: str
    operations: Sequence[Operation]
    contents: Contents
    card: str | None


def write_commit(hub: Hub, repository: Repository, new: NewCommit) -> str:
    """Write `new` and return its oid; where nothing would change, the head's. Blocks: use a thread.

    Raises Refused: 412 when `parent` is not the head, 404 for a branch or a deleted file that
    does not exist, 400 for contents this repository does not hold and paths in each other's way,
    413 for too many files.
    """
    new.contents.seal()  # to disk before the turn to write comes
    with hub.database.transaction() as connection:
        head = _head(connection, repository, new.branch)
        if new.parent is not None and not head["oid"].startswith(new.parent.lower()):
            raise Refused(
                412,
                f"The head of {new.branch!r} is {head['oid']}, not {new.parent}: someone has "
                "committed since. Fetch it and try again.",
            )
        commit, oid = _insert(connection, repository, head, new)
        tree = Tree(entries_in(connection, head["id"]), commit)
        for operation in new.operations:
            _apply(connection, hub, repository, tree, operation)
        changed = tree.changed()
        if not changed:
            connection.execute("DELETE FROM commits WHERE id = ?", (commit,))
            return str(head["oid"])
        if len(tree) > hub.limits.files_per_repository:
            most = hub.limits.files_per_repository
            raise Refused(413, f"A repository holds at most {most:,} files.")
        tree.check(operation.path for operation in new.operations)
        _write_entries(connection, commit, tree, changed)
        sent = [entry.stored for entry in new.operations if isinstance(entry, AddFile)]
        grant(connection, repository.id, *sent)
        hub.check_quota(connection, repository.owner)
        _relabel(connection, repository, commit, new.branch, "README.md" in tree)
        _move_head(connection, repository, new.branch, commit)
        new.contents.keep()  # whole on disk before the rows that name it
        return oid


def insert_first_commit(
    connection: sqlite3.Connection,
    repository: Repository,
    author: str,
    files: Iterable[TreeEntry],
    title: str = "initial commit",
    card: str = "",
) -> int:
    """A commit of `files` before which there is none; no branch leads to it yet. Returns its id."""
    commit = connection.execute(
        "INSERT INTO commits (repository, oid, parent, base, depth, author, date, title, message,"
        " card) VALUES (?, ?, NULL, 0, 0, ?, ?, ?, '', ?)",
        (repository.id, _new_oid(repository.full_name), author, now(), title, card),
    ).lastrowid
    assert commit is not None
    connection.execute("UPDATE commits SET base = id WHERE id = ?", (commit,))
    rows = ((file.path, replace(file, changed=commit)) for file in files)
    insert_entries(connection, commit, rows)
    return commit


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
) -> tuple[int, str]:
    card = head["card"] if new.card is None else new.card
    oid = _new_oid(head["oid"], new.author, new.title, new.message)
    base, depth = head["base"], head["depth"] + 1
    values = (repository.id, oid, head["id"], base, depth, new.author, now(), new.title)
    commit = connection.execute(
        "INSERT INTO commits (repository, oid, parent, base, depth, author, date, title, message,"
        " card) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, new.message, card),
    ).lastrowid
    assert commit is not None
    return commit, oid


def _apply(
    connection: sqlite3.Connection,
    hub: Hub,
    repository: Repository,
    tree: Tree,
    operation: Operation,
) -> None:
    if isinstance(operation, Delete):
        tree.delete(operation)
    elif isinstance(operation, AddFile):
        tree.put(operation.path, operation.stored, operation.oid)
    else:
        tree.put(operation.path, _held(connection, hub, repository, operation), None)


def _held(
    connection: sqlite3.Connection, hub: Hub, repository: Repository, operation: AddUpload
) -> Stored:
    row = connection.execute(
        "SELECT size FROM grants WHERE sha256 = ? AND repository = ?",
        (bytes.fromhex(operation.sha256), repository.id),
    ).fetchone()
    if row is None or not hub.objects.has(operation.sha256, row["size"]):
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


def _write_entries(
    connection: sqlite3.Connection,
    commit: int,
    tree: Tree,
    changed: Sequence[tuple[str, TreeEntry | None]],
) -> None:
    """What the commit changed; from time to time its whole tree, which nobody reads on from."""
    (depth,) = connection.execute("SELECT depth FROM commits WHERE id = ?", (commit,)).fetchone()
    rows = rows_to_read(connection, commit) + len(changed)
    if depth > _LONGEST_LINE or rows > 2 * len(tree) + _FEW_ROWS:
        connection.execute("UPDATE commits SET base = id, depth = 0 WHERE id = ?", (commit,))
        changed = [(file.path, file) for file in tree.all()]
    insert_entries(connection, commit, changed)


def insert_entries(
    connection: sqlite3.Connection, commit: int, rows: Iterable[tuple[str, TreeEntry | None]]
) -> None:
    connection.executemany(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (commit, path, None, 0, None, 0, commit)
            if file is None
            else (
                commit,
                path,
                bytes.fromhex(file.sha256),
                file.size,
                bytes.fromhex(file.oid),
                file.lfs,
                file.changed,
            )
            for path, file in rows
        ),
    )


def _relabel(
    connection: sqlite3.Connection,
    repository: Repository,
    commit: int,
    branch: str,
    has_readme: bool,
) -> None:
    """The labels are those of main's card, without one when main has no README any more."""
    if not has_readme:
        connection.execute("UPDATE commits SET card = '' WHERE id = ?", (commit,))
    if branch == "main":
        (card,) = connection.execute("SELECT card FROM commits WHERE id = ?", (commit,)).fetchone()
        set_labels(connection, repository.id, card)


def set_labels(connection: sqlite3.Connection, repository: int, card: str) -> None:
    """What the repository is found by: `card` is the metadata of main's README."""
    connection.execute("DELETE FROM labels WHERE repository = ?", (repository,))
    connection.executemany(
        "INSERT OR IGNORE INTO labels VALUES (?, ?)",
        [(repository, label) for label in labels(card)],
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
