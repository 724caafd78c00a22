from __future__ import annotations

from pathlib import Path

import pytest

from cli_helpers import learners
from secondary_learners.finetuning.trials.table import TrialsTable, write_table
from trials_helpers import sweep


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trials") / "sweep.csv"
    held = [*sweep("cola", 1, arm="standard"), *sweep("cola", 2, arm="filtered")]
    write_table(TrialsTable((*held, *sweep("rte", 3, arm="standard"))), path)
    return path


def test_the_analysis_in_words_and_as_a_figure(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = learners("trials", "analyse", path, "--plot", tmp_path / "a.png")
    assert found.code == 0, found.err
    for words in ("cola, filtered", "within order", "seeds for ±0.01", "n = 20", "W = "):
        assert words in found.out
    assert "start " in found.out and "look at" in found.out
    assert "filtered - standard" in found.out
    assert f"plot: {tmp_path / 'a.png'}" in found.err
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_analysis_as_json(path: Path) -> None:
    options = ("--json", "--difference", 0.02, "--floor", "rte=0.51")
    value = learners("trials", "analyse", path, *options).json
    assert value["table"] == str(path)
    assert [row["seeds_for"][0]["difference"] for row in value["tasks"]] == [0.02] * 3
    final = learners("trials", "analyse", path, "--json", "--final").json
    assert final["tasks"][0]["spread"]["mean"] < value["tasks"][0]["spread"]["mean"]
    assert final["tasks"][0]["stopping"] == []


def test_a_plan_for_each_task_and_arm(path: Path) -> None:
    found = learners("trials", "plan", path, "--budget", 4)
    assert found.code == 0, found.err
    assert "cola, standard: with a budget of 4 full runs, " in found.out
    assert found.out.count("expected best") == 3
    plans = learners("trials", "plan", path, "--budget", 4, "--json").json["plans"]
    assert [(p["task"], p["arm"]) for p in plans] == [
        ("cola", "standard"),
        ("cola", "filtered"),
        ("rte", "standard"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("analyze", "x"), 2, "Did you mean `learners trials analyse`?"),
        (("analyse", "SWEEP", "--floor", "rte"), 2, "--floor rte is not TASK=SCORE"),
        (("analyse", "SWEEP", "--floor", "=0.5"), 2, "is not TASK=SCORE"),
        (("analyse", "SWEEP", "--floor", "mrpc=0.5"), 1, "no task named 'mrpc'"),
        (("plan", "SWEEP"), 2, "Missing option '--budget'"),
        (("plan", "SWEEP", "--budget", 0), 2, "0 is not in the range"),
    ],
)
def test_what_is_wrong_is_said(path: Path, arguments: tuple, code: int, message: str) -> None:
    found = learners("trials", *(path if part == "SWEEP" else part for part in arguments))
    assert found.code == code
    assert message in found.err


def test_a_table_without_curves_has_no_plan(tmp_path: Path) -> None:
    rows = "".join(f"rte,{n},0,0.{n}\n" for n in range(1, 8))
    (tmp_path / "t.csv").write_text("task,init_seed,order_seed,score\n" + rows)
    found = learners("trials", "plan", tmp_path / "t.csv", "--budget", 3)
    assert found.code == 1
    assert "a column `fraction`" in found.err
