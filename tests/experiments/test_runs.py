"""One store of finished runs: killed, damaged, shared, and begun with other settings."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.experiments.runs import RunStore, alone_in, differences

IDENTITY = {"settings": {"updates": 60, "rate": 2e-4}, "pool": "a" * 64, "seeds": (1, 2)}


def test_runs_are_read_back_by_name_and_identity(tmp_path: Path) -> None:
    store = RunStore.begin(tmp_path, IDENTITY)
    assert store.read("standard", seed=0) is None
    store.write("standard", {"perplexity": 12.5, "points": [1, 2]}, seed=0)
    store.write("scores", {"seconds": 1.0}, {"x": np.arange(6).reshape(2, 3).T}, seed=0)
    again = RunStore.begin(tmp_path, IDENTITY)
    kept = again.read("standard", seed=0)
    assert kept is not None
    assert (kept.figures, kept.arrays) == ({"perplexity": 12.5, "points": [1, 2]}, {})
    with_arrays = again.read("scores", seed=0)
    assert with_arrays is not None and with_arrays.figures == {"seconds": 1.0}
    np.testing.assert_array_equal(with_arrays.arrays["x"], np.arange(6).reshape(2, 3).T)
    assert again.read("standard", seed=1) is None
    assert again.read("random", seed=0) is None


def test_names_that_look_alike_in_a_file_system_stay_apart(tmp_path: Path) -> None:
    store = RunStore.begin(tmp_path, {})
    store.write("a b", {"value": 1}, arm="a b")
    store.write("a_b", {"value": 2}, arm="a_b")
    one, two = store.read("a b", arm="a b"), store.read("a_b", arm="a_b")
    assert one is not None and two is not None
    assert (one.figures["value"], two.figures["value"]) == (1, 2)


def test_without_a_folder_nothing_is_kept() -> None:
    store = RunStore.begin(None, IDENTITY)
    store.write("standard", {"value": 1})
    assert store.read("standard") is None


def test_other_settings_are_refused_with_their_names_and_values(tmp_path: Path) -> None:
    RunStore.begin(tmp_path, IDENTITY)
    other = {**IDENTITY, "settings": {"updates": 90, "rate": 2e-4}, "pool": "b" * 64}
    with pytest.raises(SecondaryLearnersError) as error:
        RunStore.begin(tmp_path, other)
    text = str(error.value)
    assert "settings.updates was 60 and is now 90" in text
    assert "pool was data of sha256 aaaaaaaaaaaa… and is now data of sha256 bbbbbbbbbbbb…" in text
    assert "rate" not in text and "seeds" not in text
    RunStore.begin(tmp_path, IDENTITY)


def test_a_setting_that_was_not_there_differs() -> None:
    assert differences({"a": 1}, {"a": 1, "b": None}) == ["b was not there and is now None"]
    assert differences({"a": {"b": 1}}, {"a": {}}) == [
        "a.b was 1 and is now not there",
        "a was not there and is now {}",
    ]
    assert differences({"a": 1.0}, {"a": 1}) == []


@pytest.mark.parametrize("arrays", [None, {"x": np.ones(9)}])
@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", None])
def test_a_damaged_run_is_made_again_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, arrays: Any, damage: bytes | None
) -> None:
    store = RunStore.begin(tmp_path, IDENTITY)
    store.write("standard", {"value": 1}, arrays, seed=0)
    (path,) = (tmp_path / "runs").iterdir()
    path.write_bytes(path.read_bytes()[:-5] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert store.read("standard", seed=0) is None
    assert f"{path} is damaged" in caplog.text
    store.write("standard", {"value": 2}, arrays, seed=0)
    kept = store.read("standard", seed=0)
    assert kept is not None and kept.figures == {"value": 2}


def test_a_file_of_another_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    store = RunStore.begin(tmp_path, IDENTITY)
    store.write("standard", {"value": 1}, seed=0)
    (path,) = (tmp_path / "runs").iterdir()
    store.write("standard", {"value": 2}, seed=1)
    (other,) = (found for found in (tmp_path / "runs").iterdir() if found != path)
    other.replace(path)
    assert store.read("standard", seed=0) is None


def test_damaged_settings_are_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    RunStore.begin(tmp_path, IDENTITY).write("standard", {"value": 1})
    for text in ("{", "[]"):
        (tmp_path / "settings.json").write_text(text)
        with caplog.at_level(logging.WARNING):
            kept = RunStore.begin(tmp_path, IDENTITY).read("standard")
        assert kept is not None and "settings.json is damaged" in caplog.text
        caplog.clear()
    with pytest.raises(SecondaryLearnersError, match="other settings"):
        RunStore.begin(tmp_path, {})


def _write_until_killed(folder: Path, ready: Any) -> None:
    store = RunStore.begin(folder, IDENTITY)
    for seed in range(10**6):
        store.write("run", {"seed": seed}, {"x": np.full(20_000, seed)}, seed=seed)
        if seed == 3:
            ready.set()


def test_a_kill_in_the_middle_leaves_whole_runs_and_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_write_until_killed, args=(tmp_path, ready))
    process.start()
    assert ready.wait(120)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    store = RunStore.begin(tmp_path, IDENTITY)
    finished = len(list((tmp_path / "runs").glob("[!.]*.safetensors")))
    assert finished >= 4
    for seed in range(finished):
        kept = store.read("run", seed=seed)
        assert kept is not None and kept.figures == {"seed": seed}
        assert (kept.arrays["x"] == seed).all()
    assert store.read("run", seed=finished) is None


def _begin(folder: Path, updates: int, together: Any, answers: Any) -> None:
    together.wait()
    try:
        RunStore.begin(folder, {"updates": updates}).write("run", {"updates": updates}, seed=0)
        answers.put(("begun", updates))
    except SecondaryLearnersError as error:
        answers.put(("refused", str(error)))


def test_of_two_processes_at_once_with_other_settings_one_is_refused(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together, answers = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_begin, args=(tmp_path, updates, together, answers))
        for updates in (1, 2)
    ]
    for process in processes:
        process.start()
    results = dict(answers.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    begun = results["begun"]
    assert f"updates was {begun} and is now {3 - begun}" in results["refused"]
    kept = RunStore.begin(tmp_path, {"updates": begun}).read("run", seed=0)
    assert kept is not None and kept.figures == {"updates": begun}


def _stay(folder: Path, inside: Any) -> None:
    with alone_in(folder):
        inside.set()
        signal.pause()


def test_one_process_works_alone_until_it_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    inside = context.Event()
    process = context.Process(target=_stay, args=(tmp_path, inside))
    process.start()
    assert inside.wait(120)
    refused = pytest.raises(SecondaryLearnersError, match="another process is working in")
    with refused, alone_in(tmp_path):
        pass
    process.kill()
    process.join()
    with alone_in(tmp_path):
        pass
