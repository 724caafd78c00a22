"""Two processes on one machine label into one store: the same bytes, also after one was killed."""

from __future__ import annotations

import signal
from datetime import timedelta
from pathlib import Path

import pytest

from gains_helpers import contexts_of
from processes_helpers import launch_two
from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.gains import processes
from secondary_learners.gains.methods import method_named
from secondary_learners.gains.processes import ALONE, Team, joined_team
from secondary_learners.gains.store import LabelSettings, label_to_store
from tiny_models import BigramModel

pytestmark = pytest.mark.slow

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import torch
from gains_helpers import contexts_of
from tiny_models import BigramModel
from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.gains import store
from secondary_learners.gains.methods import method_named
from secondary_learners.gains.processes import joined_team

folder, names = Path(sys.argv[1]), sys.argv[2:]
method_named("swapped").PART = 16
candidates, objective = contexts_of(70, seed=1, domains=2), contexts_of(10, seed=2)
read_labels = store.read_labels

def late(folder):
    time.sleep(0.5 * team.rank)
    return read_labels(folder)

class Failing(BigramModel):
    def forward(self, input_ids, use_cache=False):
        found = super().forward(input_ids, use_cache)
        if team.rank == 1 and (folder / name / "part-00001.parquet").exists():
            if name == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            found.logits = found.logits * torch.nan
        return found

try:
    with joined_team() as team:
        assert team.group not in (None, torch.distributed.group.WORLD)  # which waits minutes only
        for name in names:
            store.read_labels = late if name == "late" else read_labels
            settings = store.LabelSettings(exact=0 if name == "late" else 12)
            model = Failing() if name == names[-1] else BigramModel()
            store.label_to_store(
                model, candidates, objective, folder / name, settings, progress=False, team=team
            )
except SecondaryLearnersError as error:
    sys.exit(str(error))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_two_processes_make_the_bytes_of_one_and_go_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method_named("swapped"), "PART", 16)
    candidates, objective = contexts_of(70, seed=1, domains=2), contexts_of(10, seed=2)
    one = tmp_path / "one"
    for folder, exact in ((one, 12), (tmp_path / "unchecked", 0)):
        settings = LabelSettings(exact=exact)
        label_to_store(BigramModel(), candidates, objective, folder, settings, progress=False)

    (first, message), (second, _) = launch_two(SCRIPT, tmp_path, "whole", "late", "killed")
    assert contents(tmp_path / "whole") == contents(one)
    assert contents(tmp_path / "late") == contents(tmp_path / "unchecked")
    assert second == -signal.SIGKILL
    assert first == 1
    assert "another of the 2 processes has stopped" in message
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("part-*.parquet")}
    assert (tmp_path / "killed" / "part-00001.parquet") in kept
    assert len(kept) < 5

    (first, message), (second, reason) = launch_two(SCRIPT, tmp_path, "killed", "diverged")
    assert contents(tmp_path / "killed") == contents(one)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (first, second) == (1, 1)
    assert "another of the 2 processes has stopped" in message
    assert "gains are not finite" in reason


def test_shares_are_apart_and_all_there() -> None:
    parts = [Team(rank, 3).share(range(8)) for rank in range(3)]
    assert sorted(number for part in parts for number in part) == list(range(8))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (None, "1"):
        if count:
            monkeypatch.setenv("WORLD_SIZE", count)
        with joined_team() as team:
            assert team == ALONE
    assert team.gather("x") == ["x"]


def test_processes_that_do_not_meet_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two, with a port of its own, where the other never comes."""
    monkeypatch.setattr(processes, "_MEETING", timedelta(seconds=1))
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_PORT", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with (
        pytest.raises(SecondaryLearnersError, match=r"did not meet at 127.*1/2 .*Start all of"),
        joined_team(),
    ):
        pass


def test_a_description_with_a_part_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(SecondaryLearnersError, match=r"RANK is not set\. Try `accelerate launch"),
        joined_team(),
    ):
        pass
