"""The learner on the authors' labels, against the labels, where those are beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from secondary_learners.content import content
from secondary_learners.errors import IncompatibleError
from secondary_learners.learners.artifact import tokenizer_fingerprint
from secondary_learners.learners.statistics import r2, spearman
from secondary_learners.recipes.distilled_learner.published import read_published_labels
from secondary_learners.recipes.distilled_learner.recipe import DistilledRecipe
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.registry.load import load_learner

NAME = "wikitext-gpt2"
DATA = Path(__file__).parents[3] / "shared" / "data"
LABELS = "wikitext103_gpt2_information_gain.npz"
FOLDER = content("learners") / NAME
beside = pytest.mark.skipif(
    not (DATA / LABELS).is_file(), reason="the published labels are not beside this checkout"
)


def test_it_loads_by_name_and_is_as_large_as_it_may_be() -> None:
    learner = load_learner(NAME)
    assert (learner.config.architecture, learner.config.context_length) == ("conv", 32)
    assert learner.config.base_model.repo == "openai-community/gpt2"
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 4_000_000
    scores = learner.score([[464, 2068, 7586, 21831], [1, 50256, 2, 3]])
    assert np.isfinite(scores.numpy()).all()
    with pytest.raises(IncompatibleError, match="outside the vocabulary"):
        learner.score([[50257]])


@beside
def test_its_figures_are_those_of_the_labels_and_better_than_the_baseline_s() -> None:
    recipe = find_recipe(NAME)
    assert isinstance(recipe, DistilledRecipe)
    rows = read_published_labels(recipe.labels, DATA).reported
    learner = load_learner(NAME)
    found = learner.predict_gain(rows.input_ids).double().numpy()
    held_out = json.loads((FOLDER / "evaluation.json").read_bytes())["held_out"]
    assert len(rows.gains) == held_out["conv"]["contexts"] == 512
    assert spearman(rows.gains, found) == pytest.approx(held_out["conv"]["spearman"], abs=1e-5)
    assert r2(rows.gains, found) == pytest.approx(held_out["conv"]["r2"], abs=1e-5)
    alone = spearman(rows.gains, rows.log_perplexity)
    assert alone == pytest.approx(held_out["log perplexity"]["spearman"], abs=1e-9)
    for measure in ("spearman", "r2"):
        assert held_out["conv"][measure] > held_out["ridge"][measure]


@beside
def test_its_tokenizer_is_gpt2_s() -> None:
    tokenizer = Tokenizer.from_file(str(DATA / "gpt2_tokenizer.json"))
    learner = load_learner(NAME)
    learner.check_tokenizer(tokenizer)
    assert learner.config.tokenizer.fingerprint == tokenizer_fingerprint(tokenizer)
