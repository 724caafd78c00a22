from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from delta_helpers import write_task
from recipes_helpers import OTHER, WANTED, make, prose, write_text
from secondary_learners.content import content
from secondary_learners.deltas.settings import Training, Tuning
from secondary_learners.errors import (
    ArtifactError,
    CorpusError,
    RecipeError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.gains import store
from secondary_learners.recipes.base_model import make as base_model
from secondary_learners.recipes.base_model.recipe import PretrainRecipe
from secondary_learners.recipes.delta import make as delta
from secondary_learners.recipes.delta.recipe import DeltaRecipe
from secondary_learners.recipes.gain_learner import make as run_module
from secondary_learners.recipes.gain_learner.recipe import EvaluationPlan, LearnerRecipe
from secondary_learners.recipes.likeness import (
    DECISIVE,
    Figure,
    FileBytes,
    Limit,
    Verdict,
    compare_circumstances,
    compare_figures,
    verdict,
)
from secondary_learners.recipes.parsing import parse_recipe
from secondary_learners.recipes.rebuild import (
    Rebuild,
    published_seconds,
    read_published,
    rebuild,
)
from secondary_learners.recipes.run import Run
from secondary_learners.text.corpus import Source

COMMON: dict[str, Any] = {"device": "cpu", "command": "learners run tiny", "progress": False}
EVALUATION = EvaluationPlan(seeds=2, updates=3, batch_size=4, test_contexts=20)


@pytest.fixture(scope="module")
def published(recipe: LearnerRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of own text, which the published recipe knows by name only."""
    out = tmp_path_factory.mktemp("published") / "tiny"
    made = make(replace(recipe, evaluation=EVALUATION), None, out, **COMMON).folder
    shutil.rmtree(made / "work")
    return made


@pytest.fixture(scope="module")
def corpus(text: tuple[Path, Path]) -> Path:
    return text[0].parent


@pytest.fixture(scope="module")
def rebuilt(published: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Rebuild:
    return again(published, corpus, tmp_path_factory.mktemp("rebuilt") / "tiny")


def again(published: Path, corpus: Path | None, out: Path) -> Rebuild:
    return rebuild(read_published(published), Run(out=out, corpus=corpus))


def altered(published: Path, folder: Path, **changes: Any) -> Path:
    """A copy of the artifact whose evaluation.json has other values."""
    shutil.copytree(published, folder)
    path = folder / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def killed(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_the_same_text_and_machine_give_the_same_bytes(rebuilt: Rebuild, published: Path) -> None:
    assert rebuilt.verdict is Verdict.IDENTICAL
    same = {file.name: file.same for file in rebuilt.files}
    assert same["model.safetensors"]
    assert same["config.json"]
    assert same["recipe.toml"]
    assert rebuilt.circumstances == ()
    names = [figure.name for figure in rebuilt.figures]
    assert len(names) == len(set(names))
    assert {"perplexity (standard)", "Spearman (linear, held out)", "sd of the labels"} <= set(
        names
    )
    assert [figure.difference for figure in rebuilt.figures] == [0.0] * len(names)
    assert (rebuilt.folder / "model.safetensors").read_bytes() == (
        published / "model.safetensors"
    ).read_bytes()


def test_rounding_of_another_machine_is_within_the_limits(
    published: Path, corpus: Path, rebuilt: Rebuild, tmp_path: Path
) -> None:
    other = altered(published, tmp_path / "other", device="another processor")
    weights = load_file(other / "model.safetensors")
    random = np.random.default_rng(0)
    noisy = {
        name: np.asarray(value * (1 + 1e-3 * random.standard_normal(value.shape)), np.float32)
        for name, value in weights.items()
    }
    save_file(noisy, other / "model.safetensors")
    found = again(other, corpus, tmp_path / "out")
    assert found.verdict is Verdict.WITHIN
    assert [c.name for c in found.circumstances] == ["device"]
    correlation = found.figures[0]
    assert 0.99 < (correlation.rebuilt or 0) < 1


def test_other_weights_are_noticed_though_every_recorded_figure_is_reached(
    published: Path, corpus: Path, tmp_path: Path
) -> None:
    other = altered(published, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["weight"] = np.random.default_rng(0).permutation(weights["weight"])
    save_file(weights, other / "model.safetensors")
    found = again(other, corpus, tmp_path / "out")
    assert found.verdict is Verdict.DIFFERENT
    outside = {figure.name for figure in found.figures if not figure.within}
    assert outside == {"correlation of scores", "rank correlation of scores"}


def test_a_figure_that_is_not_reached_is_named_even_when_the_bytes_are_the_same(
    published: Path, corpus: Path, tmp_path: Path
) -> None:
    comparison = json.loads((published / "evaluation.json").read_text())["fine_tuning"]
    comparison["rows"][0]["perplexity"] *= 0.9
    other = altered(published, tmp_path / "other", fine_tuning=comparison)
    found = again(other, corpus, tmp_path / "out")
    assert found.verdict is Verdict.DIFFERENT
    (outside,) = [figure for figure in found.figures if not figure.within]
    assert outside.name == "perplexity (standard)"
    assert outside.difference == pytest.approx(1 / 0.9 - 1, rel=1e-3)


def test_other_text_is_announced_before_the_work_and_accounted_for_after_it(
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "wanted.txt").write_text(prose(WANTED[::-1], 26_000, seed=8))
    (tmp_path / "pool.txt").write_text(prose(OTHER, 26_000, seed=9))
    with monkeypatch.context() as patch:
        patch.setattr(store, "labeller", killed)
        with pytest.raises(KeyboardInterrupt):
            again(published, tmp_path, tmp_path / "out")
    assert "the text is not the published one" in caplog.text

    found = again(published, tmp_path, tmp_path / "out")
    assert found.verdict is Verdict.DIFFERENT
    assert {c.name for c in found.circumstances} == {
        "contexts (corpus digest)",
        "objective (corpus digest)",
    }


def test_without_its_text_the_way_out_is_named(published: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"'wanted\.txt' in it.*--corpus FOLDER"):
        again(published, None, tmp_path / "out")
    with pytest.raises(CorpusError, match=r"nothing matches 'wanted\.txt' below .*--corpus"):
        again(published, tmp_path, tmp_path / "out")


def test_a_killed_rebuild_goes_on_where_it_was(
    published: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "compare_plan", killed)
        with pytest.raises(KeyboardInterrupt):
            again(published, corpus, tmp_path / "out")
    monkeypatch.setattr(store, "labeller", killed)  # the labels are not made again
    assert again(published, corpus, tmp_path / "out").verdict is Verdict.IDENTICAL


def test_one_process_at_a_time_and_a_killed_one_leaves_no_lock(
    published: Path, corpus: Path, rebuilt: Rebuild, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(rebuilt.folder, out)
    hold = (
        "import sys, time, filelock\n"
        "with filelock.FileLock(sys.argv[1], timeout=0):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    lock = str(out / "work" / ".lock")
    holder = subprocess.Popen([sys.executable, "-c", hold, lock], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SecondaryLearnersError, match="another process is working in"):
            again(published, corpus, out)
    finally:
        holder.kill()
        holder.communicate()
    assert again(published, corpus, out).verdict is Verdict.IDENTICAL


def test_a_folder_with_anything_else_in_it_is_left_alone(
    published: Path, corpus: Path, rebuilt: Rebuild, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    for out in (published, tmp_path / "notes"):
        with pytest.raises(SecondaryLearnersError, match="holds something that no run of this"):
            again(published, corpus, out)
    assert {path: path.read_bytes() for path in published.rglob("*") if path.is_file()} == before
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["thesis.txt"]

    other = altered(published, tmp_path / "other", device="another processor")
    with pytest.raises(SecondaryLearnersError, match=r"rebuilt\.evaluation\.json was .* is now"):
        again(other, corpus, rebuilt.folder)


def test_what_cannot_be_rebuilt_says_why(published: Path, tmp_path: Path) -> None:
    def without(name: str, data: bytes | None) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(published, folder)
        (folder / name).unlink()
        if data is not None:
            (folder / name).write_bytes(data)
        return folder

    with pytest.raises(ArtifactError, match=r"no recipe\.toml"):
        read_published(without("recipe.toml", None))
    with pytest.raises(RecipeError, match="not UTF-8"):
        read_published(without("recipe.toml", b"\xff"))
    for data in (b"{", b"[]", b'"text"'):
        with pytest.raises(ArtifactError, match=r"evaluation\.json"):
            read_published(without("evaluation.json", data))
    with pytest.raises(UnknownNameError, match="books-mini"):
        read_published("boks-mini")


@pytest.mark.parametrize(
    "name", ["mini", "python-docs-mini", "books-mini", "wikitext-gpt2", "books-gpt2"]
)
def test_everything_that_ships_has_what_a_rebuild_needs(name: str) -> None:
    shipped = read_published(name)
    assert shipped.folder == content("learners") / name
    assert shipped.recipe.name == name
    seconds = published_seconds(shipped)
    assert seconds is not None
    assert 60 < seconds < 24 * 3600


@pytest.mark.parametrize("name", ["sst2-mask-mini", "sst2-layers-mini"])
def test_the_deltas_that_ship_have_what_a_rebuild_needs(name: str) -> None:
    shipped = read_published(name)
    assert isinstance(shipped.recipe, DeltaRecipe)
    seconds = published_seconds(shipped)
    assert seconds is not None and 10 < seconds < 100


def test_a_base_model_is_rebuilt_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").mkdir()
    write_text(tmp_path / "text", characters=12_000)
    recipe = PretrainRecipe(
        name="small",
        summary="A model for tests.",
        sources=(Source("prose", files="*.txt", block_characters=1000),),
        vocabulary=320,
        context_length=16,
        layers=2,
        width=32,
        heads=2,
        steps=10,
        batch_size=8,
        held_out=0.1,
        mixed_precision=False,
    )
    made = make(recipe, tmp_path / "text", tmp_path / "small", **COMMON).folder
    found = again(made, tmp_path / "text", tmp_path / "out")
    assert found.verdict is Verdict.IDENTICAL
    assert {file.name for file in found.files if file.same} >= set(DECISIVE)
    assert [figure.name for figure in found.figures] == ["held-out loss", "unigram entropy"]

    monkeypatch.setattr(base_model, "make", killed)  # it is not trained twice
    assert again(made, tmp_path / "text", tmp_path / "out").verdict is Verdict.IDENTICAL


def test_a_delta_is_rebuilt_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task = write_task(tmp_path)
    recipe = DeltaRecipe(
        name="ships",
        task="ships",
        base=str(task.base),
        train=str(task.train),
        test=str(task.test),
        tuning=Tuning(probe=20, training=Training(epochs=2.0, batch_size=10)),
    )
    command = {**COMMON, "command": "learners delta make"}
    made = make(recipe, None, tmp_path / "ships", **command).folder
    assert parse_recipe((made / "recipe.toml").read_text()) == replace(
        recipe, summary="The task ships as a mask and a head", train="train.tsv", test="test.tsv"
    )
    found = again(made, tmp_path, tmp_path / "out")
    assert found.verdict is Verdict.IDENTICAL
    assert {file.name for file in found.files if file.same} >= {"config.json", "model.safetensors"}
    assert {figure.name for figure in found.figures} == {
        *("accuracy", "Matthews correlation", "share of zeros in the masked layers"),
        *("accuracy, full fine-tuning", "Matthews correlation, full fine-tuning"),
        *("correlation of logits", "share of the same answers"),
    }
    assert found.circumstances == ()
    with monkeypatch.context() as patch:  # it is not trained twice
        patch.setattr(delta, "make", killed)
        assert again(made, tmp_path, tmp_path / "out").verdict is Verdict.IDENTICAL

    # A mask that is the other way round reaches no answer of the published one.
    other = shutil.copytree(made, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["score.weight"] = -tensors["score.weight"]
    save_file(tensors, other / "model.safetensors")
    turned = again(other, tmp_path, tmp_path / "turned")
    assert turned.verdict is Verdict.DIFFERENT
    assert {figure.name for figure in turned.figures if not figure.within} == {
        *("correlation of logits", "share of the same answers"),
    }
    assert turned.figures[0].rebuilt == pytest.approx(-1)

    with pytest.raises(CorpusError, match=r"'train\.tsv' here.*--corpus FOLDER"):
        again(made, None, tmp_path / "nowhere")
    (tmp_path / "less").mkdir()
    shutil.copy(task.test, tmp_path / "less")
    lines = task.train.read_text().splitlines()
    (tmp_path / "less" / "train.tsv").write_text("\n".join(lines[:31]) + "\n")
    less = again(made, tmp_path / "less", tmp_path / "out-of-less")
    assert "the digest of its training examples is" in caplog.text
    assert "training examples (digest)" in {each.name for each in less.circumstances}


_KEYS = st.sampled_from(
    [
        "held_out",
        "linear",
        "spearman",
        "r2",
        "labels",
        "score",
        "mean",
        "sd",
        "fine_tuning",
        "rows",
        "seeds",
        "seconds",
        "arm",
        "perplexity",
        "before",
        "training_seconds",
        "energy",
        "corpus",
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
)


@given(evaluation=st.dictionaries(_KEYS, _JSON), config=st.dictionaries(_KEYS, _JSON))
def test_no_evaluation_of_another_maker_breaks_the_comparison(
    published: Path,
    tmp_path_factory: pytest.TempPathFactory,
    evaluation: dict[str, Any],
    config: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("strange")
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "config.json").write_text(json.dumps(config))
    figures = compare_figures(published, folder) + compare_figures(folder, published)
    assert not all(figure.within for figure in figures)
    compare_circumstances(published, folder)
    published_seconds(replace(read_published(published), folder=folder))


def test_limits() -> None:
    assert Figure("f", 1.0, 1.02, Limit(0.0201)).within
    assert not Figure("f", 1.0, 1.03, Limit(0.02)).within
    assert Figure("f", 100.0, 101.9, Limit(0.02, relative=True)).within
    assert not Figure("f", 100.0, 97.9, Limit(0.02, relative=True)).within
    assert Figure("f", 0.0, 0.0, Limit(0.02, relative=True)).within
    assert not Figure("f", 0.0, 1e-9, Limit(0.02, relative=True)).within
    assert Figure("f", 0.001, 0.002, Limit(0.02, relative=True), scale=0.1).within
    for published, rebuilt in ((None, 1.0), (1.0, None)):
        assert not Figure("f", published, rebuilt, Limit(9)).within


def test_verdicts() -> None:
    same, other = FileBytes("model.safetensors", "a", "a"), FileBytes("config.json", "a", "b")
    card = FileBytes("README.md", "a", "b")
    good, bad = Figure("f", 1.0, 1.0, Limit(0)), Figure("f", 1.0, 2.0, Limit(0))
    assert verdict([same, card], [good]) is Verdict.IDENTICAL
    assert verdict([same, other], [good]) is Verdict.WITHIN
    assert verdict([same], [good, bad]) is Verdict.DIFFERENT
    assert verdict([other], []) is Verdict.DIFFERENT  # nothing speaks for it
