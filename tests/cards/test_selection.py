"""What a learner's card shows of its worth beside other ways to select, where it was measured."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from secondary_learners.cards.card import About
from secondary_learners.cards.check import CardFault, check_card
from secondary_learners.cards.kinds import card
from secondary_learners.cards.render import figures, render_card
from secondary_learners.content import content

SHIPPED = content("learners") / "books-mini"
WITHIN: dict[str, Any] = {
    "interval": [0.79, 0.8185],
    "within": {"books": 0.4567, "general": 0.7},
    "domain_variance": 0.2149,
    "keep_rate": {"books": 0.64, "general": 0.041},
}
SELECTORS = [
    {"pool": "its own", "arm": "classifier", "perplexity": 111.456, "se": 0.125}
    | {"p": 0.00002, "kept_in_domain": 0.98, "change": -0.012, "change_interval": [-0.02, 0.003]},
    {"pool": "forum posts", "arm": "length", "perplexity": 125.0, "se": None}
    | {"p": None, "kept_in_domain": None},
]


def made() -> tuple[dict[str, Any], dict[str, Any]]:
    config, evaluation = (
        json.loads((SHIPPED / name).read_bytes()) for name in ("config.json", "evaluation.json")
    )
    evaluation = copy.deepcopy(evaluation) | {"format": 2, "selectors": SELECTORS}
    evaluation["held_out"][config["architecture"]] |= WITHIN
    return config, evaluation


def rendered(config: dict[str, Any], evaluation: dict[str, Any]) -> str:
    about = About(name="books-mini", summary="Finds books", license="mit", language="en")
    return render_card(card("learner"), config, evaluation, about)


def in_folder(tmp_path: Path, text: str, evaluation: dict[str, Any]) -> Path:
    folder = shutil.copytree(SHIPPED, tmp_path / "books")
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    return folder


def test_all_of_it_is_shown_and_compared(tmp_path: Path) -> None:
    config, evaluation = made()
    text = rendered(config, evaluation)
    shown = figures(card("learner"), config, evaluation)
    for figure in (
        "| linear | 0.804 [0.790, 0.819] | 0.633 | 2,860 |",
        "| conv | 0.785 | 0.604 | 2,860 |",
        "| books | 0.457 | 64% |",
        "| general | 0.700 | 4% |",
        "**21%**",
        "| its own | classifier | 111.46 ± 0.12 | -1.2 % [-2.0, +0.3] | 2.0e-05 | 98% |",
        "| forum posts | length | 125.00 | – | – | – |",
    ):
        assert figure in text and figure in shown
    folder = in_folder(tmp_path, text, evaluation)
    assert check_card(folder) == []
    (folder / "README.md").write_text(text.replace("| 64% |", "| 94% |"), encoding="utf-8")
    (problem,) = check_card(folder)
    assert problem.kind is CardFault.FIGURE and "64%" in problem.message


@pytest.mark.parametrize("key", [*WITHIN, "selectors"])
def test_the_check_asks_for_each_of_them(key: str, tmp_path: Path) -> None:
    config, evaluation = made()
    text = rendered(config, evaluation)
    evaluation.pop(key, None)
    evaluation["held_out"]["linear"].pop(key, None)
    folder = in_folder(tmp_path, text, evaluation)
    problems = [problem.message for problem in check_card(folder)]
    assert any(key in message and "lacks" in message for message in problems)


def test_the_check_does_not_ask_an_older_evaluation_for_them(tmp_path: Path) -> None:
    config, evaluation = made()
    for key in WITHIN:
        del evaluation["held_out"]["linear"][key]
    del evaluation["selectors"], evaluation["format"]
    text = rendered(config, evaluation)
    assert "Beside other ways to select" not in text and "Within each domain" not in text
    assert check_card(in_folder(tmp_path, text, evaluation)) == []
