from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from cli_helpers import learners
from distil_helpers import LENGTH, RECIPE, REPORTED, ROWS, write_data
from recipes_helpers import make
from secondary_learners.cards.check import check_card
from secondary_learners.errors import CorpusError
from secondary_learners.learners.artifact import read_learner
from secondary_learners.learners.statistics import r2, spearman
from secondary_learners.publishing.audit import audit
from secondary_learners.recipes.distilled_learner import make as distil_module
from secondary_learners.recipes.distilled_learner import stages
from secondary_learners.recipes.distilled_learner.published import fold_rows, read_published_labels
from secondary_learners.recipes.likeness import Verdict
from secondary_learners.recipes.parsing import parse_recipe, recipe_toml
from secondary_learners.recipes.rebuild import read_published, rebuild
from secondary_learners.recipes.run import Run
from secondary_learners.registry.entries import artifact_entry
from secondary_learners.registry.index import read_index

COMMON: dict[str, Any] = {
    "command": "learners run tiny-distilled --corpus DATA",
    "progress": False,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil_module, "RESAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny-distilled"
    recipe = out.parent / "tiny-distilled.toml"
    recipe.write_text(recipe_toml(RECIPE))
    result = learners("run", recipe, "--corpus", data, "--out", out, "--json")
    assert result.code == 0, result.err
    assert result.json["readings"] == RECIPE.labels.readings
    return out


def evaluation_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_bytes())
    return found


def test_the_recipe_round_trips() -> None:
    assert parse_recipe(recipe_toml(RECIPE)) == RECIPE


def test_the_learner_that_was_stored_is_the_one_that_was_measured(made: Path, data: Path) -> None:
    learner, evaluation = read_learner(made), evaluation_of(made)
    rows = read_published_labels(RECIPE.labels, data).reported
    found = learner.predict_gain(rows.input_ids).double().numpy()
    figures = evaluation["held_out"]["conv"]
    assert spearman(rows.gains, found) == pytest.approx(figures["spearman"], abs=1e-3)
    assert r2(rows.gains, found) == pytest.approx(figures["r2"], abs=1e-4)
    assert figures["contexts"] == REPORTED
    assert figures["spearman"] > 0.8
    low, high = figures["spearman_interval"]
    assert low < figures["spearman"] < high
    better, worse = figures, evaluation["held_out"]["ridge"]
    for measure in ("spearman", "r2"):
        difference = evaluation["difference"][measure]
        assert difference == pytest.approx(better[measure] - worse[measure], abs=1e-12)
    stored = safetensors.numpy.load_file(made / "model.safetensors")
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}
    assert evaluation["bytes"] == sum(array.nbytes for array in stored.values())
    assert evaluation["cross_validation"]["models"]["teacher"]["spearman"] > 0.8
    assert evaluation["readings"] == RECIPE.labels.readings


def test_what_was_made_could_be_published(made: Path, tmp_path: Path) -> None:
    assert check_card(made) == []
    copy = shutil.copytree(made, tmp_path / "copy", ignore=shutil.ignore_patterns("work"))
    assert audit(copy) == []
    entry = read_index(made / "work")["tiny-distilled"]
    assert (entry.kind, entry.base, entry.objective) == ("learner", RECIPE.base, "tiny-text")
    published = artifact_entry(copy, location="owner/name", revision="0" * 40)
    assert (published.kind, published.corpus) == ("learner", entry.corpus)


@pytest.mark.parametrize("change", ["spearman", "interval", "folds"])
def test_a_card_with_other_figures_is_refused(made: Path, tmp_path: Path, change: str) -> None:
    copy = shutil.copytree(made, tmp_path / "copy", ignore=shutil.ignore_patterns("work"))
    evaluation = evaluation_of(copy)
    if change == "spearman":
        evaluation["held_out"]["conv"]["spearman"] = 0.999
    elif change == "interval":
        evaluation["difference"]["r2_interval"] = [0.5, 0.6]
    else:
        evaluation["cross_validation"]["models"]["ridge"]["folds"][0] = 0.123
    (copy / "evaluation.json").write_text(json.dumps(evaluation))
    assert check_card(copy)


def test_labels_kept_for_reporting_change_nothing_but_the_report(
    made: Path, tmp_path: Path
) -> None:
    turned = write_data(tmp_path / "turned", reported_sign=-1.0)
    other = make(RECIPE, turned, tmp_path / "out", **COMMON).folder
    for name in ("model.safetensors",):
        assert (other / name).read_bytes() == (made / name).read_bytes()
    configs = [json.loads((folder / "config.json").read_bytes()) for folder in (made, other)]
    for config in configs:
        del config["objective"]["digest"]  # of the whole file
    assert configs[0] == configs[1]
    ours, theirs = evaluation_of(made), evaluation_of(other)
    assert theirs["held_out"]["conv"]["spearman"] < 0 < ours["held_out"]["conv"]["spearman"]
    assert theirs["cross_validation"] == ours["cross_validation"]
    assert theirs["ridge_strength"] == ours["ridge_strength"]


def test_a_killed_run_goes_on_where_it_was(
    made: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "out" / "work"
    shutil.copytree(made / "work", work)
    (student,) = (work / "runs").glob("student-3-*.safetensors")
    student.write_bytes(b"cut off")

    def again(*_: object, **__: object) -> None:
        raise AssertionError("made twice")

    monkeypatch.setattr(stages, "token_embeddings", again)
    monkeypatch.setattr(stages, "fit_kernel_ridge", again)
    monkeypatch.setattr(stages, "fit_baseline", again)
    other = make(RECIPE, data, tmp_path / "out", **COMMON).folder
    for name in ("model.safetensors", "config.json"):
        assert (other / name).read_bytes() == (made / name).read_bytes()
    changed = replace(RECIPE, embeddings=replace(RECIPE.embeddings, neighbors=59))
    with pytest.raises(AssertionError, match="made twice"):
        make(changed, data, tmp_path / "out", **COMMON)


def test_a_rebuild_has_the_same_bytes(made: Path, data: Path, tmp_path: Path) -> None:
    published = read_published(made)
    out = tmp_path / "again"
    found = rebuild(published, Run(out=out, corpus=data))
    assert found.verdict is Verdict.IDENTICAL
    names = {figure.name for figure in found.figures}
    assert {"correlation of scores", "Spearman (conv, held out)", "R2 (ridge, held out)"} <= names


def test_what_is_missing_or_wrong_is_explained(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no corpus folder.*needs labels\.npz.*--corpus FOLDER"):
        make(RECIPE, None, tmp_path / "out", **COMMON)
    copy = shutil.copytree(data, tmp_path / "data")
    (copy / "labels.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(CorpusError, match="does not hold contexts"):
        read_published_labels(RECIPE.labels, copy)
    with pytest.raises(CorpusError, match="Change `reported`"):
        read_published_labels(replace(RECIPE.labels, reported=ROWS), data)
    shutil.copy(data / "labels.npz", copy)
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(CorpusError, match="not a file of tokenizers"):
        make(RECIPE, copy, tmp_path / "out", **COMMON)


def test_contexts_that_share_twelve_tokens_are_in_one_fold() -> None:
    random = np.random.default_rng(0)
    rows = random.integers(0, 10_000, (300, LENGTH + 8))
    rows[10, 3:15] = rows[20, 8:20]
    rows[20, :4] = 1  # away from what 10 shares
    rows[30, 8:20] = rows[10, 2:14]
    rows[40, :11] = rows[50, :11]  # one short
    fold = fold_rows(rows, 5, seed=0)
    assert fold[10] == fold[20] == fold[30]
    assert np.bincount(fold, minlength=5).min() >= 58
    assert any(fold_rows(rows, 5, seed=s)[40] != fold_rows(rows, 5, seed=s)[50] for s in range(5))
