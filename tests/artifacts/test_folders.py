from __future__ import annotations

from pathlib import Path

import pytest

from secondary_learners.artifacts.folders import read_folder, write_folder
from secondary_learners.artifacts.layout import FILES
from secondary_learners.errors import ArtifactError, DigestMismatchError

CONTENTS = {name: name.encode() for name in FILES}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    digests = write_folder(tmp_path / "x", CONTENTS)
    assert read_folder(tmp_path / "x", digests) == CONTENTS
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_rewrite_cut_short_is_no_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "x", CONTENTS)

    def full(path: Path, data: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("secondary_learners.artifacts.folders.write_bytes", full)
    with pytest.raises(OSError, match="full"):
        write_folder(tmp_path / "x", CONTENTS)
    with pytest.raises(ArtifactError, match=r"config\.json"):
        read_folder(tmp_path / "x")
    with pytest.raises(OSError, match="full"):
        write_folder(tmp_path / "y", CONTENTS)
    assert not (tmp_path / "y").exists()


def test_the_remedy_is_said(tmp_path: Path) -> None:
    digests = write_folder(tmp_path / "x", CONTENTS)
    (tmp_path / "x" / "README.md").write_text("changed")
    with pytest.raises(DigestMismatchError, match="Try `this`"):
        read_folder(tmp_path / "x", digests, remedy="Try `this`.")
    with pytest.raises(ArtifactError, match="no folder"):
        read_folder(tmp_path / "none")
