"""A text's score and the share of each token in it; the process that answers for a server."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from secondary_learners.content import content
from secondary_learners.engines.answering import COMMAND
from secondary_learners.engines.explaining import explain
from secondary_learners.registry.load import load_learner, load_tokenizer

FOLDER = content("learners") / "books-mini"


def test_shares_add_up_to_the_score() -> None:
    learner = load_learner("books-mini")
    explained = explain(
        learner, load_tokenizer(learner), "So I sat down,  and we were silent. " * 9
    )
    assert explained is not None
    assert "".join(piece for piece, _ in explained.tokens).startswith("So I sat down, and we")
    empty = float(learner.score([[0]], [[0]])[0])
    total = sum(share for _, share in explained.tokens)
    assert total + empty == pytest.approx(explained.score, abs=1e-4)
    assert explain(learner, load_tokenizer(learner), " \n ") is None


@pytest.mark.slow
def test_whatever_is_asked_is_answered() -> None:
    """A folder without its files, files of another kind, then a sound learner."""
    names = ("README.md", "config.json", "evaluation.json", "model.safetensors", "recipe.toml")
    sound = {name: str(FOLDER / name) for name in names}
    odd = {**sound, "config.json": sys.executable}
    asked = [{"files": files, "digests": None, "texts": ["x"]} for files in ({}, odd, sound)]
    lines = "".join(json.dumps(each) + "\n" for each in asked)
    done = subprocess.run(COMMAND, input=lines, capture_output=True, text=True)
    missing, wrong, right = map(json.loads, done.stdout.splitlines())
    assert "README.md cannot be read" in missing["error"] and "error" in wrong
    assert done.returncode == 0 and right["explained"][0]["tokens"]
