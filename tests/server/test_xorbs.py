from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.xet_formats import Term, XetFormatError
from secondary_learners.server.store.xorbs import (
    XorbFolder,
    drop_old_xorbs,
    find_xorbs,
    incoming_file,
    xorbs_of_today,
)
from xet_helpers import LZ4, chunk

HASH = "0123456789abcdef" * 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    return tmp_path


def put(root: Path, folder: XorbFolder, xorb: bytes) -> bool:
    with incoming_file(root) as (file, path):
        file.write(xorb)
        return folder.keep(HASH, file, path)


def aged(root: Path, folder: XorbFolder, day: str, idle_s: float) -> Path:
    """The folder of `folder`, as if it had been put up on `day` and last used so long ago."""
    (folder,) = (root / "xorbs").glob(f"*/{folder.name}")
    older = folder.rename(folder.with_name(f"{day}-{folder.name.partition('-')[2]}"))
    os.utime(older, (time.time() - idle_s,) * 2)
    return older


def test_a_user_has_one_folder_a_day_and_shares_it_with_nobody(root: Path) -> None:
    ann, bob = xorbs_of_today(root, "ann"), xorbs_of_today(root, "bob")
    assert xorbs_of_today(root, "ann").name == ann.name != bob.name
    with pytest.raises(Refused) as error:
        find_xorbs(root, "bob", ann.name)
    assert error.value.status == 400


@pytest.mark.parametrize("name", ["", "..", ".", "../bob", "a/b", "20260101-abc", "a" * 5000, "\0"])
def test_other_names_are_no_way_out(root: Path, name: str) -> None:
    xorbs_of_today(root, "ann")
    with pytest.raises(Refused, match="Start the upload again"):
        find_xorbs(root, "ann", name)


def test_a_xorb_is_whole_or_absent(root: Path) -> None:
    folder = xorbs_of_today(root, "ann")
    with pytest.raises(XetFormatError, match="has not been uploaded"), folder.xorb(HASH):
        pass
    with pytest.raises(XetFormatError, match="cut short"):
        put(root, folder, chunk(b"abc")[:-1])
    assert not [path for path in root.rglob("*") if path.is_file()]
    assert put(root, folder, chunk(b"abc", LZ4))
    assert not put(root, folder, chunk(b"defg"))  # sent again: the later one counts
    with folder.xorb(HASH) as xorb:
        assert list(xorb.read(Term(HASH, 4, 0, 1))) == [b"defg"]
    assert not list((root / "incoming").iterdir())


def test_folders_of_earlier_days_are_dropped_once_nobody_uses_them(root: Path) -> None:
    old, paused, other = (xorbs_of_today(root, name) for name in ("ann", "bob", "eve"))
    put(root, old, chunk(b"abc"))
    gone = aged(root, old, "20250101", idle_s=25 * 3600)
    kept = aged(root, paused, "20250101", idle_s=23 * 3600)
    assert xorbs_of_today(root, "ann").name != gone.name  # a new folder makes old ones go
    assert not gone.exists()
    assert kept.exists()
    os.utime(kept, (time.time() - 25 * 3600,) * 2)
    find_xorbs(root, "bob", kept.name)  # an upload that goes on
    drop_old_xorbs(root)
    assert kept.exists()
    os.utime(next((root / "xorbs").glob(f"eve/{other.name}")), (0, 0))
    drop_old_xorbs(root)
    assert find_xorbs(root, "eve", other.name)  # of today: its address is still given out


def test_a_folder_that_goes_during_an_upload_is_said(root: Path) -> None:
    folder = xorbs_of_today(root, "ann")
    next((root / "xorbs" / "ann").iterdir()).rmdir()
    with pytest.raises(Refused, match="Start the upload again"):
        put(root, folder, chunk(b"abc"))
    assert xorbs_of_today(root, "ann").name != folder.name
