"""Registries of other teams: a folder or a Hub repository with the same TOML files, by an alias.

A snapshot of the files is kept under `registries_folder()/ALIAS/`, next to the record of where it
is from and of every digest. Names are looked up in the snapshot, and change only when it does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from secondary_learners.artifacts.records import read_record
from secondary_learners.content import content
from secondary_learners.errors import (
    ArtifactError,
    DigestMismatchError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.files import (
    atomic_folder,
    json_bytes,
    sha256_bytes,
    sha256_file,
    write_json,
)
from secondary_learners.registry.guard import alone
from secondary_learners.registry.home import registries_folder
from secondary_learners.registry.index import Entry, read_index
from secondary_learners.registry.lock import are_digests
from secondary_learners.registry.references import FolderReference, is_repository, parse_reference

__all__ = [
    "EntryChange",
    "Registry",
    "Shelf",
    "add_registry",
    "read_registries",
    "read_registry",
    "remove_registry",
    "shelf",
    "shelves",
    "update_registry",
]

_ALIAS = re.compile(r"[a-z0-9][a-z0-9-]*")
_ENDPOINT = re.compile(r"https?://\S+(?<!/)")
_GUARD = "registries"  # for whoever changes one
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Registry:
    """One added registry.

    source: the absolute path of a folder, or a model repository "owner/name". endpoint: the Hub of
    that repository and of the entries that name none; "" for the one huggingface_hub is set to.
    token_env: the environment variable with the token for that Hub. commit: of the repository when
    the snapshot was taken. files: the sha256 of each TOML file.
    """

    alias: str
    source: str
    endpoint: str = ""
    token_env: str = ""
    commit: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        return Path(self.source).is_absolute()

    @property
    def token(self) -> str | None:
        return os.environ.get(self.token_env) or None


@dataclass(frozen=True)
class EntryChange:
    """What an update does to one name: an entry before and after; None where there is none."""

    name: str
    before: Entry | None
    after: Entry | None


@dataclass(frozen=True)
class Shelf:
    """A folder of entries and the folder of what ships with them; `registry` None for our own."""

    registry: Registry | None
    index: Path
    bundled: Path | None

    @property
    def prefix(self) -> str:
        return "" if self.registry is None else f"{self.registry.alias}:"


def shelf(alias: str | None, name: str | None = None) -> Shelf:
    """Our own shelf (None) or an added one, its snapshot compared with its digests first.

    name: the only entry that will be read, if it is there; the others are then not compared.
    Raises UnknownNameError for an alias that was not added, and DigestMismatchError.
    """
    if alias is None:
        return Shelf(None, content("registry"), content("learners"))
    registry = read_registry(alias)
    return Shelf(registry, _checked_snapshot(registry, name), _bundled(registry))


def shelves() -> list[Shelf]:
    """Our own shelf and every added one."""
    return [shelf(alias) for alias in (None, *read_registries())]


def read_registries() -> dict[str, Registry]:
    """Every added registry by its alias, sorted."""
    paths = sorted((registries_folder()).glob("*/registry.json"))
    return {path.parent.name: _read(path) for path in paths}


def read_registry(alias: str) -> Registry:
    """Raises UnknownNameError, which suggests the near ones."""
    path = registries_folder() / alias / "registry.json"
    if not _ALIAS.fullmatch(alias) or not path.is_file():
        raise UnknownNameError(
            "registry", alias, read_registries(), f"learners registry add {alias} SOURCE"
        )
    return _read(path)


def add_registry(alias: str, source: str, *, endpoint: str = "", token_env: str = "") -> Registry:
    """Fetch the entries of `source` and remember them as `alias`.

    source: a folder, or a model repository "owner/name" on the Hub at `endpoint`; its TOML files
    are in the folder registry/ or at the top. Raises ArtifactError for entries that are not sound,
    and SecondaryLearnersError for an alias that is taken.
    """
    _need(
        _ALIAS.fullmatch(alias), f"{alias!r} is not an alias: use lower-case letters, digits and -."
    )
    _refuse_taken(alias)
    endpoint = endpoint.rstrip("/")
    _need(
        not endpoint or _ENDPOINT.fullmatch(endpoint),
        f"{endpoint!r} is not an address. Give one such as https://hub.example.org.",
    )
    _need(
        not token_env or _VARIABLE.fullmatch(token_env),
        "the token variable must be the name of an environment variable, such as TEAM_HUB_TOKEN, "
        "and not the token itself.",
    )
    place = parse_reference(source)
    folder = place.path if isinstance(place, FolderReference) else Path(source)
    if isinstance(place, FolderReference) or folder.is_dir():  # a plain word is not a name here
        source = str(folder.resolve())
    else:
        _need(
            is_repository(source),
            f"{source!r} is neither a folder nor a repository owner/name (without a revision).",
        )
    registry = Registry(alias=alias, source=source, endpoint=endpoint, token_env=token_env)
    registry, texts = _fetch(registry)
    with alone(_GUARD):
        _refuse_taken(alias)  # by another process in the meantime
        _keep(registry, texts)
    return registry


def _refuse_taken(alias: str) -> None:
    if alias in read_registries():
        raise SecondaryLearnersError(
            f"there is a registry {alias!r} already. Try `learners registry update {alias}`, or "
            f"`learners registry remove {alias}` first."
        )


def update_registry(
    alias: str, accept: Callable[[Registry, Sequence[EntryChange]], bool]
) -> Registry | None:
    """Fetch again; what is new is kept when `accept(the new state, the changes)` says so.

    Returns the registry as it then is, or None when the changes were not accepted.
    """
    before = read_registry(alias)
    after, texts = _fetch(before)
    if after == before and _is_sound(before):
        return before
    folder = _snapshot(before)
    known = read_index(folder) if _is_sound(before) else {}
    with tempfile.TemporaryDirectory() as name:
        fresh = _entries(after, texts, Path(name))
    changes = [
        EntryChange(name, known.get(name), fresh.get(name))
        for name in sorted({*known, *fresh})
        if known.get(name) != fresh.get(name)
    ]
    if not accept(after, changes):
        return None
    with alone(_GUARD):
        if read_registry(alias) != before:
            raise SecondaryLearnersError(
                f"another process changed the registry {alias!r} meanwhile, and nothing was kept. "
                f"Try `learners registry update {alias}` again."
            )
        _keep(after, texts)
        # The last one stays for whoever has begun to read it; those before it go.
        for old in set(folder.parent.iterdir()) - {_snapshot(after), folder}:
            if old.is_dir():
                shutil.rmtree(old, ignore_errors=True)
    return after


def remove_registry(alias: str) -> None:
    """Forget a registry; what was loaded from it stays in the cache."""
    with alone(_GUARD):
        read_registry(alias)
        folder = registries_folder() / alias
        (folder / "registry.json").unlink()  # first: without it there is none
        shutil.rmtree(folder)


def _need(good: object, message: str) -> None:
    if not good:
        raise SecondaryLearnersError(f"{message} See `learners registry --help`.")


def _fetch(registry: Registry) -> tuple[Registry, dict[str, bytes]]:
    """The registry as its source now is, and the text of each of its files, all checked."""
    if registry.is_folder:
        commit, texts = "", _read_folder(Path(registry.source))
    else:
        commit, texts = _read_repository(registry)
    if not texts:
        raise ArtifactError(
            f"{registry.source} has no entries: a registry holds TOML files in registry/ or at "
            "its top, as `learners publish` prints them."
        )
    with tempfile.TemporaryDirectory() as name:
        entries = _entries(registry, texts, Path(name))
    for entry in entries.values():
        shipped = _bundled(registry)
        if entry.location == "bundled" and not (shipped and (shipped / entry.name).is_dir()):
            raise ArtifactError(
                f"the entry {entry.name!r} of {registry.source} says that it is bundled, and "
                "there is no such folder in learners/. Publish it and correct its location."
            )
    digests = {name: sha256_bytes(text) for name, text in texts.items()}
    return replace(registry, commit=commit, files=digests), texts


def _entries(registry: Registry, texts: Mapping[str, bytes], folder: Path) -> dict[str, Entry]:
    for name, text in texts.items():
        (folder / name).write_bytes(text)
    try:
        return read_index(folder)
    except ArtifactError as error:
        reason = str(error).replace(f"{folder}{os.sep}", "")
        raise ArtifactError(f"the registry {registry.source} is not sound: {reason}") from error


def _read_folder(source: Path) -> dict[str, bytes]:
    folder = source / "registry" if (source / "registry").is_dir() else source
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.toml"))}


def _read_repository(registry: Registry) -> tuple[str, dict[str, bytes]]:
    from secondary_learners.registry.remote import Remote, download, inspect, keep_named

    hint = f"the variable {registry.token_env}" if registry.token_env else "--token-env VARIABLE"
    remote = Remote(registry.source, registry.endpoint, registry.token, hint)
    listing = inspect(remote, None)
    for prefix in ("registry/", ""):
        names = [
            name
            for name in listing.files
            if name.startswith(prefix)
            and name.endswith(".toml")
            and "/" not in name.removeprefix(prefix)
        ]
        if names:
            folder = download(remote, listing.commit, names)
            keep_named(remote, "main", listing.commit)
            return listing.commit, {Path(name).name: (folder / name).read_bytes() for name in names}
    return listing.commit, {}


def _bundled(registry: Registry) -> Path | None:
    folder = Path(registry.source) / "learners"
    return folder if registry.is_folder and folder.is_dir() else None


def _snapshot(registry: Registry) -> Path:
    """Named by its content, so that the record beside it always belongs to a whole snapshot."""
    digest = sha256_bytes(json_bytes(dict(registry.files)))[:16]
    return registries_folder() / registry.alias / digest


def _keep(registry: Registry, texts: Mapping[str, bytes]) -> None:
    folder = _snapshot(registry)
    if folder.exists() and not _is_sound(registry):
        shutil.rmtree(folder)
    if not folder.exists():
        with atomic_folder(folder) as temporary:
            for name, text in texts.items():
                (temporary / name).write_bytes(text)
    record = asdict(registry)
    del record["alias"]
    write_json(folder.parent / "registry.json", record)


def _read(path: Path) -> Registry:
    alias = path.parent.name

    def damaged(reason: str) -> ArtifactError:
        return ArtifactError(
            f"{path} is damaged: {reason} Delete the folder {path.parent} and add the registry "
            f"again: `learners registry add {alias} SOURCE`."
        )

    try:
        values = {**json.loads(path.read_bytes()), "alias": alias}
    except (ValueError, TypeError) as error:  # not JSON, or not a table
        raise damaged(f"{error}.") from error
    registry = read_record(Registry, values, path.name, damaged)
    if not are_digests(registry.files):
        raise damaged("it has no table of digests.")
    return registry


def _is_sound(registry: Registry) -> bool:
    try:
        _checked_snapshot(registry)
    except DigestMismatchError:
        return False
    return True


def _checked_snapshot(registry: Registry, only: str | None = None) -> Path:
    folder = _snapshot(registry)
    if f"{only}.toml" in registry.files:
        names = {f"{only}.toml"}
    else:
        names = {path.name for path in folder.glob("*.toml")} | set(registry.files)
    for name in sorted(names):
        path, expected = folder / name, registry.files.get(name)
        actual = sha256_file(path) if path.is_file() else None
        if actual != expected:
            raise DigestMismatchError.of(
                path,
                expected,
                actual,
                f"Fetch the registry again with `learners registry update {registry.alias}`.",
            )
    return folder
