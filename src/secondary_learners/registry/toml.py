"""Values as TOML text: the little that the registry writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

__all__ = ["toml_table", "toml_value"]


def toml_value(value: Any) -> str:
    """A string, number or date as TOML."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int):
        return str(value)
    # A JSON string is a TOML basic string, save that JSON leaves DEL as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_table(header: str, values: Mapping[str, Any]) -> str:
    """A table with its keys quoted and in order."""
    lines = [f"{toml_value(key)} = {toml_value(values[key])}" for key in sorted(values)]
    return "\n".join([f"[{header}]", *lines]) + "\n"
