"""The index: one TOML file for each learner and base model, read as plain frozen data."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
import warnings
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from secondary_learners.catalogue import content
from secondary_learners.errors import ArtefactError, UnknownNameError

__all__ = ["Entry", "entry_toml", "find", "list_learners", "read_index"]

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_FILE = re.compile(r"\w[\w.-]*")
_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the registry; raises ArtefactError naming the field that is wrong.

    base, tokenizer: names of models. A base model has no base and no objective ("").
    location: "bundled", or a repository on a Hub, and then `revision` is a full commit.
    aliases: older names, which still work. size: of all files, in bytes.
    files: the sha256 of each.
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
    licence: str
    location: str
    revision: str | None = None
    aliases: tuple[str, ...] = ()
    added: date
    size: int
    files: dict[str, str]

    def __post_init__(self) -> None:
        def need(good: bool, field: str, what: str) -> None:
            if not good:
                raise ArtefactError(
                    f"registry entry {self.name!r}: the field {field!r} must be {what}, and is "
                    f"{getattr(self, field)!r}. Correct registry/{self.name}.toml."
                )

        need(_is_name(self.name), "name", "lower-case words joined by - . or _")
        need(self.kind in ("learner", "base-model"), "kind", "'learner' or 'base-model'")
        optional = () if self.kind == "learner" else ("base", "objective")
        for field in _TEXTS:
            value = getattr(self, field)
            need(isinstance(value, str) and (value != "" or field in optional), field, "a string")
        if self.location == "bundled":
            need(self.revision is None, "revision", "absent for what is bundled")
        else:
            commit = isinstance(self.revision, str) and _COMMIT.fullmatch(self.revision)
            need(bool(commit), "revision", "a full commit of 40 hexadecimal digits")
        names = isinstance(self.aliases, tuple) and all(map(_is_name, self.aliases))
        need(names, "aliases", "a list of names")
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
    "licence",
    "location",
)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_file(name: object, digest: object) -> bool:
    return (
        isinstance(name, str)
        and _FILE.fullmatch(name) is not None
        and isinstance(digest, str)
        and _SHA256.fullmatch(digest) is not None
    )


def read_index(folder: Path | None = None) -> dict[str, Entry]:
    """Every entry by name, sorted; from the registry of this installation unless told otherwise.

    Raises ArtefactError for a file that is no entry, or a name that means two things.
    """
    paths = sorted((content("registry") if folder is None else folder).glob("*.toml"))
    entries = {path.stem: _read_entry(path) for path in paths}
    taken = dict.fromkeys(entries, "a name")
    for entry in entries.values():
        for alias in entry.aliases:
            if alias in taken:
                raise ArtefactError(
                    f"registry entry {entry.name!r}: the alias {alias!r} is already "
                    f"{taken[alias]}. Correct registry/{entry.name}.toml."
                )
            taken[alias] = f"an alias of {entry.name!r}"
    return dict(sorted(entries.items()))


def _read_entry(path: Path) -> Entry:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not TOML, or not UTF-8
        raise ArtefactError(f"{path} is not TOML: {error}. Correct it.") from error
    fields = {field.name: field for field in dataclasses.fields(Entry)}
    for name in data:
        if name not in fields:
            raise ArtefactError(f"{path} has an unknown field {name!r}. Correct it.")
    for name, field in fields.items():
        if name not in data and field.default is dataclasses.MISSING:
            raise ArtefactError(f"{path} lacks the field {name!r}. Correct it.")
    if isinstance(data.get("aliases"), list):
        data["aliases"] = tuple(data["aliases"])
    if isinstance(data["added"], datetime):
        raise ArtefactError(f"{path}: the field 'added' must be a date without a time. Correct it.")
    entry = Entry(**data)
    if entry.name != path.stem:
        raise ArtefactError(
            f"{path} holds the entry {entry.name!r}. "
            f"Try `mv {path} {path.parent / entry.name}.toml`."
        )
    return entry


def find(name: str, *, kind: str | None = None, folder: Path | None = None) -> Entry:
    """The entry with this name or alias, of this kind ("learner" or "base-model") or of any.

    Raises UnknownNameError, which suggests the near names. An alias gives a FutureWarning.
    """
    entries = {
        entry.name: entry
        for entry in read_index(folder).values()
        if kind is None or entry.kind == kind
    }
    if name in entries:
        return entries[name]
    for entry in entries.values():
        if name in entry.aliases:
            warnings.warn(
                f"{name!r} is now called {entry.name!r}; please use that name.",
                FutureWarning,
                stacklevel=2,
            )
            return entry
    what = (kind or "learner").replace("-", " ")
    raise UnknownNameError(what, name, entries, "learners list")


def list_learners(
    *,
    base: str | None = None,
    corpus: str | None = None,
    architecture: str | None = None,
    folder: Path | None = None,
) -> list[Entry]:
    """The learners whose fields equal all the values given, sorted by name."""
    wanted = {"base": base, "corpus": corpus, "architecture": architecture}
    return [
        entry
        for entry in read_index(folder).values()
        if entry.kind == "learner"
        and all(value in (None, getattr(entry, field)) for field, value in wanted.items())
    ]


def entry_toml(entry: Entry) -> str:
    """The entry as TOML, the fields in the order of `Entry`; `read_index` gives it back."""
    lines = []
    for field in dataclasses.fields(Entry):
        value = getattr(entry, field.name)
        if field.name != "files" and value not in ("", None, ()):
            lines.append(f"{field.name} = {_toml(value)}")
    lines += ["", "[files]"]
    lines += [f"{_toml(name)} = {_toml(digest)}" for name, digest in sorted(entry.files.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # A JSON string is a TOML basic string, save that JSON leaves DEL as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
