"""Multistage recipes: from a task to a learner of its losses with a card, resumable, rebuilt."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classification_helpers import write_task
from cli_helpers import learners
from recipes_helpers import make
from secondary_learners.cards.check import CardFault, check_card
from secondary_learners.content import content
from secondary_learners.errors import CorpusError, RecipeError
from secondary_learners.experiments.multistage import StagedSettings
from secondary_learners.files import sha256_file
from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.filtering.predictors import LearnerPredictor
from secondary_learners.filtering.selection import pad
from secondary_learners.publishing.audit import audit
from secondary_learners.recipes.likeness import Verdict
from secondary_learners.recipes.loss_learner import make as multistage
from secondary_learners.recipes.loss_learner.make import read_staged_task
from secondary_learners.recipes.loss_learner.recipe import LossPlan, MultistageRecipe
from secondary_learners.recipes.parsing import recipe_toml
from secondary_learners.recipes.rebuild import read_published, rebuild
from secondary_learners.recipes.run import Made, Run
from secondary_learners.registry.load import load_base, load_learner
from secondary_learners.text.corpus import Source

pytestmark = pytest.mark.slow

FILES = Source("sea", files="classification/sea/*.tsv", archive="classification.tar.xz")
COMMON: dict[str, Any] = {"device": "cpu", "command": "learners run sea --corpus DATA"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_task(folder / "classification" / "sea", train=240)
    return folder


@pytest.fixture(scope="module")
def plan(base: Path) -> MultistageRecipe:
    settings = StagedSettings(learning_rate=5e-3, longest=16, examples=80)
    return MultistageRecipe(
        name="sea-losses",
        summary="Of the sea",
        base=str(base),
        sources=(FILES,),
        seeds=2,
        settings=settings,
    )


@pytest.fixture(scope="module")
def made(plan: MultistageRecipe, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("made") / "sea-losses"
    return make(plan, corpus, out, progress=False, **COMMON)


def test_is_an_ordinary_learner_that_skips_from_the_first_step(
    made: Made, plan: MultistageRecipe, corpus: Path
) -> None:
    learner = load_learner(made.folder)
    base, tokenizer = load_base(plan.base)
    learner.check_tokenizer(tokenizer)
    task = read_staged_task(plan, corpus, base, tokenizer)
    ids, mask = pad(task.used.ids)
    filter_ = MultistageFilter(LearnerPredictor(learner, 0.0))
    admitted = filter_.admit(ids, mask, step=0, total=10)
    assert 0.2 < admitted.mean() < 0.8
    assert (admitted == (learner.score(ids, mask).numpy() >= 0)).all()
    assert learner.config.labels["method"] == "training loss"
    assert learner.config.labels["count"] == learner.config.labels["trained_on"] == 60


def test_compares_on_examples_that_the_learner_had_nothing_to_do_with(made: Made) -> None:
    comparison = made.evaluation["fine_tuning"]
    rows = {row["arm"]: row for row in comparison["rows"]}
    assert list(rows) == ["plain", "multistage", "random", "learner", "random-learner"]
    assert comparison["examples"] == rows["plain"]["trained"] == rows["plain"]["forwarded"] == 80
    mine, blind = rows["learner"], rows["random-learner"]
    assert 0 < mine["trained"] <= mine["forwarded"] < 80
    assert blind["trained"] == pytest.approx(mine["trained"], abs=20)
    assert mine["fewer_trained"] == pytest.approx(80 / mine["trained"])
    assert all(row["seeds"] == 2 and row["seconds"] > 0 for row in rows.values())


def test_the_card_is_complete_and_says_what_it_predicts(made: Made, tmp_path: Path) -> None:
    assert check_card(made.folder) == []
    text = (made.folder / "README.md").read_text()
    for words in ("not an information gain", "trained once on 60 examples", "blindly", "2 seeds"):
        assert words in text
    row = next(line for line in text.splitlines() if line.startswith("| **multistage, this"))
    changed = text.replace(row, row.replace("× |", "0× |"))
    assert CardFault.FIGURE in {problem.kind for problem in check_card(changed, made.folder)}
    # Its base model is a folder of this machine, and nobody else's.
    assert all("machine" in str(problem) for problem in audit(made.folder))


def test_a_killed_run_goes_on(
    made: Made,
    plan: MultistageRecipe,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = multistage.run_arms

    def killed(*arguments: Any) -> None:
        task, arms, folder = arguments
        list(run(task, replace(arms, arms=("plain", "multistage")), folder))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(multistage, "run_arms", killed)
        with pytest.raises(KeyboardInterrupt):
            make(plan, corpus, tmp_path, progress=False, **COMMON)
    assert not (tmp_path / "config.json").exists()
    monkeypatch.setattr(multistage, "measure_losses", None)  # never again
    again = make(plan, corpus, tmp_path, progress=False, **COMMON)
    for name in ("model.safetensors", "config.json", "recipe.toml"):
        assert sha256_file(tmp_path / name) == sha256_file(made.folder / name)
    scores, expected = (
        [(row["arm"], row["score"], row["trained"]) for row in it.evaluation["fine_tuning"]["rows"]]
        for it in (again, made)
    )
    assert scores == expected


def test_is_rebuilt_to_the_same_bytes(made: Made, corpus: Path, tmp_path: Path) -> None:
    found = rebuild(read_published(made.folder), Run(out=tmp_path / "again", corpus=corpus))
    assert found.verdict is Verdict.IDENTICAL
    names = {figure.name for figure in found.figures}
    assert {"score (learner)", "Spearman (linear, held out)", "correlation of scores"} <= names


def test_reads_an_archive_as_it_reads_files(
    plan: MultistageRecipe, corpus: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "classification.tar.xz", "w:xz") as archive:
        archive.add(corpus / "classification", "classification")
    loaded = load_base(plan.base)
    one, two = (read_staged_task(plan, root, *loaded) for root in (corpus, tmp_path))
    assert one.encoded.digest == two.encoded.digest
    assert one.used == two.used


def test_says_what_is_missing(plan: MultistageRecipe, corpus: Path, tmp_path: Path) -> None:
    loaded = load_base(plan.base)
    for root, words in ((tmp_path, "nothing matches"), (None, "--corpus FOLDER")):
        with pytest.raises(CorpusError, match=words):
            read_staged_task(plan, root, *loaded)
    (tmp_path / "classification" / "sea").mkdir(parents=True)
    (tmp_path / "classification" / "sea" / "train.tsv").write_text("label\ttext\n0\ta\n1\tb\n")
    with pytest.raises(CorpusError, match=r"gives train\.tsv\. A task is train\.tsv and dev"):
        read_staged_task(plan, tmp_path, *loaded)
    little = replace(plan, losses=LossPlan(share=0.01))
    with pytest.raises(CorpusError, match="too few to learn losses from"):
        make(little, corpus, tmp_path / "out", **COMMON)


def test_refuses_plans_that_make_no_sense(plan: MultistageRecipe) -> None:
    for plan_of, words in (
        (lambda: LossPlan(share=0.5), "share is 0.5"),
        (lambda: LossPlan(bigrams=3), "power of two"),
        (lambda: replace(plan, sources=(FILES, FILES)), "one source"),
        (lambda: replace(plan, epochs=0), "epochs is 0"),
        (lambda: replace(plan, name="No name"), "lower-case"),
    ):
        with pytest.raises(RecipeError, match=words):
            plan_of()


def test_the_command_runs_it(
    plan: MultistageRecipe, corpus: Path, made: Made, tmp_path: Path
) -> None:
    path = tmp_path / "sea.toml"
    path.write_text(recipe_toml(plan))
    arguments = ["run", path, "--corpus", corpus, "--out", tmp_path / "out", "--device", "cpu"]
    result = learners(*arguments, "--seeds", "0", "--json")
    assert result.code == 0, result.err
    value = result.json
    assert value["fine_tuning"] is None
    assert value["held_out"] == made.evaluation["held_out"]
    assert "It was not tried in fine-tuning" in (tmp_path / "out" / "README.md").read_text()
    assert check_card(tmp_path / "out") == []
    result = learners("finetune", "-l", tmp_path / "out", "--corpus", corpus)
    assert result.code == 1
    assert "does not predict information gain" in result.err
    result = learners(*arguments, "--contexts", "50")
    assert result.code == 2
    assert (
        "--contexts is for learners whose gains are measured here; sea-losses is a learner of"
        in result.err
    )


def test_what_ships_was_made_by_the_bundled_recipe_and_its_card_is_sound() -> None:
    folder = content("learners") / "sst2-losses-mini"
    if not folder.is_dir():
        pytest.skip("it does not ship")
    assert audit(folder) == []
    learner = load_learner("sst2-losses-mini")
    assert np.isfinite(learner.config.score.mean)
    assert learner.config.labels["method"] == "training loss"
