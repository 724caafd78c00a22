from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import numpy as np
import pytest
import torch

from secondary_learners.errors import MissingExtraError, SecondaryLearnersError, TrialsError
from secondary_learners.experiments.trials import workers
from secondary_learners.experiments.trials.stopping import Setting
from secondary_learners.experiments.trials.table import read_table
from secondary_learners.experiments.trials.training import KnownScores, TrialSettings
from secondary_learners.filtering.thresholds import Quantile

optuna = pytest.importorskip("optuna")
from secondary_learners.experiments.trials.sweep import (  # noqa: E402
    Filter,
    Running,
    Sweep,
    SweepPlan,
    run_trials,
)

pytestmark = pytest.mark.slow

SETTINGS = TrialSettings(epochs=2, batch_size=8, learning_rate=3e-3, evaluations=3)


class SilentRequests(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


class Short:
    """Likes short texts."""

    def score(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return -mask.sum(dim=1).double()

    def quantile(self, q: float) -> float:
        return -10 * (1 - q)

    def check_tokenizer(self, tokenizer: Any) -> None: ...


SHORT = Filter("short", Short(), Quantile(0.5))


def sweep(loaded: tuple[Any, Any], task: Path, folder: Path, **more: Any) -> Sweep:
    running = Running(processes=more.pop("processes", 1), progress=False)
    seeds = {name: more.pop(name, range(2)) for name in ("init_seeds", "order_seeds")}
    plan = SweepPlan(**{"settings": SETTINGS, **more})
    return run_trials([task], *loaded, folder=folder, plan=plan, running=running, **seeds)


@pytest.fixture(scope="module")
def full(loaded: tuple, sea: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """3 × 3 seeds in two arms, run to the end."""
    folder = tmp_path_factory.mktemp("full")
    seeds = {"init_seeds": range(3), "order_seeds": range(3)}
    return sweep(loaded, sea, folder, filters=(None, SHORT), **seeds)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The seeds and first step of every job that is done from now on."""
    done: list[tuple[int, int, int]] = []
    train = workers.train

    def spy(work: Any, job: Any) -> Iterator[Any]:
        yield from train(work, job)
        done.append((job.init_seed, job.order_seed, job.begin))

    monkeypatch.setattr(workers, "train", spy)
    return done


def test_every_pair_of_seeds_once_with_its_whole_curve(full: Sweep) -> None:
    assert [full.table.arms(task) for task in full.table.tasks] == [
        ("standard", "short quantile:0.5")
    ]
    for arm in full.table.arms("sea"):
        trials = full.table.of("sea", arm)
        assert [(t.init_seed, t.order_seed) for t in trials] == [
            (init, order) for init in range(3) for order in range(3)
        ]
        assert {t.fractions for t in trials} == {(0.166667, 0.333333, 0.5, 0.666667, 0.833333, 1.0)}
        assert all(t.score == max(t.scores) and t.diverged is not None for t in trials)
    assert read_table(full.folder / "trials.csv") == full.table
    assert full.table.floors["sea"] == pytest.approx(0.5, abs=0.2)
    kept = [c["curve"]["12"]["kept"] / c["curve"]["12"]["seen"] for c in full.curves]
    assert kept[0] == 1 and 0.1 < kept[-1] < 0.9


def test_an_arm_can_skip_blindly(loaded: tuple, sea: Path, tmp_path: Path) -> None:
    blind = Filter("random", None, Quantile(0.5))
    found = sweep(loaded, sea, tmp_path, filters=(None, blind), init_seeds=[0])
    assert found.table.arms("sea") == ("standard", "random quantile:0.5")
    last = [curve["curve"]["12"] for curve in found.curves]
    assert all(point["kept"] / point["seen"] == 1 for point in last[:2])
    assert all(0.3 < point["kept"] / point["seen"] < 0.7 for point in last[2:])
    drawn = [KnownScores.blind(1000, order_seed).scores for order_seed in range(2)]
    assert all(abs((scores >= 0.5).mean() - 0.5) < 0.06 for scores in drawn)
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.1


def test_the_studies_are_optunas_own(full: Sweep) -> None:
    url = f"sqlite:///{full.folder / 'trials.db'}"
    study = optuna.load_study(study_name="sea, standard", storage=url)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    first, trial = study.trials[0], full.table.trials[0]
    assert first.params == {"init_seed": 0, "order_seed": 0}
    assert tuple(first.intermediate_values.values()) == trial.scores
    assert study.best_value == max(t.score for t in full.table.of("sea", "standard"))
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_optunas_dashboard_shows_them(full: Sweep) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    storage = optuna.storages.RDBStorage(f"sqlite:///{full.folder / 'trials.db'}")
    server = make_server("127.0.0.1", 0, dashboard.wsgi(storage), handler_class=SilentRequests)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def get(path: str) -> Any:
        address = f"http://127.0.0.1:{server.server_port}/api/{path}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            return json.load(answer)

    try:
        studies = {each["study_name"]: each for each in get("studies")["study_summaries"]}
        assert set(studies) == {"sea, standard", "sea, short quantile:0.5"}
        shown = get(f"studies/{studies['sea, standard']['study_id']}")["trials"]
    finally:
        server.shutdown()
        server.server_close()
        storage.engine.dispose()
    assert len(shown) == 9
    for each, trial in zip(shown, full.table.of("sea", "standard"), strict=True):
        assert each["state"] == "Complete"
        seeds = {param["name"]: param["param_external_value"] for param in each["params"]}
        assert seeds == {"init_seed": str(trial.init_seed), "order_seed": str(trial.order_seed)}
        assert tuple(point["value"] for point in each["intermediate_values"]) == trial.scores


def test_more_seeds_extend_a_sweep(
    full: Sweep, loaded: tuple, sea: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = counted(monkeypatch)
    sweep(loaded, sea, tmp_path)
    assert len(done) == 4
    more = sweep(loaded, sea, tmp_path, init_seeds=range(3), order_seeds=range(3))
    assert len(done) == len(set(done)) == 9
    assert set(more.table.trials) == set(full.table.of("sea", "standard"))
    assert sweep(loaded, sea, tmp_path).table == more.table
    assert len(done) == 9


def test_another_sweep_is_refused(loaded: tuple, sea: Path, tmp_path: Path) -> None:
    sweep(loaded, sea, tmp_path, init_seeds=[0], order_seeds=[0])
    with pytest.raises(TrialsError, match=r"learning_rate was 0\.003 and is now 0\.001"):
        sweep(loaded, sea, tmp_path, settings=replace(SETTINGS, learning_rate=1e-3))
    with pytest.raises(TrialsError, match="early stopping was not there and is now"):
        sweep(loaded, sea, tmp_path, early_stop=Setting(4, 0.5, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_seeds": []}, "needs at least one initialization seed"),
        ({"order_seeds": [1, 1]}, "the order seeds are 1, 1: give each once"),
        ({"init_seeds": [-1]}, "the seed -1 is not between"),
        ({"filters": (None, None)}, "give each once"),
        ({"processes": 0}, "0 processes"),
        ({"early_stop": Setting(5, 0.5, 1)}, "2 × 2 seeds make only 4"),
        ({"early_stop": Setting(4, 0.95, 1)}, "of the 6 evaluations none before the end"),
    ],
)
def test_what_makes_no_sweep(
    loaded: tuple, sea: Path, tmp_path: Path, options: dict, message: str
) -> None:
    with pytest.raises(TrialsError, match=message):
        sweep(loaded, sea, tmp_path, **options)


def test_a_folder_in_use_is_refused(loaded: tuple, sea: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(SecondaryLearnersError, match="another process is"),
    ):
        sweep(loaded, sea, tmp_path)


def test_without_optuna_the_extra_is_named(
    loaded: tuple, sea: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"secondary-learners\[trials\]"):
        sweep(loaded, sea, tmp_path)


def test_early_stopping_leaves_what_the_rule_says_and_costs_what_it_says(
    full: Sweep, loaded: tuple, sea: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = {"init_seeds": range(3), "order_seeds": range(3)}
    done = counted(monkeypatch)
    found = sweep(loaded, sea, tmp_path, early_stop=Setting(6, 0.3, 2), **seeds)
    setting = found.settings_of["sea"]
    assert setting == Setting(6, 0.333333, 2)  # the nearest evaluation
    steps = sum(8 if begin else 4 for *_, begin in done)
    assert steps / 12 == pytest.approx(setting.cost, abs=1e-5)
    assert not list((tmp_path / "states").iterdir())
    pairs = {(t.init_seed, t.order_seed) for t in found.table.trials}
    finished = [t for t in found.table.trials if t.finished]
    assert (len(pairs), len(finished), found.table.unfinished()) == (6, 2, 4)
    # What went on from the look is, to the last digit, what ran in one go.
    whole = {(t.init_seed, t.order_seed): t for t in full.table.of("sea", "standard")}
    assert all(whole[t.init_seed, t.order_seed] == t for t in finished)
    looks = {pair: max(whole[pair].scores[:2]) for pair in pairs}
    worst = min(looks[t.init_seed, t.order_seed] for t in finished)
    stopped = pairs - {(t.init_seed, t.order_seed) for t in finished}
    assert all(looks[pair] <= worst for pair in stopped)
    again = sweep(loaded, sea, tmp_path, early_stop=Setting(6, 0.3, 2), **seeds)
    assert again.table == found.table


class Killed(BaseException):
    """Stands for an end that no one can catch."""


@pytest.mark.parametrize("early", [None, Setting(4, 0.5, 2)])
def test_stopped_after_any_write_it_goes_on_to_the_same_table(
    loaded: tuple, sea: Path, tmp_path: Path, early: Setting | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended before or after each of the writes to the storage, then run again."""
    from optuna.storages import RDBStorage

    options = {"early_stop": early, "settings": replace(SETTINGS, epochs=1, evaluations=2)}
    whole = sweep(loaded, sea, tmp_path / "whole", **options)
    rng = np.random.default_rng(0)
    writes = 0
    limit = [0]

    def breaking(name: str) -> None:
        write = getattr(RDBStorage, name)

        def broken(*arguments: Any, **more: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes == limit[0] and rng.random() < 0.5:
                raise Killed
            value = write(*arguments, **more)
            if writes == limit[0]:
                raise Killed
            return value

        monkeypatch.setattr(RDBStorage, name, broken)

    for name in (
        "create_new_trial",
        "set_trial_param",
        "set_trial_user_attr",
        "set_trial_intermediate_value",
        "set_trial_state_values",
        "set_study_user_attr",
    ):
        breaking(name)
    ends = 0
    folder = tmp_path / "broken"
    while True:
        limit[0] = writes + int(rng.integers(1, 12))
        try:
            found = sweep(loaded, sea, folder, **options)
            break
        except Killed:
            ends += 1
    assert ends > 3
    assert set(found.table.trials) == set(whole.table.trials)
    states = optuna.load_study(
        study_name="sea, standard", storage=f"sqlite:///{folder / 'trials.db'}"
    )
    assert len(states.trials) == 4
    states._storage._backend.engine.dispose()  # type: ignore[attr-defined]


SCRIPT = """
import sys
from pathlib import Path
from secondary_learners import load_base, run_trials
from secondary_learners.experiments.trials.sweep import Running, SweepPlan
from secondary_learners.experiments.trials.training import TrialSettings

if __name__ == "__main__":
    base, task, folder, processes = sys.argv[1:]
    run_trials(
        [task], *load_base(base), init_seeds=range(3), order_seeds=range(3),
        folder=Path(folder), running=Running(processes=int(processes), progress=False),
        plan=SweepPlan(
            settings=TrialSettings(epochs=2, batch_size=8, learning_rate=3e-3, evaluations=3)
        ),
    )
"""


def finished_in(folder: Path) -> dict[tuple[int, int], str]:
    """The finished trials as their rows of the table."""
    if not (folder / "trials.csv").exists():
        return {}
    return {(t.init_seed, t.order_seed): repr(t) for t in read_table(folder / "trials.csv").trials}


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_killed_with_two_processes_and_resumed_with_one(
    full: Sweep,
    loaded: tuple,
    base: Path,
    sea: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script, folder = tmp_path / "sweep.py", tmp_path / "out"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(base), str(sea), str(folder), "2"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 120
    while len(finished_in(folder)) < 2 and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.02)
    below = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = finished_in(folder)
    assert 2 <= len(before) < 9 and len(below) >= 2
    until = time.monotonic() + 30
    while alive(below) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(below)  # they ended with the process that was killed

    done = counted(monkeypatch)
    found = sweep(loaded, sea, folder, init_seeds=range(3), order_seeds=range(3))
    after = finished_in(folder)
    assert {pair: after[pair] for pair in before} == before
    assert len(done) <= 9 - len(before)  # one may have been told and not yet been in the table
    assert not {(init, order) for init, order, _ in done} & set(before)
    # Trials from processes of their own, and from this one: the same figures.
    assert set(found.table.trials) == set(full.table.of("sea", "standard"))


def test_a_process_that_dies_is_reported_and_what_is_done_is_kept(
    full: Sweep, loaded: tuple, sea: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = workers._receive
    heard = 0

    def dying(connection: Any, job: Any) -> Any:
        nonlocal heard
        heard += 1
        if heard == 20:  # 7 messages a trial, and two at a time: one trial at least has ended
            for pid in children(os.getpid()):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
            while True:  # what they had sent is read to its end
                receive(connection, job)
        return receive(connection, job)

    with monkeypatch.context() as patch:
        patch.setattr(workers, "_receive", dying)
        with pytest.raises(TrialsError, match="died, perhaps for want of memory"):
            sweep(loaded, sea, tmp_path, processes=2)
    study = optuna.load_study(
        study_name="sea, standard", storage=f"sqlite:///{tmp_path / 'trials.db'}"
    )
    done = [trial for trial in study.get_trials() if trial.state.is_finished()]
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    assert 1 <= len(done) < 4
    repeated = counted(monkeypatch)
    found = sweep(loaded, sea, tmp_path)
    kept = {tuple(trial.params[name] for name in ("init_seed", "order_seed")) for trial in done}
    assert not {(init, order) for init, order, _ in repeated} & kept
    assert len(repeated) == 4 - len(done)
    assert set(found.table.trials) < set(full.table.of("sea", "standard"))
