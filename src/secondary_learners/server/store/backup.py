"""Copies of a storage root: taken while it is served, grown by what is new, and proved by hashing.

A backup is a folder with objects/ as in the root and databases/<date>.sqlite3, one a time it was
taken: each is a snapshot of its moment, and all objects it names are there. Nothing in it is ever
overwritten or deleted.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.files import atomic_path, sha256_file
from secondary_learners.server.store.clock import now
from secondary_learners.server.store.collection import keeping_objects
from secondary_learners.server.store.database import make_root
from secondary_learners.server.store.mark import Mark
from secondary_learners.server.store.objects import Stored

__all__ = ["Copied", "back_up", "restore"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Copied:
    """How many objects were copied, how many were there, and which could not be copied, and why."""

    database: str
    copied: int
    there: int
    failed: tuple[str, ...]


def back_up(root: Path, out: Path, verify: bool, progress: Progress) -> Copied:
    """Add the root, as it is now, to the backup `out`, which is made if need be.

    The database is copied first, and while the objects follow none of them goes. Each is hashed as
    it is copied; those that are there already are only when `verify`.
    """
    make_root(out)
    name = f"{now().replace(':', '').replace('-', '').replace('.', '')}.sqlite3"
    # It gets its name only at the end: what has a name is complete.
    with keeping_objects(root), _snapshot(root / "hub.sqlite3", out / "databases") as taken:
        stored = _contents(taken)
        copied, failed = _copy(stored, root, out, verify, progress)
        taken.replace(out / "databases" / name)
    return Copied(name, copied, len(stored) - copied - len(failed), tuple(failed))


def restore(backup: Path, root: Path, database: str | None, progress: Progress) -> Copied:
    """Make `root` what it was when the backup's `database` was taken: the newest, where None.

    Objects that lie in `root` stay. The database comes last, and only where there is none: what
    was broken off goes on. Raises SecondaryLearnersError for a root with a database in use.
    """
    snapshots = sorted((backup / "databases").glob("2*.sqlite3"))
    chosen = next((path for path in snapshots if database in (None, path.name, path.stem)), None)
    if database is None and snapshots:
        chosen = snapshots[-1]
    if chosen is None:
        names = ", ".join(path.stem for path in snapshots) or "none"
        what = f"{backup} has no database {database}" if database else f"{backup} is not a backup"
        raise SecondaryLearnersError(f"{what} (there are: {names}). Try `learners serve-backup`.")
    make_root(root)
    target = root / "hub.sqlite3"
    if target.exists() and target.stat().st_size > 0:
        raise SecondaryLearnersError(
            f"{root} has a database already: restore into another folder, or move {target.name} "
            "away (with its -wal and -shm) where you are sure."
        )
    stored = _contents(chosen)
    copied, failed = _copy(stored, backup, root, True, progress)
    for end in ("-wal", "-shm"):  # they would belong to another database
        target.with_name(target.name + end).unlink(missing_ok=True)
    with atomic_path(target) as temporary:
        shutil.copyfile(chosen, temporary)
    target.chmod(0o600)
    Mark(root).write(_written(target))
    return Copied(chosen.name, copied, len(stored) - copied - len(failed), tuple(failed))


@contextmanager
def _snapshot(database: Path, folder: Path) -> Iterator[Path]:
    """A copy of a database that may be written to meanwhile, on disk, for its owner alone."""
    if not database.is_file() or database.stat().st_size == 0:
        raise SecondaryLearnersError(f"{database.parent} holds no Hub. Try `learners serve`.")
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "taken.partial"
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with (
            closing(sqlite3.connect(database, timeout=30)) as source,
            closing(sqlite3.connect(path)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        yield path
    finally:
        path.unlink(missing_ok=True)


def _contents(database: Path) -> list[Stored]:
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?immutable=1", uri=True)) as read:
        rows = read.execute("SELECT DISTINCT sha256, size FROM grants ORDER BY sha256").fetchall()
    return [Stored(sha256.hex(), size) for sha256, size in rows]


def _written(database: Path) -> int:
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?immutable=1", uri=True)) as read:
        row = read.execute("SELECT value FROM settings WHERE key = 'written'").fetchone()
    return int(row[0])


def _copy(
    contents: list[Stored], source: Path, target: Path, verify: bool, progress: Progress
) -> tuple[int, list[str]]:
    """How many were copied from one objects/ to another, and what failed, in words."""
    copied, failed = 0, []
    for number, content in enumerate(contents, start=1):
        place = Path("objects") / content.sha256[:2] / content.sha256
        if not _is_there(target / place, content, verify):
            try:
                with atomic_path(target / place) as temporary:
                    shutil.copyfile(source / place, temporary)
                    if sha256_file(temporary) != content.sha256:
                        raise _Damaged
                copied += 1
            except FileNotFoundError:
                failed.append(f"{place} is missing")
            except _Damaged:
                failed.append(f"{place} is damaged")
        progress(number, len(contents))
    return copied, failed


class _Damaged(Exception):
    """A copy that is not what its name says: the original is not, or the disk is not sound."""


def _is_there(path: Path, content: Stored, verify: bool) -> bool:
    try:
        if path.stat().st_size != content.size:
            return False
    except FileNotFoundError:
        return False
    return not verify or sha256_file(path) == content.sha256
