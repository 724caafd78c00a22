"""Files of artifacts that never end, or are far too large, are refused before they are read."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import sys
from pathlib import Path

import pytest

from secondary_learners.artifacts.kinds import kind_of
from secondary_learners.artifacts.reading import read_file
from secondary_learners.content import content
from secondary_learners.errors import ArtifactError
from secondary_learners.learners.artifact import read_learner
from secondary_learners.publishing.audit import audit
from secondary_learners.registry.entries import artifact_entry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(content("learners") / "books-mini", tmp_path / "books")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_a_fifo_is_refused_at_once(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ArtifactError, match="is not a regular file"):
        read_learner(folder)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no such device here")
def test_a_device_is_refused(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/dev/zero")
    with pytest.raises(ArtifactError, match="is not a regular file"):
        read_learner(folder)


@pytest.mark.parametrize(
    ("name", "size"),
    [("README.md", 6 * 2**30), ("config.json", 2**24), ("model.safetensors", 2**33)],
)
def test_what_is_far_too_large_is_not_read(name: str, size: int, folder: Path) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(size)  # a hole, which takes no room
    with pytest.raises(ArtifactError, match=rf"{name} has {size:,} bytes"):
        read_learner(folder)


def test_a_header_of_very_many_tensors_is_not_parsed(folder: Path) -> None:
    one = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"tensor-{number}": one for number in range(120_000)}).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ArtifactError, match=r"header of [\d,]+ bytes"):
        read_file(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (2**20 if sys.platform == "darwin" else 2**10)  # not even the file itself


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
@pytest.mark.parametrize("name", ["config.json", "recipe.toml"])
def test_a_fifo_holds_up_neither_audit_nor_entry(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert any(name in problem.message for problem in audit(folder))
    with pytest.raises(ArtifactError, match=f"{name} is not a regular file"):
        artifact_entry(folder)


@pytest.mark.parametrize("name", ["README.md", "config.json", "recipe.toml", "notes.md"])
def test_what_is_far_too_large_holds_up_neither_audit_nor_entry(name: str, folder: Path) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(6 * 2**30)
    (problem,) = audit(folder)
    assert f"{name} has {6 * 2**30:,} bytes" in problem.message
    with pytest.raises(ArtifactError, match=rf"{name} has [\d,]+ bytes"):
        artifact_entry(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "ranker", "format": "ranker"},
        {"format_version": 99, "kind": "ranker", "name": "x"},
        {},
    ],
)
def test_a_kind_that_is_not_known_is_not_guessed(config: dict, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"of a kind that this package does not know"):
        kind_of(folder)
