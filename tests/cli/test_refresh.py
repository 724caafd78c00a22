from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from cli_helpers import Tiny, learners


def refreshed(tiny: Tiny, *more: object, model: Path | None = None) -> tuple[object, ...]:
    text = ("--objective", tiny.objective, "--pool", tiny.pool, "--device", "cpu")
    return ("refresh", tiny.learner, "--model", model or tiny.base, *text, *more)


def with_card(tiny: Tiny, folder: Path, spearman: float) -> Path:
    """A copy of the learner whose card claims this figure."""
    shutil.copytree(tiny.learner, folder, ignore=shutil.ignore_patterns("work"))
    path = folder / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["held_out"]["linear"]["spearman"] = spearman
    path.write_text(json.dumps(evaluation))
    return folder


def test_a_learner_holds_at_the_weights_that_it_was_made_at(tiny: Tiny, tmp_path: Path) -> None:
    found = learners(*refreshed(tiny, "--contexts", 60, "--json"))
    assert found.err == ""
    value = found.json
    assert not value["changed"]
    assert value["method"] == "swapped"
    assert value["contexts"] == 60
    evaluation = json.loads((tiny.learner / "evaluation.json").read_text())
    assert value["card"] == evaluation["held_out"]["linear"]["spearman"]
    assert value["low"] < value["spearman"] < value["high"]
    assert (value["verdict"], found.code) in {("holds", 0), ("stale", 1), ("unclear", 3)}


def test_the_exit_status_is_the_verdict(tiny: Tiny, tmp_path: Path) -> None:
    figures = learners(*refreshed(tiny, "--contexts", 60, "--json")).json
    for verdict, code, card in (
        ("holds", 0, 2 * figures["low"] - 0.01),
        ("unclear", 3, figures["low"] + figures["high"]),
        ("stale", 1, 2 * figures["high"] + 0.01),
    ):
        copy = with_card(tiny, tmp_path / verdict, card)
        arguments = refreshed(tiny, "--contexts", 60, "--method", "swapped", "--quiet")
        found = learners("refresh", copy, *arguments[2:])
        assert found.code == code, found.err
        lines = found.out.splitlines()
        assert lines[0].endswith("(the very weights that its labels came from):")
        assert f"Spearman {figures['spearman']:.3f} with 60 fresh swapped labels" in lines[1]
        assert lines[2].startswith(f"{verdict}: ")


def test_other_weights_are_said_to_be_others(tiny: Tiny, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = tmp_path / "tuned"
    shutil.copytree(tiny.base, model)
    tensors = load_file(model / "model.safetensors")
    save_file(
        {k: v * 1.01 for k, v in tensors.items()}, model / "model.safetensors", {"format": "pt"}
    )
    found = learners(*refreshed(tiny, "--contexts", 20, "--seed", 1, model=model))
    assert found.code in (0, 1, 3), found.err
    assert "(other weights than those that its labels came from)" in found.out
    assert "labelling 20 contexts on" in found.err


def test_another_tokenizer_is_refused(tiny: Tiny) -> None:
    found = learners("refresh", tiny.learner, "--model", "mini", "--contexts", 20)
    assert found.code == 1
    assert "vocabulary" in found.err


def test_text_is_named_one_way_only(tiny: Tiny) -> None:
    common = ("refresh", tiny.learner, "--model", tiny.base)
    assert "go together" in learners(*common, "--pool", tiny.pool).err
    text = ("--objective", tiny.objective, "--pool", tiny.pool)
    assert "leave out" in learners(*common, *text, "--recipe", "python-docs-mini").err
    assert "is a base model" in learners(*common, "--recipe", "mini").err


@pytest.mark.slow
def test_the_shipped_learner_is_refreshed_offline() -> None:
    """The README's example: all the text of this recipe is part of Python."""
    found = learners("refresh", "python-docs-mini", "--model", "mini", "--contexts", 80, "--json")
    assert found.err == ""
    assert found.code == 0
    assert found.json["verdict"] == "holds"
    assert found.json["spearman"] > 0.7
    assert not found.json["changed"]


def test_a_subset_is_labelled_and_recorded(tiny: Tiny, tmp_path: Path) -> None:
    license = ("--license", "apache-2.0")
    names = ("--trainable", "transformer.h.1.*", "--trainable", "*ln_f*")
    out = tmp_path / "labels"
    found = learners("gains", *tiny.options, "--out", out, *names, *license, "--json")
    assert found.code == 0, found.err
    assert found.json["trainable"] == ["transformer.h.1.*", "*ln_f*"]
    recipe = tomllib.loads((out / "recipe.toml").read_text())
    assert recipe["labels"]["trainable"] == ["transformer.h.1.*", "*ln_f*"]
    fitted = learners("fit", out, "--out", tmp_path / "learner", "--json")
    assert fitted.code == 0, fitted.err
    card = (tmp_path / "learner" / "README.md").read_text(encoding="utf-8")
    assert "The step moved `transformer.h.1.*`, `*ln_f*` alone." in card
    assert learners("card", "check", tmp_path / "learner").code == 0
    wrong = learners("gains", *tiny.options, "--out", tmp_path / "x", "--trainable", "last-layer")
    assert wrong.code == 1
    assert "did you mean last-layers" in wrong.err
