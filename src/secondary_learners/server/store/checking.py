"""Looking through a whole storage root: is every file there, whole, and what its name says?"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from secondary_learners.files import sha256_file
from secondary_learners.server.store.database import Database
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.names import is_sha256

__all__ = ["Defect", "check_root"]

_SHOWN_PLACES = 5


@dataclass(frozen=True)
class Defect:
    """Something that is not as it should be. `repaired`: what was done about it, or "".

    `kind`: database, missing (an entry without its object), damaged (an object that is not what its
    name says), stray (one that no repository holds) or foreign (a file of another name).
    """

    kind: str
    what: str
    detail: str
    repaired: str = ""

    @property
    def is_loss(self) -> bool:
        """Whether someone's file cannot be read as long as this lasts."""
        return self.kind in ("database", "missing", "damaged") and not self.repaired


def check_root(hub: Hub, repair: bool, progress: Callable[[int, int], None]) -> list[Defect]:
    """Hash every object and compare with what the database names.

    `repair`, for which no server may run: what is damaged goes to damaged/, strays go to strays/,
    and a missing object is put back from there where its bytes are right. Nothing is deleted.
    `progress` is called with the number of objects that were hashed, and of all.
    """
    problems = list(_database_problems(hub.database))
    names = list(hub.objects.all())
    held = {row["sha256"].hex(): row["size"] for row in hub.database.rows(_HELD)}
    for number, sha256 in enumerate(names, start=1):
        problems += _check_object(hub, sha256, sha256 in held, repair)
        progress(number, len(names))
    problems += _missing(hub, held, repair)
    problems += _foreign(hub.root / "objects")
    return problems


_HELD = "SELECT DISTINCT sha256, size FROM grants"


def _database_problems(database: Database) -> Iterator[Defect]:
    try:
        lines = [str(row[0]) for row in database.rows("PRAGMA integrity_check")]
        lines = [line for line in lines if line != "ok"]
        lines += [
            f"a row of {row[0]} leads to none of {row[2]}"
            for row in database.rows("PRAGMA foreign_key_check")
        ]
    except sqlite3.DatabaseError as error:
        lines = [str(error)]
    for line in lines:
        yield Defect("database", "hub.sqlite3", line)


def _check_object(hub: Hub, sha256: str, held: bool, repair: bool) -> Iterator[Defect]:
    path = hub.objects.path(sha256)
    what = f"objects/{sha256[:2]}/{sha256}"
    try:
        sound = sha256_file(path) == sha256
        size = path.stat().st_size
    except FileNotFoundError:
        return  # it went meanwhile
    except OSError as error:
        sound, size = False, 0
        detail = f"it cannot be read: {error.strerror}"
    else:
        detail = f"its {size:,} bytes are not what its name says"
    if not sound:
        if repair:
            hub.objects.set_aside(sha256)
            if held:
                return  # it is missing now, and said to be
        if held:
            detail += f": {_of(hub.database, sha256)}"
        yield Defect("damaged", what, detail, "moved to damaged/" if repair else "")
    elif not held:
        if repair:
            folder = hub.root / "strays"
            folder.mkdir(exist_ok=True)
            path.replace(folder / sha256)
        detail = f"{size:,} bytes that no repository holds"
        yield Defect("stray", what, detail, "moved to strays/" if repair else "")


def _missing(hub: Hub, held: dict[str, int], repair: bool) -> Iterator[Defect]:
    for sha256, size in held.items():
        if hub.objects.path(sha256).is_file():
            continue  # of another size: it was called damaged
        repaired = repair and _put_back(hub, sha256)
        detail = f"{size:,} bytes of {_of(hub.database, sha256)}"
        yield Defect(
            "missing", f"objects/{sha256[:2]}/{sha256}", detail, "put back" if repaired else ""
        )


def _put_back(hub: Hub, sha256: str) -> bool:
    for folder in ("strays", "damaged"):
        path = hub.root / folder / sha256
        if path.is_file() and sha256_file(path) == sha256:
            with hub.objects.incoming() as incoming, path.open("rb") as file:
                shutil.copyfileobj(file, incoming, 2**20)
                incoming.keep(sha256)
            return True
    return False


def _of(database: Database, sha256: str) -> str:
    """The files that have this content, in words."""
    rows = database.rows(
        "SELECT DISTINCT owner, name, path FROM entries"
        " JOIN commits ON commits.id = commit_id JOIN repositories ON repositories.id = repository"
        " WHERE sha256 = ? LIMIT ?",
        bytes.fromhex(sha256),
        _SHOWN_PLACES + 1,
    )
    places = [f"{row['owner']}/{row['name']}/{row['path']}" for row in rows]
    shown = [*places[:_SHOWN_PLACES], *(["…"] if len(places) > _SHOWN_PLACES else [])]
    return ", ".join(shown) or "an upload in no commit"


def _foreign(objects: Path) -> Iterator[Defect]:
    for path in sorted(objects.rglob("*")):
        if path.is_file() and not (is_sha256(path.name) and path.parent.name == path.name[:2]):
            what = str(path.relative_to(objects.parent))
            yield Defect("foreign", what, "a file that this server did not put here")
