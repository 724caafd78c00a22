from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gains_helpers import VOCABULARY, contexts_of
from secondary_learners.cards.check import check_card
from secondary_learners.content import content
from secondary_learners.errors import ArtifactError, SecondaryLearnersError
from secondary_learners.experiments.refresh import Freshness, card_figure, judge, refresh
from secondary_learners.files import sha256_file
from secondary_learners.learners.artifact import read_learner
from secondary_learners.recipes.gain_learner.transfer import TransferRow, record_transfer
from secondary_learners.registry.index import find

SHIPPED = content("learners") / "python-docs-mini"
figure = st.floats(-1, 1)


@given(figure, figure, figure)
def test_a_verdict_needs_the_whole_interval_on_one_side(a: float, b: float, card: float) -> None:
    low, high = sorted((a, b))
    found = judge(low, high, card)
    assert (found is Freshness.HOLDS) == (low >= card / 2)
    assert (found is Freshness.STALE) == (high < card / 2)


def test_the_card_s_figure_is_that_of_the_architecture_that_ships(tmp_path: Path) -> None:
    assert card_figure(SHIPPED) == pytest.approx(0.9024, abs=1e-4)
    for name in ("config.json", "evaluation.json"):
        shutil.copy(SHIPPED / name, tmp_path)
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(ArtifactError, match="no correlation on held-out documents"):
        card_figure(tmp_path)


def test_too_few_contexts_are_refused() -> None:
    with pytest.raises(SecondaryLearnersError, match="19 contexts"):
        refresh(
            read_learner(SHIPPED),
            torch.nn.Linear(1, 1),
            contexts_of(19, seed=0),
            contexts_of(5, seed=1),
            card=0.9,
        )


def test_labels_are_made_as_the_learner_s_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from secondary_learners.gains.labels import information_gain
    from secondary_learners.learners.statistics import spearman
    from tiny_models import BigramModel

    learner = read_learner(SHIPPED)
    learner.config.labels["trainable"] = ["head"]
    learner.config.optimizer.update(name="sgd", learning_rate=0.1)
    model, contexts, objective = BigramModel(), contexts_of(90, seed=0), contexts_of(20, seed=1)
    found = refresh(learner, model, contexts, objective, card=0.5, progress=False)
    gains = information_gain(
        model, contexts, objective, optimizer="sgd", learning_rate=0.1, trainable=["head"]
    )
    assert found.spearman == spearman(learner.score(contexts.input_ids).numpy(), gains)
    assert found.low < found.spearman < found.high
    assert (found.contexts, found.documents, found.objective_contexts) == (90, 30, 20)
    assert found.changed and found.bar == 0.25
    assert learner.net.vocabulary > VOCABULARY  # its own tokens would not be refused


def test_labels_that_look_further_are_made_so_again() -> None:
    from secondary_learners.gains.labels import information_gain
    from secondary_learners.learners.statistics import spearman
    from tiny_models import tiny_gpt2

    learner, model = read_learner(SHIPPED), tiny_gpt2(VOCABULARY, seed=3, n_positions=24)
    combine = {"step": 1.0, "contrast": 2.0, "classifier": 1.0}
    learner.config.labels.update(horizon=2, horizon_learning_rate=1e-3, combine=combine)
    contexts, objective = contexts_of(60, seed=0, domains=2), contexts_of(20, seed=1)
    pool = contexts_of(30, seed=2, domains=2)
    options = {"card": 0.5, "progress": False}
    fresh = refresh(learner, model, contexts, objective, against=[pool], **options)
    gains = information_gain(
        model,
        contexts,
        objective,
        against=pool,
        horizon=2,
        horizon_learning_rate=1e-3,
        combine=combine,
        learning_rate=learner.config.optimizer["learning_rate"],
    )
    scores = learner.score(contexts.input_ids).numpy()
    assert fresh.spearman == pytest.approx(spearman(scores, gains), abs=0.02)
    with pytest.raises(SecondaryLearnersError, match="against a pool"):
        refresh(learner, model, contexts, objective, **options)
    refresh(learner, model, contexts, objective, method="per-example", **options)


ROWS: list[TransferRow] = [
    {"base": "mini", "updates": 60, "spearman": 0.8765, "contexts": 600},
    {"base": "other", "updates": 0, "spearman": 0.25, "contexts": 600},
]


def test_transfer_figures_reach_evaluation_card_and_entry(tmp_path: Path) -> None:
    folder, registry = tmp_path / "python-docs-mini", tmp_path / "registry"
    shutil.copytree(SHIPPED, folder)
    shutil.copytree(content("registry"), registry)
    record_transfer(folder, ROWS, registry=registry)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["transfer"] == ROWS
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| mini | 60 | 0.876 | 600 |" in card or "| mini | 60 | 0.877 | 600 |" in card
    assert check_card(folder) == []
    entry = find("python-docs-mini", folder=registry)
    assert entry.files == {path.name: sha256_file(path) for path in folder.iterdir()}
    assert entry.size == sum(path.stat().st_size for path in folder.iterdir())
    for name in ("model.safetensors", "config.json", "recipe.toml", "comparison.png"):
        assert sha256_file(folder / name) == sha256_file(SHIPPED / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    record_transfer(folder, ROWS, registry=registry)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
