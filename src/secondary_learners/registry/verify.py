"""Hashing again what ships and what is cached: nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.files import sha256_file
from secondary_learners.registry.home import registries_folder
from secondary_learners.registry.index import Entry, find, read_index
from secondary_learners.registry.lock import read_lock
from secondary_learners.registry.pins import all_pins
from secondary_learners.registry.references import (
    FolderReference,
    NameReference,
    is_commit,
    parse_reference,
)
from secondary_learners.registry.registries import Shelf, read_registries, shelf, shelves
from secondary_learners.registry.remote import Remote, snapshot_folder
from secondary_learners.registry.requests import entry_request

__all__ = ["Finding", "verify"]


@dataclass(frozen=True)
class Finding:
    """One file: the sha256 that was recorded and by whom, and the one it has (None: missing)."""

    name: str
    file: str
    path: Path
    expected: str
    actual: str | None
    recorded_in: str

    @property
    def good(self) -> bool:
        return self.actual == self.expected


@dataclass(frozen=True)
class _Record:
    """Files that somebody recorded digests of, and the folder they are in."""

    name: str
    folder: Path
    files: Mapping[str, str]
    recorded_in: str
    complete: bool  # whether every file must be there, as in a bundle


def verify(names: Sequence[str] | None = None) -> list[Finding]:
    """A finding for every file that is here and recorded, in a registry, a lock or at first load.

    names: names and repositories; None for all that are known. A file that ships and is missing is
    a finding too; one that was not fetched, or an artifact that was never loaded, is not.
    """
    records = [*_entries(), *_locked(), *_pinned()] if names is None else _of(names)
    return [finding for record in records for finding in _findings(record)]


def _findings(record: _Record) -> Iterator[Finding]:
    for name in sorted(record.files):
        path = record.folder / name
        there = path.is_file()
        if there or record.complete:
            actual = sha256_file(path) if there else None
            yield Finding(record.name, name, path, record.files[name], actual, record.recorded_in)


def _of(names: Iterable[str]) -> list[_Record]:
    records: list[_Record] = []
    known = [*_locked(), *_pinned()]
    for name in names:
        reference = parse_reference(name)
        if isinstance(reference, FolderReference):
            raise SecondaryLearnersError(
                f"the folder {name} has no recorded digests. Give a name from `learners list`."
            )
        if isinstance(reference, NameReference):
            place = shelf(reference.registry)
            entry = find(reference.name, folder=place.index)
            records += _entry(place, entry)
            wanted = {f"{place.prefix}{entry.name}", name}
            records += [record for record in known if record.name in wanted]
        else:  # every commit that was loaded, unless one is named
            prefix = name if is_commit(reference.revision) else reference.repository
            records += [r for r in known if r.name == prefix or r.name.startswith(f"{prefix}@")]
    return records


def _entries() -> list[_Record]:
    return [
        record
        for place in shelves()
        for entry in read_index(place.index).values()
        for record in _entry(place, entry)
    ]


def _entry(place: Shelf, entry: Entry) -> list[_Record]:
    asked = entry_request(place, entry)
    registry = "registry" if place.registry is None else f"registry {place.registry.alias}"
    place_of = asked.folder or asked.remote
    return _record(asked.key, place_of, str(entry.revision), entry.files, registry)


def _locked() -> list[_Record]:
    records = []
    for key, pin in read_lock().items():
        place = _bundle(key) if pin.location == "bundled" else Remote(pin.location, pin.endpoint)
        records += _record(key, place, pin.commit, pin.files, "learners.lock")
    return records


def _bundle(key: str) -> Path:
    """Where the files of a name ship; of a registry that was removed, where they are missing."""
    reference = parse_reference(key)
    assert isinstance(reference, NameReference)  # `read_lock` has looked
    if reference.registry is not None and reference.registry not in read_registries():
        return registries_folder() / reference.registry / reference.name
    place = shelf(reference.registry, reference.name)
    return (place.bundled or place.index) / reference.name


def _pinned() -> list[_Record]:
    records = []
    for repository, endpoint, commit, files in all_pins():
        place = Remote(repository, endpoint)
        records += _record(f"{repository}@{commit}", place, commit, files, "first load")
    return records


def _record(
    name: str,
    place: Path | Remote | None,
    commit: str,
    files: Mapping[str, str],
    recorded_in: str,
) -> list[_Record]:
    """One record, of a bundle or of a repository; none when its files were never fetched."""
    if isinstance(place, Path):
        return [_Record(name, place, files, recorded_in, complete=True)]
    assert place is not None
    folder = snapshot_folder(place, commit)
    return [_Record(name, folder, files, recorded_in, complete=False)] if folder.is_dir() else []
