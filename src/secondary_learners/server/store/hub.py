"""What every handler works with."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.database import Database, make_root
from secondary_learners.server.store.limits import Limits
from secondary_learners.server.store.objects import Incoming, Objects, Stored
from secondary_learners.server.store.repositories import grant, owner_of, used_by

__all__ = ["Hub"]


@dataclass(frozen=True)
class Hub:
    """One storage root, open."""

    root: Path
    objects: Objects
    database: Database
    secret: bytes
    limits: Limits

    @classmethod
    def open(cls, root: Path, limits: Limits, older: bool = False) -> Hub:
        """Raises SecondaryLearnersError where the database does not explain the objects.

        `older`: take a database that is older than they are all the same.
        """
        make_root(root)
        database = Database(root / "hub.sqlite3", older)
        return cls(root, Objects(root), database, database.secret(), limits)

    def close(self) -> None:
        self.database.close()

    def keep(self, repository: int, incoming: Incoming, expected: str | None = None) -> Stored:
        """Make `incoming` an object that `repository` may commit. Blocks: call it in a thread.

        The object is on disk before the row that names it. Raises Refused 400 when the sha256 is
        not `expected`, 404 when the repository has been deleted meanwhile.
        """
        incoming.seal(expected)  # the slow part, outside the transaction
        with self.database.transaction() as connection:
            stored = incoming.keep()
            grant(connection, repository, stored)
            self.check_quota(connection, owner_of(connection, repository))
        return stored

    def check_quota(self, connection: sqlite3.Connection, owner: str, more: int = 0) -> None:
        """Raises Refused 403 when the owner's repositories hold more than they may with `more`."""
        quota = self.limits.quota_of(owner)
        if quota is None:
            return
        used = used_by(connection, owner) + more
        if used > quota:
            raise Refused(
                403,
                f"{owner!r} may store {quota / 1e9:.3f} GB here, and this would make "
                f"{used / 1e9:.3f} GB. Delete repositories or old files, or ask who runs the "
                "server for more.",
            )
