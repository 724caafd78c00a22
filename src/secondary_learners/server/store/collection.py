"""What nobody names any more goes, after a time of grace and never while a backup is made."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.repositories import unheld

__all__ = ["Collected", "collect_strays", "collect_uploads", "drop_objects", "keeping_objects"]

_AT_ONCE = 1000  # objects between two turns of other writers


@dataclass(frozen=True)
class Collected:
    """How many went, and their bytes."""

    count: int = 0
    bytes: int = 0


@contextmanager
def keeping_objects(root: Path) -> Iterator[None]:
    """While the block runs, in this process or another, no object of `root` goes."""
    with FileLock(root / "keeping.lock", mode=0o600):
        yield


def collect_uploads(hub: Hub, grace_s: float) -> Collected:
    """Drop what was uploaded longer than `grace_s` ago and is in no commit of its repository."""
    before = int(time.time() - grace_s)
    collected = Collected()
    for row in hub.database.rows("SELECT id FROM repositories"):
        repository = int(row["id"])
        if not hub.database.rows(f"{_UNUSED} LIMIT 1", repository, before, repository):
            continue
        with hub.database.transaction() as connection:
            values = (repository, before, repository)
            unused = connection.execute(_UNUSED, values).fetchall()
            connection.executemany(
                "DELETE FROM grants WHERE sha256 = ? AND repository = ?",
                [(row["sha256"], repository) for row in unused],
            )
            gone = unheld(connection, [row["sha256"] for row in unused])
        dropped = drop_objects(hub, gone)
        collected = Collected(collected.count + dropped.count, collected.bytes + dropped.bytes)
    return collected


_UNUSED = """
SELECT sha256 FROM grants WHERE repository = ? AND added < ? AND sha256 NOT IN (
    SELECT sha256 FROM entries JOIN commits ON commits.id = entries.commit_id
    WHERE commits.repository = ? AND sha256 IS NOT NULL
)"""


def collect_strays(hub: Hub, grace_s: float) -> Collected:
    """Drop the objects that no repository holds and that were not touched for `grace_s`.

    A process that was killed between moving a file and naming it, or between forgetting it and
    removing it, leaves them.
    """
    before = time.time() - grace_s
    strays = []
    for sha256 in hub.objects.all():
        held = hub.database.row("SELECT 1 FROM grants WHERE sha256 = ?", bytes.fromhex(sha256))
        if held is None and hub.objects.path(sha256).stat().st_mtime < before:
            strays.append(sha256)
    return drop_objects(hub, strays)


def drop_objects(hub: Hub, contents: Iterable[str]) -> Collected:
    """Remove those of the sha256s that no repository holds; none while a backup is made."""
    wanted, count, size = list(contents), 0, 0
    lock = FileLock(hub.root / "keeping.lock", mode=0o600)
    try:
        with lock.acquire(blocking=False):
            for at in range(0, len(wanted), _AT_ONCE):
                with hub.database.transaction() as connection:  # no one commits what goes
                    some = (bytes.fromhex(sha256) for sha256 in wanted[at : at + _AT_ONCE])
                    for sha256 in unheld(connection, some):
                        path = hub.objects.path(sha256)
                        if path.exists():
                            size += path.stat().st_size
                            count += 1
                            hub.objects.remove(sha256)
    except Timeout:
        pass  # they are strays now, which go another time
    return Collected(count, size)
