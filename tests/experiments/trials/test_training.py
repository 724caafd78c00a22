from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secondary_learners.errors import TrialsError, UnknownNameError
from secondary_learners.experiments.trials import training
from secondary_learners.experiments.trials.training import (
    Evaluation,
    Job,
    KnownScores,
    TrialSettings,
    Work,
    candidates,
    evaluation_steps,
    train,
)
from secondary_learners.filtering.thresholds import Constant
from secondary_learners.tasks.batches import halves
from secondary_learners.tasks.classifier import Backbone, Head
from secondary_learners.tasks.encoding import encode_task
from secondary_learners.tasks.reading import read_task
from secondary_learners.tasks.training import update

SETTINGS = TrialSettings(epochs=2, batch_size=8, learning_rate=3e-3, evaluations=3)


@pytest.fixture(scope="module")
def work(loaded: tuple[Any, Any], sea: Path) -> Work:
    model, tokenizer = loaded
    task = encode_task(read_task(sea), tokenizer, 32)
    scores = KnownScores(np.linspace(-1, 1, 48), tuple(np.linspace(-1, 1, 101).tolist()))
    filters = {("sea", "kept"): (scores, Constant(0.0))}
    return Work(Backbone.of(model), "0" * 64, {"sea": task}, filters, SETTINGS)


def run(work: Work, init: int, order: int, arm: str = "", **more: Any) -> list[Evaluation]:
    return list(train(work, replace(Job("sea", arm, 0, init, order, 12), **more)))


def figures(found: list[Evaluation]) -> list[tuple[int, float, float | None]]:
    return [(point.step, point.score, point.loss) for point in found]


def weights(work: Work, seed: int) -> dict[str, torch.Tensor]:
    return dict(work.base.classifier(Head(2, seed, 0)).state_dict())


def test_the_init_seed_sets_the_new_layers_and_nothing_else(work: Work, loaded: tuple) -> None:
    first, again, other = weights(work, 1), weights(work, 1), weights(work, 2)
    new = {name for name in first if not torch.equal(first[name], other[name])}
    assert new == {"score.weight"}
    assert all(torch.equal(first[name], again[name]) for name in first)
    model, _ = loaded
    for name, tensor in model.transformer.state_dict().items():
        assert torch.equal(first[f"transformer.{name}"], tensor)


def test_drawing_weights_leaves_the_callers_random_numbers(work: Work) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(work, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def batches(
    monkeypatch: pytest.MonkeyPatch, work: Work, init: int, order: int, arm: str = ""
) -> list[list[int]]:
    seen: list[list[int]] = []
    halves = training.halves

    def spy(batch: list[int], lengths: Any) -> list[list[int]]:
        seen.append(batch)
        return halves(batch, lengths)

    with monkeypatch.context() as patch:
        patch.setattr(training, "halves", spy)
        run(work, init, order, arm)
    return seen


def test_the_order_seed_sets_the_batches_and_nothing_else(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = batches(monkeypatch, work, 0, 1)
    assert first == batches(monkeypatch, work, 7, 1)
    assert first != batches(monkeypatch, work, 0, 2)
    flat = [place for batch in first for place in batch]
    assert sorted(flat[:48]) == sorted(flat[48:]) == list(range(48))
    assert flat == list(islice(candidates(48, 1), 96))


def test_a_filter_keeps_the_order_and_the_number_of_steps(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = batches(monkeypatch, work, 0, 1, "kept")
    assert [len(batch) for batch in kept] == [8] * 12
    passing = (place for place in candidates(48, 1) if place >= 24)
    assert [place for batch in kept for place in batch] == list(islice(passing, 96))
    last = run(work, 0, 1, "kept")[-1]
    assert last.kept == 96 and 150 < last.seen < 240


def test_same_seeds_same_figures_and_each_seed_matters(work: Work) -> None:
    one = figures(run(work, 0, 0))
    assert (
        [step for step, *_ in one] == list(evaluation_steps(SETTINGS, 48)) == [2, 4, 6, 8, 10, 12]
    )
    assert one == figures(run(work, 0, 0))
    assert one != figures(run(work, 1, 0))
    assert one != figures(run(work, 0, 1))


def test_it_learns(work: Work) -> None:
    found = run(work, 0, 0)
    assert found[-1].score > 0.75 > work.tasks["sea"].floor
    assert not found[-1].constant


def test_a_trial_goes_on_from_its_state_to_the_last_digit(work: Work, tmp_path: Path) -> None:
    whole = run(work, 3, 4, "kept")
    state = tmp_path / "states" / "s.safetensors"
    begun = run(work, 3, 4, "kept", until=6, keep=state)
    rest = run(work, 3, 4, "kept", begin=6, resume=state)
    assert figures(begun) + figures(rest) == figures(whole)
    assert rest[-1].seen == whole[-1].seen
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(TrialsError, match=r"s\.safetensors cannot be read"):
        run(work, 3, 4, "kept", begin=6, resume=state)


def test_a_batch_in_two_parts_has_the_gradient_of_one(work: Work) -> None:
    task = work.tasks["sea"]
    batch = list(range(8))
    parts = halves(batch, task.train.lengths)
    assert len(parts) == 2 and sorted(parts[0] + parts[1]) == batch
    gradients = []
    for split in (parts, [batch]):
        model = work.base.classifier(Head(2, 0, task.pad, dropout=0.0))
        still = torch.optim.SGD(model.parameters(), lr=0.0)
        update(model, still, task.train, split, max_grad_norm=math.inf)
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_diverged_trial_ends_at_the_floor(work: Work) -> None:
    wild = replace(work, settings=replace(SETTINGS, learning_rate=1e30, max_grad_norm=1e30))
    found = run(wild, 0, 0)
    assert [point.step for point in found] == [2, 4, 6, 8, 10, 12]
    assert found[-1].broken and found[-1].constant and found[-1].loss is None
    assert found[-1].score == work.tasks["sea"].floor


def test_bfloat16_is_close(work: Work) -> None:
    short = run(replace(work, settings=replace(SETTINGS, precision="bfloat16")), 0, 0, until=4)
    exact = run(work, 0, 0, until=4)
    assert short[-1].loss == pytest.approx(exact[-1].loss, abs=0.02)
    assert short[-1].loss != exact[-1].loss


def test_known_scores_are_the_learners(work: Work) -> None:
    class Length:
        def score(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return mask.sum(dim=1).double()

        def quantile(self, q: float) -> float:
            return 10 * q

        def check_tokenizer(self, tokenizer: Any) -> None: ...

    examples = work.tasks["sea"].train
    known = KnownScores.of(Length(), examples)
    assert known.scores.tolist() == [len(ids) for ids in examples.ids]
    assert known.quantile(0.255) == pytest.approx(2.55)
    assert known.score(torch.tensor([[3], [5]]), torch.ones(2, 1)).tolist() == [
        len(examples.ids[3]),
        len(examples.ids[5]),
    ]


def test_settings_out_of_range() -> None:
    for name, value in (("epochs", 0), ("learning_rate", math.nan), ("warmup", 1.0)):
        with pytest.raises(TrialsError, match=f"the setting {name} is "):
            TrialSettings(**{name: value})
    with pytest.raises(UnknownNameError, match="no precision named 'fp16'"):
        TrialSettings(precision="fp16")
    assert evaluation_steps(TrialSettings(epochs=0.5, evaluations=10), 100) == (1, 2, 3, 4)
