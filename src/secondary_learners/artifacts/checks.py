"""Reading the JSON files of an artifact: what is checked, and what is said when it fails."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondary_learners.artifacts.reading import read_file
from secondary_learners.errors import ArtifactError, IncompatibleError

__all__ = ["ConfigChecks", "read_json"]


@dataclass(frozen=True)
class ConfigChecks:
    """Of one kind of artifact: its name, its newest format, and what to do about a fault."""

    thing: str
    format_version: int
    way_out: str

    def failure(self, field: str, need: str, value: object) -> ArtifactError:
        return ArtifactError(
            f"config.json: the field {field!r} must be {need}, and is {value!r}. {self.way_out}"
        )

    def version(self, value: object) -> None:
        """Raise IncompatibleError for a newer format and ArtifactError for no version at all."""
        if type(value) is not int or value < 1:
            raise self.failure("format_version", "a whole number from 1 on", value)
        if value > self.format_version:
            raise IncompatibleError(
                f"this {self.thing} has format version {value}, and this package reads up to "
                f"{self.format_version}. Try `pip install --upgrade secondary-learners`."
            )

    def fields(self, prefix: str, cls: type, data: object) -> dict[str, Any]:
        """`data`, once it has exactly the fields of the dataclass `cls`, else ArtifactError."""
        if not isinstance(data, dict):
            raise self.failure(prefix.rstrip("."), "an object", data)
        names = [field.name for field in dataclasses.fields(cls)]
        for name in names:
            if name not in data:
                raise ArtifactError(
                    f"config.json lacks the field {prefix + name!r}. {self.way_out}"
                )
        for name in data:
            if name not in names:
                raise ArtifactError(
                    f"config.json has an unknown field {prefix + name!r}. {self.way_out}"
                )
        return dict(data)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises ArtifactError for anything else."""
    try:
        value = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} cannot be read as JSON: {error}. Get the folder again from where it came."
        ) from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} is not a JSON object. Get the folder again from its source.")
    return value
