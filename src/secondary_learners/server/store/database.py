"""The SQLite file: connections for reading, as many as are needed at once, and one for writing.

Readers see the last committed state at once, what another process (`learners serve-token`) wrote
included. Writers come one after the other. A commit is on disk before it is answered.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.server.store.mark import Mark
from secondary_learners.server.store.schema import migrate, prepare

__all__ = ["Database", "make_root", "plain_errors"]

_KEPT_READERS = 8


def make_root(root: Path) -> None:
    """Make the storage folder, if need be, for its owner alone: it holds private repositories."""
    root.parent.mkdir(parents=True, exist_ok=True)
    root.mkdir(mode=0o700, exist_ok=True)


class Database:
    """ROOT/hub.sqlite3, made when ROOT is new. Only its owner reads it: it holds the secret.

    Raises SecondaryLearnersError where it does not explain the objects that lie beside it: it is
    missing, empty, or older than what was last written there. `older`: take it all the same.
    """

    def __init__(self, path: Path, older: bool = False) -> None:
        self._path, self._mark = path, Mark(path.parent)
        if not path.exists() and _has_objects(path.parent):
            raise _unexplained(path, "there is no")
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        _keep_to_owner(path)
        with plain_errors(path):
            self._writer = _connect(path)
            try:
                migrate(self._writer, path)
                with self.transaction() as connection:
                    self._check(connection, older)
                self._versions = _connect(path)
            except BaseException:
                self._writer.close()
                raise

    def _check(self, connection: sqlite3.Connection, older: bool) -> None:
        mark = self._mark.read()
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            if mark or _has_objects(self._path.parent):
                raise _unexplained(self._path, "nothing is in")
            prepare(connection)
        sql = "SELECT value FROM settings WHERE key = 'written'"
        (written,) = connection.execute(sql).fetchone()
        nothing = connection.execute("SELECT 1 FROM grants LIMIT 1").fetchone() is None
        if mark is None and nothing and not older and _has_objects(self._path.parent):
            raise _unexplained(self._path, "no repository is in")
        if mark is not None and mark > written:
            if not older:
                raise _older(self._path, written, mark)
            connection.execute("UPDATE settings SET value = ? WHERE key = 'written'", (mark,))

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self.reading() as connection:
            return connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        with self.reading() as connection:
            row: sqlite3.Row | None = connection.execute(sql, values).fetchone()
        return row

    def version(self) -> int:
        """A number that changes whenever anyone, in any process, has committed a change."""
        return int(self._versions.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The only way to write: all of the block or nothing, on disk when it ends.

        It waits for its turn, so an event loop calls it in a thread.
        """
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                (written,) = self._writer.execute(
                    "UPDATE settings SET value = value + 1 WHERE key = 'written' RETURNING value"
                ).fetchone()
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            self._mark.write(written)

    def secret(self) -> bytes:
        """32 random bytes, drawn when the file was made, that sign links across restarts."""
        row = self.row("SELECT value FROM settings WHERE key = 'secret'")
        assert row is not None
        return bytes(row["value"])

    def close(self) -> None:
        for connection in (*self._idle, self._versions, self._writer):
            connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for one question. It goes back, or goes when enough lie idle."""
        try:
            connection = self._idle.pop()  # atomic, as append is: threads take turns
        except IndexError:
            connection = _connect(self._path)
        try:
            yield connection
        finally:
            if len(self._idle) < _KEPT_READERS:
                self._idle.append(connection)
            else:
                connection.close()


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """What SQLite cannot do with the file, as SecondaryLearnersError with what to do about it."""
    try:
        yield
    except sqlite3.OperationalError as error:
        message = (
            f"{path}: {error}. Is the disk full, or the folder not yours? Nothing was changed."
        )
        raise SecondaryLearnersError(message) from error
    except sqlite3.DatabaseError as error:
        raise SecondaryLearnersError(
            f"{path} is damaged: {error}. Nothing was changed. Move it away (with its -wal and "
            f"-shm) and restore the last backup: `learners serve-restore BACKUP {path.parent}`."
        ) from error


def _has_objects(root: Path) -> bool:
    return next((root / "objects").glob("*/*"), None) is not None


def _unexplained(path: Path, what: str) -> SecondaryLearnersError:
    return SecondaryLearnersError(
        f"{path.parent} holds objects, and {what} database ({path.name}) that says whose they are. "
        f"Nothing was changed. Put the database back, or restore one with `learners serve-restore "
        f"BACKUP {path.parent}`; to begin anew, choose another folder."
    )


def _older(path: Path, written: int, mark: int) -> SecondaryLearnersError:
    return SecondaryLearnersError(
        f"{path} is older than what was last written here: it has {written:,} changes, there were "
        f"{mark:,}. Nothing was changed. Put the newest database back. Where that is lost, "
        f"`learners serve-check {path.parent} --repair` goes on from this one, and deletes nothing."
    )


def _keep_to_owner(path: Path) -> None:
    """Mode 0600 for the file, which SQLite gives to those it makes beside it, and for old ones.

    An existing file is not opened: closing it would let go of SQLite's locks in this process.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        file = path.with_name(name)
        # Another user's file, which that user lets a group use, stays as it is.
        with suppress(FileNotFoundError, PermissionError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection
