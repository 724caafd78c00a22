"""Whether a filter would pay, from comparisons with known answers and from real short runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli_helpers import learners
from recipes_helpers import OTHER, WANTED, prose
from secondary_learners.experiments.comparison import Arm, Comparison, Point, Run, Settings
from secondary_learners.experiments.worth import Advice, worth_of
from secondary_learners.filtering.thresholds import Constant

ARMS = (
    Arm("standard", "standard"),
    Arm("constant:1", "filtered", Constant(1.0)),
    Arm("random constant:1", "random", Constant(1.0)),
    Arm("classifier", "selector", Constant(1.0)),
)


def comparison(noise: float = 0.0, **losses: float) -> Comparison:
    """Four seeds on 40 contexts of 8 documents; losses: of standard, filtered, random, other."""
    random = np.random.default_rng(0)
    runs = []
    for arm, name in zip(ARMS, ("standard", "filtered", "random", "other"), strict=True):
        for seed in range(4):
            values = np.full(40, losses[name]) + noise * random.normal(size=40)
            end = Point(10, 320 if arm.threshold else 80, 0, 1.0, float(np.exp(values.mean())))
            points = (Point(0, 0, 0, 0.0, 100.0), end)
            runs.append(Run(arm.name, seed, 0, points, None, values))
    settings = Settings(updates=10, batch_size=8)
    return Comparison(settings, ARMS, (0, 1, 2, 3), tuple(runs), np.arange(40) // 5)


@pytest.mark.parametrize(
    ("losses", "advice", "better"),
    [
        ({"standard": 4.4, "filtered": 4.2, "random": 4.41, "other": 4.3}, "filter", None),
        ({"standard": 4.4, "filtered": 4.2, "random": 4.41, "other": 4.2}, "other", "classifier"),
        ({"standard": 4.4, "filtered": 4.2, "random": 4.41, "other": 4.1}, "other", "classifier"),
        ({"standard": 4.2, "filtered": 4.2, "random": 4.2, "other": 4.2}, "small", None),
        ({"standard": 4.1, "filtered": 4.2, "random": 4.1, "other": 4.2}, "small", None),
        # Ahead of plain training, and blind skipping is so too.
        ({"standard": 4.4, "filtered": 4.2, "random": 4.2, "other": 4.3}, "unclear", None),
    ],
)
def test_the_advice_follows_from_the_figures(
    losses: dict[str, float], advice: str, better: str | None
) -> None:
    worth = worth_of(comparison(noise=1e-4, **losses))
    assert (worth.advice, worth.better) == (Advice(advice), better)
    assert worth.kept == 80 / 320


def test_few_noisy_runs_are_not_taken_for_an_answer() -> None:
    losses = {"standard": 4.25, "filtered": 4.2, "random": 4.25, "other": 4.2}
    worth = worth_of(comparison(noise=0.5, **losses))
    assert worth.advice is Advice.UNCLEAR
    saving = worth.savings[0]
    assert saving.low < saving.share < saving.high
    assert saving.seeds is None or saving.seeds >= 6


@pytest.mark.slow
def test_learners_worth_tells_text_that_pays_from_text_that_does_not(
    base: Path, tmp_path: Path
) -> None:
    good, mixed, more = (tmp_path / name for name in ("good.txt", "mixed.txt", "more.txt"))
    good.write_text(prose(WANTED, 60_000, seed=1))
    mixed.write_text(prose(OTHER, 60_000, seed=2))
    more.write_text(prose(WANTED, 60_000, seed=3))
    quick = ("--base", base, "--contexts", 200, "--context-length", 16, "--updates", 8)
    quick += ("--batch-size", 4, "--learning-rate", 3e-3, "--device", "cpu")

    def worth(pool: Path, name: str, *options: object) -> tuple[str, dict[str, object]]:
        command = ("worth", "--objective", good, "--pool", pool, "--out", tmp_path / name, *quick)
        result = learners(*command, *options)
        assert result.code == 0, result.err
        again = learners(*command, "--json")  # everything is there: no run is made again
        assert again.code == 0, again.err
        return result.out, again.json

    text, value = worth(mixed, "pays")
    assert value["advice"] in ("filter", "other") and value["advice"] != "small"
    assert "over" in text and "standard" in text and "classifier" in text
    savings = {row["arm"]: row for row in value["savings"]}  # type: ignore[attr-defined]
    assert savings["standard"]["low"] > 0
    assert (tmp_path / "pays" / "model.safetensors").is_file()
    _, same = worth(more, "same")
    assert same["advice"] in ("small", "unclear")
