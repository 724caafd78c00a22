"""`learners lock`, `learners verify` and --locked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli_helpers import Tiny, learners
from secondary_learners.files import sha256_bytes
from secondary_learners.registry.index import read_index


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_lock_pins_a_learner_and_its_base_model(work: Path) -> None:
    result = learners("lock", "books-mini")
    assert result.code == 0, result.err
    assert "books-mini  bundled" in result.out
    assert "2 pinned anew in learners.lock" in result.out
    assert learners("lock", "books-mini").out == "0 pinned anew in learners.lock\n"
    new = learners("lock", "python-docs-mini", "--json").json["new"]
    assert list(new) == ["python-docs-mini"]
    assert new["python-docs-mini"]["kind"] == "learner"


@pytest.mark.parametrize(
    "command",
    [
        ("score", "text.txt", "-l"),
        ("explain", "To be", "-l"),
        ("finetune", "--seeds", "1", "-l"),
        ("show",),
    ],
    ids=lambda command: command[0],
)
def test_locked_refuses_what_is_not_locked(
    command: tuple[str, ...], work: Path, tiny: Tiny
) -> None:
    (work / "text.txt").write_text("To be, or not to be\n")
    learners("lock", "python-docs-mini")
    result = learners(*command, "books-mini", "--locked")
    assert (result.code, result.out) == (1, "")
    assert "'books-mini' is not in learners.lock. Try `learners lock books-mini`." in result.err
    result = learners(*command, tiny.learner, "--locked")
    assert (result.code, result.out) == (1, "")
    assert "has no place in learners.lock" in result.err
    assert "SECONDARY_LEARNERS_LOCKED" not in os.environ


def test_locked_loads_what_is_locked(work: Path) -> None:
    (work / "text.txt").write_text("To be, or not to be\n")
    learners("lock", "books-mini")
    free = learners("score", "text.txt", "-l", "books-mini")
    assert free.code == 0
    assert learners("score", "text.txt", "-l", "books-mini", "--locked") == free


def test_a_lock_with_other_bytes_is_refused(work: Path) -> None:
    learners("lock", "books-mini")
    lock = work / "learners.lock"
    digest = learners("show", "books-mini", "--json").json["files"]["model.safetensors"]
    lock.write_text(lock.read_text().replace(digest, sha256_bytes(b"another")))
    result = learners("explain", "To be", "-l", "books-mini")
    assert result.code == 1
    assert "model.safetensors: its sha256 should be" in result.err
    assert "If learners.lock is out of date, try `learners lock books-mini`." in result.err
    verified = learners("verify", "books-mini", "--json")
    assert verified.code == 1
    (bad,) = [finding for finding in verified.json if not finding["good"]]
    assert (bad["file"], bad["recorded_in"]) == ("model.safetensors", "learners.lock")


def test_verify_of_what_ships() -> None:
    result = learners("verify")
    assert result.code == 0, result.out
    assert f" files of {len(read_index())} artifacts are right" in result.out
    assert {finding["name"] for finding in learners("verify", "mini", "--json").json} == {"mini"}
    unknown = learners("verify", "boks-mini")
    assert (unknown.code, unknown.out) == (1, "")
    assert "did you mean books-mini" in unknown.err
    assert "never loaded" in learners("verify", "nobody/nothing").out
