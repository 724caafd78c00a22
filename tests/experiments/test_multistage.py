"""Runs of a task with and without a filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from classification_helpers import write_task
from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.experiments import multistage_runs
from secondary_learners.experiments.multistage import StagedSettings
from secondary_learners.experiments.multistage_runs import (
    Arms,
    StagedTask,
    TrainerRows,
    run_arms,
    trained,
)
from secondary_learners.filtering.decisions import RandomFilter
from secondary_learners.registry.load import load_base
from secondary_learners.tasks.batches import LikeLengths


@pytest.mark.slow
def test_training_takes_rows_of_like_length_with_and_without_a_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_task(tmp_path / "sea", train=64)
    model, tokenizer = load_base("mini")
    settings = StagedSettings(longest=16, batch_size=4, like_lengths=True)
    task = StagedTask.read(tmp_path / "sea", model, tokenizer, settings)
    expected = list(LikeLengths(task.used.lengths, 4, 3))
    seen: list[int] = []
    inner = TrainerRows.collate

    def collate(rows: TrainerRows, places: Sequence[int]) -> dict[str, Any]:
        seen.extend(places)
        return inner(rows, places)

    monkeypatch.setattr(TrainerRows, "collate", collate)
    for filter_ in (None, RandomFilter(0.5, seed=0)):
        seen.clear()
        trained(task, settings, 1, 3, filter_)
        assert seen == expected


@pytest.mark.slow
def test_runs_are_kept_with_their_settings_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_task(tmp_path / "sea", train=64)
    settings = StagedSettings(longest=16, batch_size=8)
    task = StagedTask.read(tmp_path / "sea", *load_base("mini"), settings)
    plan = Arms(1, [0], settings, arms=("plain", "random"))
    first = list(run_arms(task, plan, tmp_path / "runs"))
    assert [run.arm for run in first] == ["plain", "random"]
    assert first[0].seen == first[0].trained == 64
    done: list[str] = []
    measure = multistage_runs._measure

    def spy(task: Any, plan: Any, arm: str, *rest: Any) -> Any:
        done.append(arm)
        return measure(task, plan, arm, *rest)

    monkeypatch.setattr(multistage_runs, "_measure", spy)
    assert list(run_arms(task, plan, tmp_path / "runs")) == first
    assert done == []
    other = replace(plan, settings=replace(settings, forwards="same"))  # not of plain training
    list(run_arms(task, other, tmp_path / "runs"))
    assert done == ["random"]
    list(run_arms(task.part(0, 40), plan, tmp_path / "runs"))
    assert done == ["random", "plain", "random"]
    with pytest.raises(SecondaryLearnersError, match="'learner' needs one"):
        list(run_arms(task, replace(plan, arms=("learner",)), None))


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"batch_size": 0}, {"dropout": 1.0}, {"admit_share": 1.0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SecondaryLearnersError, match=next(iter(wrong))):
        StagedSettings(**wrong)  # type: ignore[arg-type]
