"""Pretraining with a tokenizer from a file, and learners on bases that have one tokenizer."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from cli_helpers import learners
from recipes_helpers import OTHER, WANTED, make, prose, tiny_recipe, write_text
from registry_helpers import Machine, Team
from secondary_learners.cards.check import check_card
from secondary_learners.errors import CorpusError, IncompatibleError, RecipeError
from secondary_learners.gains.fingerprints import embedding_fingerprint
from secondary_learners.learners.artifact import read_learner, tokenizer_fingerprint
from secondary_learners.recipes.base_model import training as pretrain_module
from secondary_learners.recipes.base_model.recipe import PretrainRecipe
from secondary_learners.recipes.base_model.training import END_OF_TEXT, train_tokenizer
from secondary_learners.recipes.gain_learner.make import fit_labels
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe, TokenizerPlan
from secondary_learners.recipes.parsing import find_recipe, parse_recipe, recipe_toml
from secondary_learners.recipes.run import Made
from secondary_learners.registry.index import read_index
from secondary_learners.registry.load import load_base, load_learner
from secondary_learners.text.corpus import Source
from server_helpers import running, token
from tiny_models import BASE_VOCABULARY, words_backend, write_base

GPT2 = "openai-community/gpt2"
COMMON: dict[str, Any] = {"device": "cpu", "command": "learners run x", "progress": False}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, and the tokenizer of `write_base` in a file, as tokenizers keep it."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "text").mkdir()
    write_text(folder / "text", characters=12_000)
    tokenizer = train_tokenizer([prose(WANTED, 4000, 3), prose(OTHER, 4000, 4)], BASE_VOCABULARY)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(7)  # which the text must not be cut by
    backend.enable_padding(length=5000)
    backend.save(str(folder / "given.json"))
    return folder


@pytest.fixture(scope="module")
def small() -> PretrainRecipe:
    return PretrainRecipe(
        name="stand-in",
        summary="A model for tests",
        sources=(Source("prose", files="text", block_characters=1000),),
        tokenizer="given.json",
        vocabulary=BASE_VOCABULARY,
        context_length=16,
        layers=1,
        width=32,
        heads=2,
        steps=12,
        batch_size=8,
        held_out=0.1,
    )


@pytest.fixture(scope="module")
def trained(small: PretrainRecipe, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("trained") / "stand-in"
    return make(small, corpus, out, **COMMON)


def fingerprint_of(file: Path) -> str:
    return tokenizer_fingerprint(Tokenizer.from_file(str(file)))


def test_a_model_is_trained_on_the_tokenizer_of_a_file(
    trained: Made, small: PretrainRecipe, corpus: Path
) -> None:
    model, tokenizer = load_base(trained.folder)
    assert model.config.vocab_size == BASE_VOCABULARY
    expected = fingerprint_of(corpus / "given.json")
    assert tokenizer_fingerprint(tokenizer) == expected
    assert trained.evaluation["tokenizer_fingerprint"] == expected
    assert trained.evaluation["tokens_in_corpus"] > 2000  # nothing was cut, and nothing padded
    assert trained.evaluation["tokens_in_corpus"] < 24_000
    assert len(tokenizer("ship " * 30)["input_ids"]) > 7
    assert parse_recipe((trained.folder / "recipe.toml").read_text()) == small
    assert check_card(trained.folder) == []


def test_a_killed_training_with_large_logits_goes_on_to_the_same_weights(
    small: PretrainRecipe, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain_module, "_LOGITS_BYTES", 1000)  # takes the loss in blocks
    monkeypatch.setattr(pretrain_module, "_CHECKPOINT_EVERY", 5)
    whole = make(small, corpus, tmp_path / "whole", **COMMON)
    batch_of, stopped = pretrain_module._batch, tmp_path / "stopped"

    def killed(train: Any, recipe: PretrainRecipe, step: int) -> torch.Tensor:
        if step == 7:
            raise KeyboardInterrupt
        return batch_of(train, recipe, step)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain_module, "_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            make(small, corpus, stopped, **COMMON)
    make(small, corpus, stopped, **COMMON)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (stopped / name).read_bytes() == (whole.folder / name).read_bytes()


def test_the_loss_in_blocks_trains_the_same_model(
    small: PretrainRecipe,
    corpus: Path,
    trained: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pretrain_module, "_LOGITS_BYTES", 1000)
    blocks = make(small, corpus, tmp_path / "blocks", **COMMON)
    losses = [made.evaluation["held_out_loss"] for made in (blocks, trained)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def without_end(path: Path) -> None:
    words_backend([f"w{n}" for n in range(BASE_VOCABULARY)], "w0").save(str(path))


def huge(path: Path) -> None:
    words = [END_OF_TEXT, *(f"w{n}" for n in range(1, 65_537))]
    words_backend(words, "w1").save(str(path))


def other_size(path: Path) -> None:
    words_backend([END_OF_TEXT, "a"], "a").save(str(path))


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda path: None, CorpusError, r"no file .*odd\.json.*Try `--corpus FOLDER`"),
        (lambda path: path.write_text("{"), CorpusError, r"odd\.json is not a tokenizer"),
        (other_size, RecipeError, "has vocabulary 320, and .* up to 1. Write `vocabulary = 2`"),
        (without_end, RecipeError, r"no token <\|endoftext\|>"),
        (huge, RecipeError, "token ids up to 65,536, and they are kept in two bytes"),
    ],
)
def test_a_tokenizer_that_will_not_do_is_refused(
    small: PretrainRecipe,
    tmp_path: Path,
    write: Callable[[Path], None],
    error: type[Exception],
    message: str,
) -> None:
    write(tmp_path / "odd.json")
    with pytest.raises(error, match=message):
        make(replace(small, tokenizer="odd.json"), tmp_path, tmp_path / "x", **COMMON)
    assert not (tmp_path / "x").exists()


def test_a_recipe_without_a_tokenizer_is_written_as_before() -> None:
    assert "tokenizer" not in recipe_toml(find_recipe("mini"))
    for name in ("tokenizer", "embedding"):
        assert name not in recipe_toml(find_recipe("books-mini"))


@pytest.fixture(scope="module")
def recipe(corpus: Path) -> LearnerRecipe:
    """For the tokenizer of the file, known as that of GPT-2."""
    plain = tiny_recipe(corpus / "text" / "wanted.txt", corpus / "text" / "pool.txt", Path(GPT2))
    plan = TokenizerPlan(GPT2, fingerprint_of(corpus / "given.json"))
    labels = replace(plain.labels, contexts=100)
    return replace(plain, base=GPT2, tokenizer=plan, license="apache-2.0", labels=labels)


@pytest.fixture(scope="module")
def made(recipe: LearnerRecipe, trained: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Made on the stand-in."""
    out = tmp_path_factory.mktemp("made") / "tiny"
    command = "learners run tiny --corpus 'my text' --base ./stand-in"
    return make(
        replace(recipe, base=str(trained.folder)), None, out, **{**COMMON, "command": command}
    )


def test_labels_of_a_stand_in_are_put_down_as_its_own(
    made: Made, recipe: LearnerRecipe, trained: Made, tmp_path: Path
) -> None:
    config = load_learner(made.folder).config
    model, _ = load_base(trained.folder)
    assert (config.base_model.repo, config.base_model.revision) == ("stand-in", None)
    assert config.base_model.fingerprint == embedding_fingerprint(model)
    assert recipe.tokenizer is not None
    assert dataclasses.asdict(config.tokenizer) == {
        **dataclasses.asdict(recipe.tokenizer),
        "revision": None,
    }
    (tmp_path / "tiny.toml").write_bytes((made.folder / "work" / "tiny.toml").read_bytes())
    entry = read_index(tmp_path)["tiny"]
    assert (entry.base, entry.tokenizer) == ("stand-in", GPT2)
    for path in made.folder.iterdir():
        if path.is_file():
            assert str(trained.folder.parent).encode() not in path.read_bytes()
    assert find_recipe(str(made.folder / "recipe.toml")).base == "./stand-in"  # type: ignore[union-attr]


def test_its_card_says_so_first_and_how_to_do_without(made: Made, trained: Made) -> None:
    card = (made.folder / "README.md").read_text()
    first = card.split("# tiny\n\n")[1].split("\n\n")[0]
    loss = trained.evaluation["held_out_loss"]
    assert (
        f"Its labels came from `stand-in` ({trained.evaluation['parameters']:,} parameters, 1,536 "
        f"tokens of training, a held-out loss of {loss:.3f} nats per token), which stands in for "
        f"`{GPT2}`" in first
    )
    assert f"`learners run tiny --corpus 'my text' --base {GPT2}` makes it again" in first
    assert f"tokenized by the tokenizer of `{GPT2}`" in card
    assert check_card(made.folder) == []


def test_labels_and_fit_by_themselves_give_the_same_learner(
    made: Made, recipe: LearnerRecipe, trained: Made, tmp_path: Path
) -> None:
    own = replace(recipe, base=str(trained.folder))
    fitted = fit_labels(
        own, made.folder / "work" / "labels", tmp_path / "x", command="learners fit"
    )
    assert (fitted.folder / "config.json").read_bytes() == (
        made.folder / "config.json"
    ).read_bytes()
    card = (fitted.folder / "README.md").read_text()
    assert f"`learners run recipe.toml --base {GPT2}` makes it again" in card


def test_a_base_with_another_tokenizer_is_refused(recipe: LearnerRecipe, tmp_path: Path) -> None:
    wrong = replace(recipe, base="mini")
    with pytest.raises(IncompatibleError, match=rf"'tiny' is for token ids of {GPT2}.* of mini is"):
        make(wrong, None, tmp_path / "x", **COMMON)


@pytest.mark.slow
def test_the_default_base_comes_from_the_hub_and_is_no_stand_in(
    recipe: LearnerRecipe, corpus: Path, tmp_path: Path
) -> None:
    """A small GPT-2 published as openai-community/gpt2 on a Hub of this machine."""
    base = write_base(tmp_path / "gpt2")
    machine = Machine(tmp_path / "machine")
    for folder in (machine.cache, machine.home, machine.work):
        folder.mkdir(parents=True)
    (machine.work / "gpt2-learner.toml").write_text(recipe_toml(replace(recipe, name="on-gpt2")))
    root = tmp_path / "hub"
    secret = token(root, "openai", "write", ["openai-community"])
    command = [sys.executable, "-m", "secondary_learners", "run", "gpt2-learner.toml", "--out", "x"]
    with running(root) as server:
        commit = Team(server.url, secret, root).publish(GPT2, base)
        done = subprocess.run(
            command,
            cwd=machine.work,
            env=machine.environment(server.url),
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    config = read_learner(machine.work / "x").config
    model, tokenizer = load_base(base)
    for reference, fingerprint in (
        (config.base_model, embedding_fingerprint(model)),
        (config.tokenizer, tokenizer_fingerprint(tokenizer)),
    ):
        assert (reference.repo, reference.revision) == (GPT2, commit)
        assert reference.fingerprint == fingerprint
    card = (machine.work / "x" / "README.md").read_text()
    assert f"`{GPT2}` at commit `{commit}`" in card
    assert "stands in" not in card
    assert f"base_model: {GPT2}" in card
    assert "stand_in" not in json.loads((machine.work / "x" / "evaluation.json").read_text())


def test_the_command_line_takes_a_stand_in(
    recipe: LearnerRecipe, trained: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(recipe_toml(recipe))
    Path("gpt2-standin").symlink_to(trained.folder)
    ran = learners(
        "run", "own.toml", "--base", "./gpt2-standin", "--out", "own", "--contexts", "60"
    )
    assert ran.code == 0, ran.err
    assert load_learner("./own").config.base_model.repo == "gpt2-standin"
    checked = learners("card", "check", "own")
    assert checked.code == 0, checked.out
