from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cli_helpers import Tiny, learners


@pytest.fixture
def published(tiny: Tiny, tmp_path: Path) -> Path:
    folder = tmp_path / "ships"
    shutil.copytree(tiny.learner, folder, ignore=shutil.ignore_patterns("work"))
    return folder


def test_a_learner_of_own_text_is_rebuilt_to_the_byte(
    tiny: Tiny, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = learners("rebuild", "./ships", "--corpus", tiny.objective.parent, "--device", "cpu")
    assert result.code == 0, result.err
    assert "rebuilding my-ships in runs/my-ships-rebuilt" in result.err
    lines = result.out.splitlines()
    assert lines[0].split() == ["FILE", "BYTES"]
    assert any(line.split() == ["model.safetensors", "the", "same"] for line in lines)
    assert any(line.split()[:2] == ["correlation", "of"] for line in lines)
    assert "OUTSIDE" not in result.out
    assert lines[-1].startswith("my-ships: identical: the weights")
    assert (tmp_path / "runs" / "my-ships-rebuilt" / "config.json").is_file()

    # And nothing of this machine is in what would be published.
    for name in ("recipe.toml", "README.md", "evaluation.json"):
        text = (published / name).read_text()
        assert str(tiny.objective.parent) not in text
        assert str(tiny.learner.parent) not in text


def test_json_and_exit_status_of_a_rebuild_that_differs(
    tiny: Tiny, published: Path, tmp_path: Path
) -> None:
    path = published / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["held_out"]["linear"]["spearman"] = 0.01
    evaluation["held_out"]["conv"] = {"spearman": 0.5, "r2": 0.5}
    evaluation["device"] = "an abacus"
    path.write_text(json.dumps(evaluation))
    arguments = ("rebuild", published, "--corpus", tiny.pool.parent, "--out", tmp_path / "out")
    result = learners(*arguments, "--json")
    assert result.code == 1
    assert result.err == ""
    value = result.json
    assert value["verdict"] == "different"
    assert value["name"] == "my-ships"
    figures = {figure["name"]: figure for figure in value["figures"]}
    assert not figures["Spearman (linear, held out)"]["within"]
    assert figures["Spearman (conv, held out)"]["difference"] is None
    assert figures["correlation of scores"]["within"]
    assert {c["name"] for c in value["circumstances"]} == {"device"}
    assert {file["name"]: file["same"] for file in value["files"]}["model.safetensors"]

    told = learners(*arguments, "--quiet")
    assert told.code == 1
    assert told.err == ""
    assert "OUTSIDE" in told.out
    assert "an abacus" in told.out
    assert told.out.splitlines()[-1].startswith("my-ships: different: 3 of ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["rebuild", "boks-mini"], 1, "no learner named 'boks-mini': did you mean books-mini"),
        (["rebuild", "books-mini", "--out", "OUT"], 1, "Try `--corpus FOLDER`"),
        (["rebuild", "./absent"], 1, "absent"),
        (["rebuild", "books-mini", "--device", "tpu9"], 1, "device 'tpu9' cannot be used"),
        (["rebuild", "SHIPS", "--locked"], 1, "learners.lock"),
        (["rebuild"], 2, "Missing argument 'NAME'"),
    ],
)
def test_what_cannot_be_rebuilt(
    published: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    places = {"OUT": str(tmp_path / "out"), "SHIPS": str(published)}
    result = learners(*[places.get(argument, argument) for argument in arguments])
    assert result.code == code
    assert message in result.err
    assert result.out == ""


def test_run_measures_energy(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("codecarbon")
    monkeypatch.chdir(tmp_path)
    common = ("run", *tiny.options, "--energy", "--out", tmp_path / "out")
    result = learners(*common, "--country", "fra", "--json")
    assert result.code == 0, result.err
    assert result.json["energy"]["country"] == "FRA"
    assert result.json["energy"]["kwh"] > 0
    assert os.listdir(tmp_path) == ["out"]
    wrong = learners(*common, "--country", "Freedonia")
    assert wrong.code == 1
    assert "FRA" in wrong.err
