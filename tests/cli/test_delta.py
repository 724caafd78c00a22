"""`learners delta`, end to end on a small base model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from cli_helpers import Result, learners
from delta_helpers import Task, write_task
from secondary_learners import load_delta
from secondary_learners.deltas.artifact import read_delta


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return write_task(tmp_path_factory.mktemp("task"))


def make(task: Task, out: Path, *options: object) -> Result:
    return learners(
        *("delta", "make", "--train", task.train, "--test", task.test, "--base", task.base),
        *("--task", "ships", "--epochs", 4, "--batch-size", 10, "--learning-rate", 5e-3),
        *("--head-learning-rate", 1e-2, "--device", "cpu", "--out", out, *options),
    )


@pytest.fixture(scope="module")
def mask(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("runs") / "ships-mask"
    made = make(task, out, "--license", "apache-2.0", "--json")
    assert made.code == 0, made.err
    return out, made.json


def test_make_measures_what_it_wrote(task: Task, mask: tuple[Path, Any]) -> None:
    out, value = mask
    delta = read_delta(out)
    assert delta.config.kind == "mask"
    assert delta.config.classes == ["ship", "tax"]
    assert value == {"folder": str(out), **json.loads((out / "evaluation.json").read_text())}
    assert value["full_model_bytes"] / value["bytes"] > 20
    assert value["full_fine_tuning"]["accuracy"] > 0.9
    applied = learners("delta", "apply", out, "--test", task.test, "--json")
    assert applied.code == 0, applied.err
    assert applied.json["accuracy"] == value["metrics"]["accuracy"]
    assert applied.json["mcc"] == value["metrics"]["mcc"]


def test_layers(task: Task, tmp_path: Path) -> None:
    made = make(
        *(task, tmp_path / "ships", "--kind", "layers", "--layers", r"h\.1\.mlp", "--no-compare"),
        *("--examples", 40, "-q"),
    )
    assert made.code == 0, made.err
    assert "accuracy" in made.out
    delta = read_delta(tmp_path / "ships")
    assert len(delta.config.layers) == 4
    assert delta.config.training["examples"] == 40
    assert "not measured" in (tmp_path / "ships" / "README.md").read_text()


def test_a_merged_model_is_a_plain_one(mask: tuple[Path, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    out, _ = mask
    merged = learners("delta", "apply", out, "--out", tmp_path / "merged")
    assert merged.code == 0, merged.err
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert plain.config.id2label == {0: "ship", 1: "tax"}
    applied = load_delta(out)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, applied.model(ids).logits)


def test_show(mask: tuple[Path, Any]) -> None:
    out, value = mask
    shown = learners("delta", "show", out)
    assert shown.out.startswith("# ships-mask\n")
    assert f"{value['bytes']:,} bytes" in shown.out
    assert learners("delta", "show", out, "--json").json["config"]["kind"] == "mask"


def test_distances(task: Task, mask: tuple[Path, Any], tmp_path: Path) -> None:
    out, _ = mask
    plot = tmp_path / "d.svg"
    found = learners("delta", "distances", out, "--share", 0.3, "--plot", plot)
    assert found.code == 0, found.err
    assert "critical layers, 0.3 of the weights: transformer.h." in found.out
    assert plot.is_file()
    of_model = learners("delta", "distances", task.base, "--base", task.base, "--json")
    assert of_model.code == 0, of_model.err
    assert {row["angular"] for row in of_model.json["distances"]} == {0.0}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("show", "ships"), "no delta named 'ships'"),
        (("apply", "MASK"), "--test FILE"),
        (("apply", "MASK", "--out", "MASK"), "exists already"),
        (("apply", "MASK", "--test", "TEST", "--base", "mini"), "Load .* unchanged|of shape"),
        (("distances", "BASE"), "name the --base"),
    ],
)
def test_mistakes(
    task: Task, mask: tuple[Path, Any], arguments: tuple[str, ...], reason: str
) -> None:
    places = {"MASK": mask[0], "TEST": task.test, "BASE": task.base}
    found = learners("delta", *(places.get(word, word) for word in arguments))
    assert found.code != 0
    assert re.search(reason, found.err)
    assert "Traceback" not in found.err


def test_a_bad_name_or_layer(task: Task, tmp_path: Path) -> None:
    assert "lower-case words" in make(task, tmp_path / "a b").err
    assert "query" in make(task, tmp_path / "ok", "--layers", "query").err
    assert list(tmp_path.iterdir()) == []
