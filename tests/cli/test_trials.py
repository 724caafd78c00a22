from __future__ import annotations

from pathlib import Path

import pytest

from classification_helpers import write_task
from cli_helpers import Tiny, learners
from secondary_learners.experiments.trials.table import TrialsTable, write_table
from tiny_models import write_base
from trials_helpers import sweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trials") / "sweep.csv"
    held = [*sweep("cola", 1, arm="standard"), *sweep("cola", 2, arm="filtered")]
    write_table(TrialsTable((*held, *sweep("rte", 3, arm="standard"))), path)
    return path


def test_the_analysis_in_words_and_as_a_figure(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = learners("trials", "analyze", path, "--plot", tmp_path / "a.png")
    assert found.code == 0, found.err
    for words in ("cola, filtered", "within order", "seeds for ±0.01", "n = 20", "W = "):
        assert words in found.out
    assert "start " in found.out and "look at" in found.out
    assert "filtered - standard" in found.out
    assert f"plot: {tmp_path / 'a.png'}" in found.err
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_analysis_as_json(path: Path) -> None:
    options = ("--json", "--difference", 0.02, "--floor", "rte=0.51")
    value = learners("trials", "analyze", path, *options).json
    assert value["table"] == str(path)
    assert [row["seeds_for"][0]["difference"] for row in value["tasks"]] == [0.02] * 3
    assert learners("trials", "analyse", path, *options).json == value  # as it was once spelled
    final = learners("trials", "analyze", path, "--json", "--final").json
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
        (("analyz", "x"), 2, "Did you mean `learners trials analyze`?"),
        (("analyze", "SWEEP", "--floor", "rte"), 2, "--floor rte is not TASK=SCORE"),
        (("analyze", "SWEEP", "--floor", "=0.5"), 2, "is not TASK=SCORE"),
        (("analyze", "SWEEP", "--floor", "mrpc=0.5"), 1, "no task named 'mrpc'"),
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


@pytest.fixture(scope="module")
def sweeping(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The options of a tiny sweep."""
    pytest.importorskip("optuna")
    folder = tmp_path_factory.mktemp("sweep")
    base, task = write_base(folder / "base"), write_task(folder / "sea")
    options = ("--base", base, "--task", task, "--init-seeds", 2, "--order-seeds", 2)
    return (*options, "--epochs", 1, "--batch-size", 8, "--evaluations", 2, "--max-length", 16)


def test_a_sweep_and_its_table(sweeping: tuple, tmp_path: Path) -> None:
    found = learners("trials", "run", *sweeping, "--out", tmp_path)
    assert found.code == 0, found.err
    assert "sea, standard  4" in found.out
    assert "sea: 48 examples to train on, 30 to evaluate on, 6 steps a trial" in found.err
    assert f"learners trials analyze {tmp_path / 'trials.csv'}" in found.err
    value = learners("trials", "run", *sweeping, "--out", tmp_path, "--json").json
    assert (value["trials"], value["stopped"], list(value["floors"])) == (4, 0, ["sea"])
    assert value["tasks"][0]["spread"]["trials"] == 4
    assert learners("trials", "analyze", value["table"]).code == 0


def test_a_sweep_with_a_learner_and_early_stopping(
    sweeping: tuple, tmp_path: Path, tiny: Tiny
) -> None:
    filters = ("none", f"{tiny.learner}=quantile:0.5", "random=quantile:0.5")
    arms = [word for text in filters for word in ("--filter", text)]
    base = ("--base", tiny.base, *sweeping[2:])
    options = (*base, *arms, "--early-stop", "4,0.5,1", "--out", tmp_path)
    found = learners("trials", "run", *options, "--json")
    assert found.code == 0, found.err
    value = found.json
    assert [row["arm"] for row in value["tasks"]] == [
        "standard",
        "my-ships quantile:0.5",
        "random quantile:0.5",
    ]
    assert (value["trials"], value["stopped"]) == (12, 9)
    assert value["early_stopping"]["sea"]["cost"] == 2.5
    again = learners("trials", "run", *options)
    assert "sea: start 4, look at 50%, finish 1 (cost 2.50 full runs)" in again.err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--filter", "books-mini"), 2, "--filter books-mini is not LEARNER=THRESHOLD"),
        (("--filter", "books-mini=often"), 1, "no threshold named 'often'"),
        (("--filter", "bocks-mini=1"), 1, "did you mean books-mini"),
        (("--filter", "books-mini=1"), 1, "this tokenizer's vocabulary is"),
        (("--early-stop", "4,1"), 2, "--early-stop 4,1 is not T,F,P"),
        (("--early-stop", "1,0.5,2"), 1, "is not early stopping"),
        (("--early-stop", "9,0.5,2"), 1, "2 × 2 seeds make only 4 trials"),
        (("--metric", "bleu"), 1, "no metric named 'bleu'"),
        (("--learning-rate", "nan"), 1, "the setting learning_rate is nan"),
        (("--task", "nowhere"), 2, "'nowhere' does not exist"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said(
    sweeping: tuple, tmp_path: Path, options: tuple, code: int, message: str
) -> None:
    found = learners("trials", "run", *sweeping, *options, "--out", tmp_path)
    assert (found.code, message in found.err) == (code, True), found.err
