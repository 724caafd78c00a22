"""The learner for GPT-2's tokens on books, and what its card says of the model it was made on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from secondary_learners.content import content
from secondary_learners.learners.artifact import tokenizer_fingerprint
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.registry.load import load_learner
from secondary_learners.text.corpus import read_documents

NAME = "books-gpt2"
DATA = Path(__file__).parents[3] / "shared" / "data"
FOLDER = content("learners") / NAME


def test_it_loads_by_name_offline_for_gpt2s_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    learner = load_learner(NAME)
    assert learner.config.tokenizer.repo == "openai-community/gpt2"
    assert learner.config.sizes["vocabulary"] == 50257
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8_000_000
    assert torch.isfinite(learner.score([[464, 2068, 7586, 21831], [1, 50256, 2, 3]])).all()


def test_the_card_says_at_once_whose_gains_they_are_and_how_to_have_gpt2s() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    first = card.partition(f"# {NAME}\n\n")[2].partition("\n\n")[0]
    assert "gpt2-standin" in first and "16,058,112 parameters" in first
    assert "learners run books-gpt2" in first
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert config["base_model"]["repo"] == "gpt2-standin"
    assert config["labels"]["count"] >= 50_000 and config["labels"]["exact_count"] >= 2_000
    evaluation = json.loads((FOLDER / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["fine_tuning"]["seeds"] >= 10
    assert "--base ./gpt2-standin" in evaluation["command"]


@pytest.mark.skipif(not DATA.is_dir(), reason="the corpora are not beside this checkout")
def test_it_tells_novels_from_other_text() -> None:
    tokenizer = Tokenizer.from_file(str(DATA / "gpt2_tokenizer.json"))
    learner, recipe = load_learner(NAME), find_recipe(NAME)
    assert isinstance(recipe, LearnerRecipe)
    assert tokenizer_fingerprint(tokenizer) == learner.config.tokenizer.fingerprint
    means = {}
    for source in recipe.sources:
        documents = read_documents((source,), DATA)
        some = documents[:: max(1, len(documents) // 80)]  # of every part of the corpus
        contexts = [middle(tokenizer.encode(document.text).ids) for document in some]
        ids = [context for context in contexts if len(context) == 32]
        means[source.domain] = float(np.mean(learner.score(ids).numpy()))
    assert means["books"] > means["general"] + 1


def middle(ids: list[int]) -> list[int]:
    return ids[len(ids) // 2 - 16 : len(ids) // 2 + 16]
