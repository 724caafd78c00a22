"""A hook of mkdocs: the fields of recipes, from the records that TOML files are read into.

Where reference/recipes.md says `<!-- recipe fields -->` come the tables, a kind of recipe and each
of its tables a heading; schemas/KIND.json are the same for editors, as JSON schemas.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union

import msgspec
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from secondary_learners.recipes.kinds import ROWS, record_type

MARK = "<!-- recipe fields -->"
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for kind in ROWS:
        text = json.dumps(schema(kind), indent=2) + "\n"
        files.append(File.generated(config, f"schemas/{kind}.json", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return markdown.replace(MARK, tables()) if MARK in markdown else markdown


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of a kind of recipe; a field that is misspelled is wrong."""
    values = msgspec.json.schema(record_type(kind))
    for record in values["$defs"].values():
        if record.get("type") == "object":
            record["additionalProperties"] = False
        if "description" in record:
            record["description"] = re.sub(r"\s+", " ", record["description"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **values}


def tables() -> str:
    """Markdown: the tables of all kinds; one that several kinds have is there once."""
    lines: list[str] = []
    first: dict[Any, str] = {}  # by record, the heading that has its fields
    for kind in ROWS:
        record = record_type(kind)
        lines += [f"## kind = {json.dumps(kind)} {{ #{kind} }}", "", f"Makes {record.WHAT}.", ""]
        lines += [f"[Schema for editors](../schemas/{kind}.json).", "", *_rows(record), ""]
        for name, part in _parts(record, ""):
            place = f"{kind}.{name}"
            lines += [f"### `[{name}]` of {kind} {{ #{place} }}", ""]
            same = [f"The same as [of {first[part]}](#{first[part]})."] if part in first else []
            lines += [*(same or _rows(part)), ""]
            first.setdefault(part, place)
    return "\n".join(lines)


def _parts(record: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The records in the fields of a record, each with the name of its table in TOML."""
    for field, hint in _hints(record).items():
        for part in _records(hint):
            yield prefix + field, part
            yield from _parts(part, f"{prefix}{field}.")


def _rows(record: Any) -> Iterator[str]:
    summary, meanings = _meanings(record)
    if summary:
        yield from (summary, "")
    yield from ("| field | value | default | meaning |", "|---|---|---|---|")
    hints = _hints(record)
    for field in dataclasses.fields(record):
        cells = (_type(hints[field.name]), _default(field), meanings.get(field.name, ""))
        yield f"| `{field.name}` | {' | '.join(cells)} |"


def _hints(record: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(record)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


def _records(hint: Any) -> list[Any]:
    if dataclasses.is_dataclass(hint):
        return [hint]
    return [part for argument in typing.get_args(hint) for part in _records(argument)]


def _type(hint: Any) -> str:
    """A type in the words of a reader."""
    arguments = [each for each in typing.get_args(hint) if each not in (type(None), Ellipsis)]
    if typing.get_origin(hint) is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_type, arguments))
    if typing.get_origin(hint) is tuple:
        return f"list of {_type(arguments[0])}"
    if dataclasses.is_dataclass(hint):
        return "table"
    return _WORDS.get(hint, str(hint))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        if field.default is None:
            return "none"
        value = list(field.default) if isinstance(field.default, tuple) else field.default
        return f"`{json.dumps(value)}`"
    return "its own" if field.default_factory is not dataclasses.MISSING else "**needed**"


def _meanings(record: Any) -> tuple[str, dict[str, str]]:
    """What a docstring says of the record, and of each field: `name, name: meaning.`"""
    text = re.sub(r"\s+", " ", record.__doc__ or "").strip()
    names = "|".join(field.name for field in dataclasses.fields(record))
    first, *parts = re.split(rf"(?:^|(?<=[.;] ))((?:{names})(?:, (?:{names}))*): ", text)
    meanings = {
        name: meaning.strip().rstrip(";.") + "."
        for heading, meaning in zip(parts[::2], parts[1::2], strict=True)
        for name in heading.split(", ")
    }
    return first.strip(), meanings
