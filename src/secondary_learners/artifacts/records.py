"""Records: frozen dataclasses, read from TOML and JSON and written as TOML.

msgspec converts the values; what is wrong is said in our words, with file, field and value.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["as_values", "read_record", "read_toml", "record_toml"]

Record = TypeVar("Record")
Refusal = Callable[[str], SecondaryLearnersError]

# Files made before November 2026, those inside of artifacts among them, are read for good.
_OLD_SPELLINGS = {"licence": "license", "neighbours": "neighbors"}
_WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "date": "a date such as 2026-01-31",
    "datetime": "a date with a time",
}
_WRONG = re.compile(r"(?:Expected `([^`]*)`|Invalid enum value).* - at `\$([^`]*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `([^`]*)`")


def read_toml(text: str | bytes, where: str, error: Refusal) -> dict[str, Any]:
    """The tables of a TOML text; `error` is raised with a message that begins with `where`."""
    try:
        return _american(tomllib.loads(text if isinstance(text, str) else text.decode("utf-8")))
    except ValueError as reason:  # not TOML, or not UTF-8
        raise error(f"{where} is not TOML: {reason}.") from reason


def _american(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_OLD_SPELLINGS.get(name, name): value for name, value in values.items()}


def read_record(
    kind: type[Record], values: Mapping[str, Any], where: str, error: Refusal
) -> Record:
    """`values` as a record of the type `kind`, and the records in it.

    Args:
        kind: A frozen dataclass; its fields may be records too, or tuples of them. What its
            `__post_init__` raises is said with the table it is about.
        values: As TOML or JSON gives them; British spellings of old files are understood.
        where: The file, which every message begins with.
        error: What is raised, such as RecipeError.

    Returns:
        The record.

    Raises:
        SecondaryLearnersError: `error`, for a field that is unknown, missing or of another type.
    """
    import msgspec  # here, so that a help page does without

    hints = {
        name: hint
        for name, hint in typing.get_type_hints(kind).items()
        if typing.get_origin(hint) is not typing.ClassVar
    }
    renamed = _american(values)
    if unknown := sorted(renamed.keys() - hints.keys()):
        known = ", ".join(sorted(hints))
        raise error(f"{where}: unknown field {unknown[0]!r}; known are {known}.")
    given = {
        name: _inner(hints[name], value, f"{where}: {name}", error)
        for name, value in renamed.items()
    }
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as reason:
        raise error(f"{where}: {_in_words(str(reason), given, hints)}") from reason
    except SecondaryLearnersError as reason:  # of the record itself
        raise error(f"{where}: {reason}") from reason


def as_values(record: Any) -> dict[str, Any]:
    """The fields of a record and of the records in it, defaults too, as tables and plain values."""
    values: dict[str, Any] = _plain(record)
    return values


def _plain(value: Any) -> Any:
    # Not msgspec.to_builtins: what it converted to a dataclass lacks the defaults in its __dict__.
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def record_toml(record: Any) -> str:
    """A record (or a mapping) as TOML, what is None left out; `read_record` gives it back."""
    import tomli_w

    return tomli_w.dumps(_without_none(as_values(record)))


def _inner(hint: Any, value: Any, where: str, error: Refusal) -> Any:
    """`value`, with the records in it read, so that a message says which of them is wrong."""
    for arm in _arms(hint):
        if _is_record(arm) and isinstance(value, Mapping):
            return read_record(arm, value, where, error)
        if typing.get_origin(arm) is tuple and isinstance(value, list):
            return [_inner(typing.get_args(arm)[0], item, where, error) for item in value]
    return value


def _arms(hint: Any) -> Iterator[Any]:
    if _is_record(hint) or typing.get_origin(hint) is tuple:
        yield hint
    else:
        yield from typing.get_args(hint)


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _in_words(reason: str, values: Mapping[str, Any], hints: Mapping[str, Any]) -> str:
    """What msgspec says of one field of `values`."""
    if missing := _MISSING.match(reason):
        return f"the field {missing[1]!r} is missing."
    if not (wrong := _WRONG.match(reason)):
        return f"{reason}."
    name = wrong[2].lstrip(".").partition("[")[0]
    if typing.get_origin(hints[name]) is typing.Literal:
        known = ", ".join(map(str, typing.get_args(hints[name])))
        return f"{_place(wrong[2], values)}, and must be one of {known}."
    words = [_WORDS.get(name, name) for name in (wrong[1] or "").split(" | ") if name != "null"]
    return f"{_place(wrong[2], values)}, and should be {' or '.join(words)}."


def _place(path: str, values: Any) -> str:
    name = ""
    for step, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        name, values = step or name, values[step or int(index)]
    return f"{name} is {values!r}"


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
