"""Files are whole or absent, whatever interrupts the writing."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.files import (
    atomic_path,
    json_bytes,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
)

OLD = b"the old content, whole"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with `OLD` in it, alone in its folder."""
    path = tmp_path / "folder" / "file.json"
    write_bytes(path, OLD)
    return path


def alone(path: Path) -> bool:
    return list(path.parent.iterdir()) == [path]


def test_writing_makes_the_folder_replaces_the_file_and_leaves_nothing_else(path: Path) -> None:
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert alone(path)


def test_a_written_file_is_readable_by_others(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_temporary_file_has_the_suffix_of_the_final_one(path: Path) -> None:
    with atomic_path(path) as temporary:
        assert temporary.suffix == path.suffix  # writers choose their format by it
        assert temporary.parent == path.parent  # a rename is atomic within one file system only


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_mid_way_leaves_the_old_file_whole(
    path: Path, interruption: type[BaseException]
) -> None:
    with pytest.raises(interruption), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise interruption
    assert path.read_bytes() == OLD
    assert alone(path)


def test_an_exception_mid_way_leaves_no_file_where_none_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError), atomic_path(tmp_path / "new.json") as temporary:
        temporary.write_bytes(b"half")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_a_full_disk_leaves_the_old_file_whole(path: Path) -> None:
    """The kernel refuses to write past 4,096 bytes, as it does when a disk is full."""
    code = """
import resource, sys
from pathlib import Path
from secondary_learners.files import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_bytes(Path(sys.argv[1]), b"n" * 100_000)
except OSError as error:
    print(error.strerror)
"""
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "File too large\n"), result.stderr
    assert path.read_bytes() == OLD
    assert alone(path)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_process_leaves_the_old_file_whole(path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from secondary_learners.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD


@given(JSON)
def test_json_reads_back_as_it_was(value: object) -> None:
    assert json.loads(json_bytes(value)) == value


def test_json_has_one_spelling() -> None:
    assert json_bytes({"b": 1, "a": "é"}) == json_bytes({"a": "é", "b": 1})
    assert json_bytes({"a": "é"}) == '{\n  "a": "é"\n}\n'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused_and_the_old_file_stays(
    path: Path, value: float
) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": value})
    assert path.read_bytes() == OLD


def test_digests_are_sha256_and_the_same_for_bytes_and_files(tmp_path: Path) -> None:
    # The test vector of FIPS 180-4 for "abc".
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    write_bytes(tmp_path / "abc", b"abc")
    assert sha256_bytes(b"abc") == sha256_file(tmp_path / "abc") == digest
