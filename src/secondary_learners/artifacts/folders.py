"""An artifact's folder as bytes: written whole, read whole, its digests compared on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from secondary_learners.artifacts.layout import FILES, FORBIDDEN
from secondary_learners.artifacts.reading import read_file
from secondary_learners.errors import ArtifactError, DigestMismatchError
from secondary_learners.files import atomic_folder, sha256_bytes, write_bytes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["parse_arrays", "parse_json", "parse_tensors", "read_folder", "write_folder"]


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> dict[str, str]:
    """Write the files of an artifact; the sha256 of each.

    A new folder appears whole or not at all; in one that exists, each file is replaced whole, and
    without its config.json, which is written last, there is no artifact.
    """
    if folder.exists():
        _write_all(folder, contents)
    else:
        with atomic_folder(folder) as temporary:
            _write_all(temporary, contents)
    return {name: sha256_bytes(data) for name, data in contents.items()}


def _write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    (folder / "config.json").unlink(missing_ok=True)
    for name in sorted(contents, key=lambda name: name == "config.json"):
        write_bytes(folder / name, contents[name])


def read_folder(
    folder: Path, digests: Mapping[str, str] | None = None, *, remedy: str | None = None
) -> dict[str, bytes]:
    """The five files of the artifact in `folder`.

    digests: the recorded sha256 of each file. remedy: what to do about a changed file, by default
    for what pip installed. Raises DigestMismatchError for one, and ArtifactError for a file that
    is missing or that could run code when it is loaded.
    """
    if not folder.is_dir():
        raise ArtifactError(f"there is no folder {folder}. Try `learners list`.")
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in sorted(names) if _suffix(name) in FORBIDDEN):
            raise ArtifactError(
                f"{path} could run code when loaded, and an artifact never holds such a file. "
                f"Delete it only if you know where it came from; see `learners show {folder}`."
            )
    contents = {name: read_file(folder / name) for name in FILES}
    if digests is not None:
        _check_digests(folder, contents, digests, remedy)
    return contents


def _check_digests(
    folder: Path, contents: Mapping[str, bytes], digests: Mapping[str, str], remedy: str | None
) -> None:
    remedy = remedy or (
        f"Compare with `learners show {folder.name}`, or reinstall with "
        "`pip install --force-reinstall secondary-learners`."
    )
    for name, data in contents.items():
        expected, actual = digests.get(name), sha256_bytes(data)
        if actual != expected:
            raise DigestMismatchError.of(folder / name, expected, actual, remedy)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _again(folder: Path) -> str:
    return f"Get the folder again from where it came, and try `learners show {folder}`."


def parse_json(folder: Path, contents: Mapping[str, bytes], name: str = "config.json") -> Any:
    """What the JSON file `name` says; raises ArtifactError."""
    try:
        return json.loads(contents[name])
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{folder / name} is not JSON: {error}. {_again(folder)}") from error


def parse_tensors(folder: Path, contents: Mapping[str, bytes]) -> dict[str, Tensor]:
    """The tensors of model.safetensors; raises ArtifactError."""
    import safetensors.torch

    try:
        return safetensors.torch.load(contents["model.safetensors"])
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a dtype unknown to torch
        raise _damaged(folder, error) from error


def parse_arrays(folder: Path, contents: Mapping[str, bytes]) -> dict[str, npt.NDArray[np.generic]]:
    """The same without torch."""
    try:
        return safetensors.numpy.load(contents["model.safetensors"])
    except (safetensors.SafetensorError, KeyError) as error:  # a dtype unknown to numpy
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{folder / 'model.safetensors'} is truncated or no safetensors file: {error}. "
        f"{_again(folder)}"
    )
