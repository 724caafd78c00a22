"""The repositories of a hub as artifacts: each read once for as long as its head stays."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from secondary_learners.server.api.access import Caller
from secondary_learners.server.judge import Material
from secondary_learners.server.pages.artifacts import Artifact, File, PageSource, read_artifact
from secondary_learners.server.pages.scoring import MATERIAL
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.trees import TreeEntry, entries

__all__ = ["Catalogue"]

_READ = ("config.json", "evaluation.json", "README.md")
_LARGEST_READ = 2**20
_LARGEST_SCORED = 256 * 2**20
_HISTORY = 100


class Catalogue:
    """What a caller may see of a hub, by name."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._lock = hub, threading.Lock()
        self._by_commit: dict[int, Artifact] = {}
        self._rows: Sequence[tuple[str, Artifact]] = ()  # each with its owner
        self._version = -1

    def refresh(self) -> None:
        """Read what has changed, so that nobody has to wait for it. Blocks."""
        self._current()

    def visible(self, caller: Caller) -> list[Artifact]:
        """Blocks where something has changed: use a thread."""
        return [
            artifact
            for owner, artifact in self._current()
            if not artifact.source.private or caller.belongs_to(owner)
        ]

    def find(self, caller: Caller, name: str) -> Artifact | None:
        """The artifact with its history, where the caller may see it."""
        for owner, artifact in self._current():
            if artifact.name == name:
                if artifact.source.private and not caller.belongs_to(owner):
                    return None
                history = self._history(name)
                return replace(artifact, source=replace(artifact.source, history=history))
        return None

    def material(self, caller: Caller, name: str) -> Material | None:
        """The files of the learner of this name, where they lie, each sound; None where not all
        are, or where the caller may not see it. Blocks.
        """
        owner, _, short = name.partition("/")
        row = self._hub.database.row(
            f"{_HEADS} WHERE repositories.kind = 'model' AND owner = ? AND repositories.name = ?",
            *(owner, short),
        )
        if row is None or (_is_hidden(row) and not caller.belongs_to(owner)):
            return None
        known = {file.path: file for file in entries(self._hub.database, row["commit_id"])}
        wanted = [known[path] for path in (*MATERIAL, "tokenizer.json") if path in known]
        objects = self._hub.objects
        if len(wanted) < len(MATERIAL) or sum(file.size for file in wanted) > _LARGEST_SCORED:
            return None
        if not all(objects.has(f.sha256, f.size) and objects.is_sound(f.sha256) for f in wanted):
            return None
        return Material(
            {file.path: objects.path(file.sha256) for file in wanted},
            {file.path: file.sha256 for file in wanted},
        )

    def _current(self) -> Sequence[tuple[str, Artifact]]:
        with self._lock:
            version = self._hub.database.version()
            if version != self._version:
                rows = self._hub.database.rows(f"{_HEADS} ORDER BY owner, repositories.name")
                known = self._by_commit
                self._by_commit = {
                    row["commit_id"]: known.get(row["commit_id"]) or self._read(row) for row in rows
                }
                self._rows = [(row["owner"], self._as_now(row)) for row in rows]
                self._version = version
            return self._rows

    def _as_now(self, row: sqlite3.Row) -> Artifact:
        """The commit's artifact under the name and the visibility that it has now."""
        artifact = self._by_commit[row["commit_id"]]
        hidden, name = _is_hidden(row), _name(row)
        source = artifact.source
        if (source.name, source.private) == (name, hidden):
            return artifact
        return replace(artifact, source=replace(source, name=name, private=hidden))

    def _read(self, row: sqlite3.Row) -> Artifact:
        files = entries(self._hub.database, row["commit_id"])
        by_path = {file.path: file for file in files}
        readers = {
            path: data
            for path in _READ
            if path in by_path and (data := self._content(by_path[path])) is not None
        }
        metadata = _metadata(row["card"])
        source = PageSource(
            name=_name(row),
            kind="data set" if row["kind"] == "dataset" else "",
            summary=str(metadata.get("summary") or "")[:300],
            date=row["date"],
            files=[File(file.path, file.size, file.etag) for file in files],
            readers=readers,
            private=_is_hidden(row),
        )
        artifact = read_artifact(source, metadata)
        return replace(artifact, source=replace(artifact.source, readers={}))

    def _content(self, file: TreeEntry) -> bytes | None:
        if file.size > _LARGEST_READ or not self._hub.objects.has(file.sha256, file.size):
            return None
        if not self._hub.objects.is_sound(file.sha256):
            return None
        return self._hub.objects.path(file.sha256).read_bytes()

    def _history(self, name: str) -> list[tuple[str, str, str]]:
        kind = "dataset" if name.startswith("datasets/") else "model"
        owner, _, short = name.removeprefix("datasets/").partition("/")
        rows = self._hub.database.rows(
            "WITH RECURSIVE line (id, steps) AS (SELECT commit_id, 0 FROM refs"
            " JOIN repositories ON repositories.id = refs.repository"
            " WHERE repositories.kind = ? AND owner = ? AND repositories.name = ?"
            " AND refs.name = 'main' UNION ALL SELECT commits.parent, steps + 1"
            " FROM line JOIN commits ON commits.id = line.id"
            " WHERE commits.parent IS NOT NULL AND steps < ?)"
            " SELECT oid, date, title FROM line JOIN commits ON commits.id = line.id"
            " ORDER BY steps",
            *(kind, owner, short, _HISTORY),
        )
        return [(row["oid"], row["date"], row["title"]) for row in rows]


_HEADS = """
SELECT repositories.kind, owner, repositories.name, private, gated, commit_id, card, date
FROM repositories JOIN refs ON refs.repository = repositories.id AND refs.name = 'main'
JOIN commits ON commits.id = refs.commit_id"""


def _is_hidden(row: sqlite3.Row) -> bool:
    return bool(row["private"] or row["gated"])


def _name(row: sqlite3.Row) -> str:
    prefix = "datasets/" if row["kind"] == "dataset" else ""
    return f"{prefix}{row['owner']}/{row['name']}"


def _metadata(card: str) -> Mapping[str, Any]:
    value = json.loads(card) if card else {}
    return value if isinstance(value, dict) else {}
