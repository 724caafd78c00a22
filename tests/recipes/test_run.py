from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recipes_helpers import make, write_text
from secondary_learners.errors import (
    CorpusError,
    DigestMismatchError,
    DivergedError,
    LabelStoreError,
)
from secondary_learners.gains import store
from secondary_learners.learners.artifact import read_learner, tokenizer_fingerprint
from secondary_learners.recipes.base_model import training as pretrain_module
from secondary_learners.recipes.base_model.recipe import PretrainRecipe
from secondary_learners.recipes.gain_learner import bases as bases_module
from secondary_learners.recipes.gain_learner import make as run_module
from secondary_learners.recipes.gain_learner.data import portable
from secondary_learners.recipes.gain_learner.make import fit_labels, label_recipe
from secondary_learners.recipes.gain_learner.recipe import EvaluationPlan, LearnerRecipe
from secondary_learners.recipes.parsing import parse_recipe
from secondary_learners.recipes.run import Made, Run
from secondary_learners.registry.index import read_index
from secondary_learners.registry.load import load_base, load_learner
from secondary_learners.text.corpus import Source
from tiny_models import write_base

COMMON: dict[str, Any] = {"device": "cpu", "command": "learners run tiny", "progress": False}
EVALUATION = EvaluationPlan(seeds=2, updates=3, batch_size=4, test_contexts=20)


@pytest.fixture(scope="module")
def made(recipe: LearnerRecipe, tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("made") / "tiny"
    return make(replace(recipe, evaluation=EVALUATION), None, out, **COMMON)


def test_a_run_leaves_an_artifact_that_loads_and_scores(made: Made, recipe: LearnerRecipe) -> None:
    learner = load_learner(made.folder)
    _, tokenizer = load_base(recipe.base)
    learner.check_tokenizer(tokenizer)
    assert learner.config.tokenizer.fingerprint == tokenizer_fingerprint(tokenizer)
    wanted, other = (
        tokenizer(text)["input_ids"] for text in ("the ship at sea in a storm", "tax office form")
    )
    assert learner.score([wanted]).isfinite().all()
    assert learner.score([wanted]) != learner.score([other])
    # 200 labels are few, and yet they tell ships from taxes.
    assert made.evaluation["held_out"]["linear"]["spearman"] > 0.3


def test_the_artifact_says_what_it_was_made_of(made: Made, recipe: LearnerRecipe) -> None:
    config = read_learner(made.folder).config
    assert config.name == "tiny"
    assert config.labels["count"] == 200
    assert config.labels["method"] == "swapped"
    assert config.labels["exact_count"] == 8
    assert config.objective["contexts"] == 16
    assert config.context_length == 16
    assert config.base_model.repo == recipe.base
    written = parse_recipe((made.folder / "recipe.toml").read_text())
    assert written == portable(replace(recipe, evaluation=EVALUATION))
    evaluation = json.loads((made.folder / "evaluation.json").read_text())
    assert evaluation["command"] == "learners run tiny"
    assert evaluation["labels"]["spearman_with_exact"] > 0.5
    assert evaluation["fine_tuning"]["seeds"] == 2


@pytest.mark.parametrize(
    ("hash_", "revision"), [("a" * 40, "a" * 40), (None, None), ("main", None), (3, None)]
)
def test_the_commit_of_a_base_model_from_a_hub_is_recorded(
    recipe: LearnerRecipe,
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hash_: object,
    revision: str | None,
) -> None:
    model, tokenizer = load_base(recipe.base)
    model.config._commit_hash = hash_  # where transformers keeps it
    monkeypatch.setattr(bases_module, "load_base", lambda ref: (model, tokenizer))
    fitted = fit_labels(recipe, made.folder / "work" / "labels", tmp_path / "x", command="fit")
    config = read_learner(fitted.folder).config
    assert config.base_model.revision == config.tokenizer.revision == revision


def test_no_path_of_this_machine_is_published(made: Made, text: tuple[Path, Path]) -> None:
    for name in ("recipe.toml", "config.json", "evaluation.json", "README.md"):
        assert str(text[0].parent) not in (made.folder / name).read_text()


def test_the_card_has_the_figures_of_the_run(made: Made) -> None:
    card = (made.folder / "README.md").read_text()
    held_out = made.evaluation["held_out"]["linear"]
    low, high = held_out["interval"]
    shown = f"{held_out['spearman']:.3f} [{low:.3f}, {high:.3f}] | {held_out['r2']:.3f}"
    assert low <= held_out["spearman"] <= high and f"| linear | {shown} |" in card
    assert set(held_out["within"]) == set(held_out["keep_rate"]) == {"objective", "pool"}
    assert 0 <= held_out["domain_variance"] <= 1
    for row in made.evaluation["fine_tuning"]["rows"]:
        assert f"| {row['arm']} | {row['perplexity']:.2f}" in card
    assert "learners run tiny" in card
    assert made.evaluation["plot"] == (made.folder / "comparison.png").is_file()
    assert ("comparison.png" in card) == made.evaluation["plot"]


def test_the_run_compared_every_arm_on_every_seed(made: Made) -> None:
    assert made.comparison is not None
    kinds = [row.kind for row in made.comparison.rows()]
    assert kinds == ["standard", "filtered", "random", "in-domain"]
    runs = list((made.folder / "work" / "comparison" / "runs").glob("*.safetensors"))
    assert len(runs) == 4 * 2


def test_the_registry_entry_records_every_file(made: Made, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_bytes((made.folder / "work" / "tiny.toml").read_bytes())
    entry = read_index(tmp_path)["tiny"]
    assert entry.kind == "learner"
    assert entry.corpus == "objective+pool"
    files = {path.name for path in made.folder.iterdir() if path.is_file()}
    assert set(entry.files) == files
    assert entry.size == sum((made.folder / name).stat().st_size for name in files)
    read_learner(made.folder, entry.files)


def test_words_of_the_objective_raise_the_score(made: Made) -> None:
    tokens = made.evaluation["tokens"]
    assert 0 < len(tokens["raise"]) <= 12
    assert not set(tokens["raise"]) & set(tokens["lower"])


def test_the_same_recipe_gives_the_same_weights(
    made: Made, recipe: LearnerRecipe, tmp_path: Path
) -> None:
    again = make(recipe, None, tmp_path / "again", **COMMON)
    for name in ("model.safetensors", "config.json"):
        assert (again.folder / name).read_bytes() == (made.folder / name).read_bytes()
    other = make(replace(recipe, seed=1), None, tmp_path / "other", **COMMON)
    weights = [folder / "model.safetensors" for folder in (made.folder, other.folder)]
    assert weights[0].read_bytes() != weights[1].read_bytes()


@pytest.mark.parametrize("stage", ["fit_learners", "compare_plan", "save_learner"])
def test_a_run_killed_between_stages_goes_on(
    made: Made,
    recipe: LearnerRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    full, out = replace(recipe, evaluation=EVALUATION), tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(run_module, stage, killed)
        with pytest.raises(KeyboardInterrupt):
            make(full, None, out, **COMMON)
    assert not (out / "config.json").exists()  # no artifact that is only half there

    with monkeypatch.context() as patch:  # the labels are not made again
        patch.setattr(store, "labeller", killed)
        resumed = make(full, None, out, **COMMON)
    made_weights = (made.folder / "model.safetensors").read_bytes()
    assert (resumed.folder / "model.safetensors").read_bytes() == made_weights
    assert resumed.comparison is not None
    assert made.comparison is not None
    assert [run.perplexity for run in resumed.comparison.runs] == [
        run.perplexity for run in made.comparison.runs
    ]


def test_labels_and_fit_by_themselves_give_the_same_learner(
    made: Made, recipe: LearnerRecipe, tmp_path: Path
) -> None:
    labels = label_recipe(recipe, Run(out=tmp_path / "labels", progress=False))
    assert len(labels.gains) == 200
    fitted = fit_labels(recipe, tmp_path / "labels", tmp_path / "fitted", command="learners fit")
    for name in ("model.safetensors", "config.json"):
        assert (fitted.folder / name).read_bytes() == (made.folder / name).read_bytes()
    assert fitted.comparison is None


def test_the_better_of_two_architectures_is_packaged(
    recipe: LearnerRecipe, made: Made, tmp_path: Path
) -> None:
    label_recipe(recipe, Run(out=tmp_path / "labels", progress=False))
    both = replace(recipe, learner=replace(recipe.learner, architectures=("linear", "conv")))
    fitted = fit_labels(both, tmp_path / "labels", tmp_path / "both", command="learners fit")
    figures = {name: value["spearman"] for name, value in fitted.evaluation["held_out"].items()}
    assert set(figures) == {"linear", "conv"}
    best = max(figures, key=lambda name: figures[name])
    assert read_learner(fitted.folder).config.architecture == best


def test_a_run_in_the_folder_of_another_is_refused(made: Made, recipe: LearnerRecipe) -> None:
    other = replace(recipe, labels=replace(recipe.labels, learning_rate=1e-3))
    with pytest.raises(LabelStoreError, match="learning_rate"):
        make(other, None, made.folder, **COMMON)


def test_an_altered_artifact_is_noticed(made: Made, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_bytes((made.folder / "work" / "tiny.toml").read_bytes())
    digests = dict(read_index(tmp_path)["tiny"].files)
    digests["config.json"] = "0" * 64
    with pytest.raises(DigestMismatchError, match=r"config\.json"):
        read_learner(made.folder, digests)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> PretrainRecipe:
    """20 steps on the objective and pool text."""
    folder = tmp_path_factory.mktemp("pretraining")
    write_text(folder, characters=12_000)
    source = Source("prose", files=str(folder), block_characters=1000)
    return PretrainRecipe(
        name="small",
        summary="A model for tests.",
        sources=(source,),
        vocabulary=320,
        context_length=16,
        layers=2,
        width=32,
        heads=2,
        steps=20,
        batch_size=8,
        held_out=0.1,
        mixed_precision=False,
    )


@pytest.fixture(scope="module")
def trained(small: PretrainRecipe, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(small, None, tmp_path_factory.mktemp("trained") / "small", **COMMON)


def test_a_trained_base_model_loads_and_has_learnt(trained: Made, small: PretrainRecipe) -> None:
    model, tokenizer = load_base(trained.folder)
    assert model.dtype == torch.float32
    assert sum(p.numel() for p in model.parameters()) == trained.evaluation["parameters"]
    assert tokenizer.decode(tokenizer("Ship, tide — ünïcode!")["input_ids"]) == (
        "Ship, tide — ünïcode!"
    )
    assert trained.evaluation["held_out_loss"] < np.log(small.vocabulary)
    assert trained.evaluation["tokens_seen"] == 20 * 8 * 16
    assert json.loads((trained.folder / "evaluation.json").read_text()) == trained.evaluation
    assert parse_recipe((trained.folder / "recipe.toml").read_text()) == small
    assert not (trained.folder / "checkpoint").exists()
    card = (trained.folder / "README.md").read_text()
    assert f"{trained.evaluation['held_out_loss']:.3f} nats per token" in card


def test_a_learner_can_be_made_for_a_freshly_trained_base(
    trained: Made, recipe: LearnerRecipe, tmp_path: Path
) -> None:
    own = replace(recipe, base=str(trained.folder))
    finished = make(own, None, tmp_path / "tiny", **COMMON)
    assert load_learner(finished.folder).config.base_model.repo == str(trained.folder)


@pytest.mark.parametrize(
    ("interval", "value", "first"), [("_CHECKPOINT_EVERY", 8, 8), ("_CHECKPOINT_SECONDS", 0.0, 1)]
)
def test_pretraining_killed_after_a_checkpoint_ends_with_the_same_weights(
    small: PretrainRecipe,
    trained: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    interval: str,
    value: float,
    first: int,
) -> None:
    class Killed(BaseException):
        pass

    save, step_of = pretrain_module._save_checkpoint, pretrain_module._batch
    steps: list[int] = []

    def save_then_die(*arguments: Any) -> None:
        save(*arguments)
        raise Killed

    def counted(train: Any, recipe: PretrainRecipe, step: int) -> torch.Tensor:
        steps.append(step)
        return step_of(train, recipe, step)

    out = tmp_path / "small"
    monkeypatch.setattr(pretrain_module, interval, value)
    caplog.set_level("INFO", logger="secondary_learners")
    with monkeypatch.context() as patch:
        patch.setattr(pretrain_module, "_save_checkpoint", save_then_die)
        with pytest.raises(Killed):
            make(small, None, out, **COMMON)
    assert not (out / "model.safetensors").exists()
    assert f"step {first} of 20: loss" in caplog.text

    monkeypatch.setattr(pretrain_module, "_batch", counted)
    make(small, None, out, **COMMON)
    assert steps == list(range(first, 20))
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (out / name).read_bytes() == (trained.folder / name).read_bytes()


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(
    small: PretrainRecipe,
    trained: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain_module, "_CHECKPOINT_EVERY", 8)
    with monkeypatch.context() as patch:
        patch.setattr(pretrain_module, "round_to_half", killed)
        with pytest.raises(KeyboardInterrupt):
            make(replace(small, seed=1), None, tmp_path, **COMMON)
    make(small, None, tmp_path, **COMMON)
    assert "belongs to another recipe" in caplog.text
    weights = [load_file(folder / "model.safetensors") for folder in (tmp_path, trained.folder)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_too_little_text_to_pretrain_on(small: PretrainRecipe, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="one batch needs 1024000"):
        make(replace(small, batch_size=64_000), None, tmp_path, **COMMON)


def test_a_diverged_pretraining_writes_no_model(small: PretrainRecipe, tmp_path: Path) -> None:
    wild = replace(small, other_learning_rate=1e30)
    with pytest.raises(DivergedError, match="Try a lower matrix_learning_rate"):
        make(wild, None, tmp_path, **COMMON)
    assert not (tmp_path / "model.safetensors").exists()


def test_the_tokenizer_of_the_test_base_reads_any_text(tmp_path: Path) -> None:
    _, tokenizer = load_base(write_base(tmp_path))
    text = "naïve \U0001f600 \x00 tab\t"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
