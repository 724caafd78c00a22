"""The index: one TOML file for each learner and base model, read as plain frozen data."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from secondary_learners.artifacts.kinds import artifact_kind, artifact_kinds
from secondary_learners.artifacts.records import as_values, read_record, read_toml, record_toml
from secondary_learners.content import content
from secondary_learners.errors import ArtifactError, UnknownNameError
from secondary_learners.registry.references import is_commit, is_repository

__all__ = ["Entry", "Sort", "entry_toml", "find", "list_learners", "read_index", "sort_key"]

Sort = Literal["name", "size", "added"]

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_FILE = re.compile(r"\w[\w.-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._/-]*)?(?<!/)")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the registry; raises ArtifactError naming the field that is wrong.

    base, tokenizer: names of models. A base model has no base and no objective ("").
    location: "bundled", or a repository on a Hub, and then `revision` is a full commit.
    endpoint: the address of that Hub; "" for the one that huggingface_hub is set to.
    aliases: older names, which still work, each with the reason for the change.
    deprecated: why it should no longer be used, and what to use instead; "" for most.
    size: of all files, in bytes. files: the sha256 of each.
    """

    name: str
    kind: str
    summary: str
    base: str = ""
    tokenizer: str
    corpus: str
    objective: str = ""
    architecture: str
    optimizer: str
    license: str
    location: str
    revision: str | None = None
    endpoint: str = ""
    deprecated: str = ""
    aliases: dict[str, str] = dataclasses.field(default_factory=dict)
    added: date
    size: int
    files: dict[str, str]

    def __post_init__(self) -> None:
        def need(good: bool, field: str, what: str) -> None:
            if not good:
                raise ArtifactError(
                    f"registry entry {self.name!r}: the field {field!r} must be {what}, and is "
                    f"{getattr(self, field)!r}. Correct registry/{self.name}.toml."
                )

        need(_is_name(self.name), "name", "lower-case words joined by - . or _")
        kinds = {kind.kind: kind for kind in artifact_kinds()}
        need(self.kind in kinds, "kind", " or ".join(map(repr, kinds)))
        optional = (*_OPTIONAL, *kinds[self.kind].absent)
        for field in _TEXTS:
            value = getattr(self, field)
            stated = isinstance(value, str) and (value != "" or field in optional)
            need(stated, field, "a string")
            need(not _CONTROL.search(value), field, "one line without control characters")
        if self.location == "bundled":
            need(self.revision is None, "revision", "absent for what is bundled")
            need(self.endpoint == "", "endpoint", "absent for what is bundled")
        else:
            need(is_repository(self.location), "location", "'bundled' or a repository owner/name")
            commit = isinstance(self.revision, str) and is_commit(self.revision)
            need(commit, "revision", "a full commit of 40 hexadecimal digits")
            url = not self.endpoint or _ENDPOINT.fullmatch(self.endpoint) is not None
            need(url, "endpoint", "an address such as https://hub.example.org")
        need(
            isinstance(self.aliases, dict)
            and all(_is_name(name) and _is_text(why) for name, why in self.aliases.items()),
            "aliases",
            "a table of older names and the reason for each change",
        )
        need(type(self.added) is date, "added", "a date such as 2026-01-31")
        need(type(self.size) is int and self.size >= 0, "size", "a number of bytes")
        need(
            isinstance(self.files, dict)
            and bool(self.files)
            and all(_is_file(name, digest) for name, digest in self.files.items()),
            "files",
            "a table of plain file names and their sha256",
        )


_TEXTS = (
    "summary",
    "base",
    "tokenizer",
    "corpus",
    "objective",
    "architecture",
    "optimizer",
    "license",
    "location",
    "endpoint",
    "deprecated",
)
_OPTIONAL = ("endpoint", "deprecated")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_file(name: object, digest: object) -> bool:
    return (
        isinstance(name, str)
        and _FILE.fullmatch(name) is not None
        and isinstance(digest, str)
        and _SHA256.fullmatch(digest) is not None
    )


def read_index(folder: Path | None = None) -> dict[str, Entry]:
    """Every entry by name, sorted; from the registry of this installation unless told otherwise.

    Raises ArtifactError for a file that is not an entry, or a name that means two things.
    """
    paths = sorted((content("registry") if folder is None else folder).glob("*.toml"))
    entries = {path.stem: _read_entry(path) for path in paths}
    taken = dict.fromkeys(entries, "a name")
    for entry in entries.values():
        for alias in entry.aliases:
            if alias in taken:
                raise ArtifactError(
                    f"registry entry {entry.name!r}: the alias {alias!r} is already "
                    f"{taken[alias]}. Correct registry/{entry.name}.toml."
                )
            taken[alias] = f"an alias of {entry.name!r}"
    return dict(sorted(entries.items()))


def _read_entry(path: Path) -> Entry:
    return _parse_entry(path.read_bytes(), path)


@lru_cache(4096)  # by content: a file that is edited is parsed again
def _parse_entry(text: bytes, path: Path) -> Entry:
    where = str(path)
    entry = read_record(Entry, read_toml(text, where, _incorrect), where, _incorrect)
    if entry.name != path.stem:
        raise ArtifactError(
            f"{path} holds the entry {entry.name!r}. "
            f"Try `mv {path} {path.parent / entry.name}.toml`."
        )
    return entry


def _incorrect(reason: str) -> ArtifactError:
    return ArtifactError(f"{reason} Correct it.")


def find(name: str, *, kind: str | None = None, folder: Path | None = None) -> Entry:
    """The entry with this name or alias, of this kind of artifact or any.

    Raises UnknownNameError, which suggests the near names. An alias gives a FutureWarning with
    the reason, and so does an entry that is deprecated.
    """
    entry = _find(name, kind, content("registry") if folder is None else folder)
    if name != entry.name:
        _warn(f"{name!r} is now called {entry.name!r}: {entry.aliases[name]}")
    if entry.deprecated:
        _warn(f"{entry.name!r} should no longer be used: {entry.deprecated}")
    return entry


def _find(name: str, kind: str | None, folder: Path) -> Entry:
    path = folder / f"{name}.toml"
    if _is_name(name) and path.is_file():  # the others need not be read
        entry = _read_entry(path)
        if kind in (None, entry.kind):
            return entry
    entries = [entry for entry in read_index(folder).values() if kind in (None, entry.kind)]
    for entry in entries:
        if name in entry.aliases:
            return entry
    what = artifact_kind(kind or "learner").name
    raise UnknownNameError(what, name, [entry.name for entry in entries], "learners list")


def _warn(text: str) -> None:
    warnings.warn(text, FutureWarning, stacklevel=3)


def list_learners(
    *,
    kind: str = "learner",
    base: str | None = None,
    corpus: str | None = None,
    architecture: str | None = None,
    sort: Sort = "name",
    folder: Path | None = None,
) -> list[Entry]:
    """The learners, or artifacts of another kind, whose fields equal all the values given.

    Args:
        kind: Of artifact: "learner", "delta" or "base-model".
        base: The base model's name.
        corpus: The corpus's name.
        architecture: "linear" or "conv"; of a delta "layers" or "mask".
        sort: By "name", by "size" (small ones first) or by when they were "added" (new ones first).
        folder: Of registry files; by default those of this installation.

    Returns:
        The entries, sorted.

    Raises:
        ArtifactError: For a file that is not an entry, or a name that means two things.
    """
    wanted = {"base": base, "corpus": corpus, "architecture": architecture}
    matching = (
        entry
        for entry in read_index(folder).values()
        if entry.kind == kind
        and all(value in (None, getattr(entry, field)) for field, value in wanted.items())
    )
    return sorted(matching, key=sort_key(sort))


def sort_key(by: Sort) -> Callable[[Entry], Any]:
    """The key for `sorted` that `list_learners` explains; equals are in the order of names."""
    keys: dict[Sort, Callable[[Entry], Any]] = {
        "name": lambda entry: entry.name,
        "size": lambda entry: (entry.size, entry.name),
        "added": lambda entry: (-entry.added.toordinal(), entry.name),
    }
    return keys[by]


def entry_toml(entry: Entry) -> str:
    """The entry as TOML, the fields in the order of `Entry`; `read_index` gives it back."""
    values = as_values(entry)
    tables = {name: dict(sorted(values.pop(name).items())) for name in ("aliases", "files")}
    values |= tables
    return record_toml({name: value for name, value in values.items() if value not in ("", {})})
