from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from secondary_learners.errors import DivergedError, SecondaryLearnersError, UnknownNameError
from secondary_learners.experiments import compare as module
from secondary_learners.experiments.candidates import Candidates
from secondary_learners.experiments.compare import Comparison, Settings, compare
from secondary_learners.experiments.summary import plain_words
from secondary_learners.filtering.thresholds import Constant, Shifting

SETTINGS = Settings(updates=12, batch_size=4, learning_rate=3e-3, evaluate_every=5)
THRESHOLDS = (Constant(0.5), Shifting(0.5, -9.0, 4))
ARMS = [
    "standard",
    "constant:0.5",
    "shifting:0.5,-9,4",
    "random constant:0.5",
    "random shifting:0.5,-9,4",
    "low only",
]


@pytest.fixture
def run(model, pool, test_contexts, learner):
    def run(**changes):
        arguments = {
            "thresholds": THRESHOLDS,
            "seeds": (0, 1, 2),
            "settings": SETTINGS,
            "in_domain": "low",
            "progress": False,
        }
        arguments |= {"model": model, "pool": pool, "test": test_contexts, "learner": learner}
        return compare(**(arguments | changes))

    return run


def figures(comparison: Comparison):
    """All but the seconds, which no two runs share."""
    return [
        (run.arm, run.seed, run.forced, [replace(point, seconds=0.0) for point in run.points])
        for run in comparison.runs
    ]


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_same_seeds_give_the_same_numbers_and_the_model_comes_back(run, model):
    before = weights(model)
    generator = torch.get_rng_state()
    first = run()
    assert same(before, weights(model))
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(generator, torch.get_rng_state())
    torch.manual_seed(99)  # the caller's generator is no part of a run
    model.train()
    again = run()
    assert model.training
    assert figures(first) == figures(again)
    assert [arm.name for arm in first.arms] == ARMS
    assert [point.update for point in first.runs[0].points] == [0, 5, 10, 12]
    assert len({run.perplexity for run in first.of(first.arms[0])}) == 3  # seeds differ


def test_every_arm_draws_what_it_says(run, pool):
    comparison = run()
    kept = SETTINGS.updates * SETTINGS.batch_size
    drawn = {
        arm.name: [run.points[-1].drawn_contexts for run in comparison.of(arm)]
        for arm in comparison.arms
    }
    assert drawn["standard"] == [kept] * 3
    for place, seed in enumerate(comparison.seeds):
        order = np.random.default_rng([seed, 0])
        ids = np.concatenate([order.permutation(len(pool)) for _ in range(3)])
        good = np.flatnonzero(pool.domain[ids] == 1)  # the learner tells the domains apart
        # What it passes over counts: somebody had to find it.
        assert drawn["constant:0.5"][place] == good[kept - 1] + 1 == drawn["low only"][place]
        assert drawn["shifting:0.5,-9,4"][place] == good[15] + 1 + kept - 16
        for name in ("constant:0.5", "shifting:0.5,-9,4"):
            assert drawn[f"random {name}"][place] == pytest.approx(drawn[name][place], rel=0.5)
    for run_ in comparison.runs:
        assert [point.drawn_tokens for point in run_.points] == [
            8 * point.drawn_contexts for point in run_.points
        ]


def test_a_good_filter_wins_and_a_random_one_does_not(run):
    comparison = run(seeds=range(6))
    rows = {row.arm: row for row in comparison.rows()}
    good, blind, standard = rows["constant:0.5"], rows["random constant:0.5"], rows["standard"]
    assert good.perplexity < 0.9 * standard.perplexity
    assert blind.perplexity == pytest.approx(standard.perplexity, rel=0.1)
    assert good.p_standard == good.p_random == 2 / 2**6
    assert standard.p_standard is None and blind.p_random is None
    assert 0 < good.updates_to_standard < 12
    assert standard.updates_to_standard == 12
    assert standard.drawn_per_kept == 1 < 2 < good.drawn_per_kept < 5


def test_the_candidates_of_a_seed_are_in_one_order(pool):
    def drawn(count=400, **options):
        candidates = iter(Candidates(pool, 3, **options))
        return [one["input_ids"].tobytes() for one in islice(candidates, count)]

    standard = drawn()
    assert sorted(standard[:200]) == sorted(ids.tobytes() for ids in pool.input_ids)
    assert standard[:200] != standard[200:]
    inside = {ids.tobytes() for ids in pool.in_domain("low").input_ids}
    present = pool.domain == pool.domains.index("low")
    assert drawn(100, present=present) == [ids for ids in standard if ids in inside][:100]
    rest = iter(standard)
    assert all(ids in rest for ids in drawn(150, rate=0.5))  # a subsequence


def test_perplexity_is_that_of_the_model_itself(run, model, test_contexts):
    comparison = run(thresholds=(), seeds=[0], in_domain=None)
    ids = torch.from_numpy(test_contexts.input_ids)
    with torch.no_grad():
        expected = model.double()(input_ids=ids, labels=ids).loss.exp().item()
    assert comparison.runs[0].points[0].perplexity == pytest.approx(expected, rel=1e-6)


def test_a_killed_comparison_goes_on_to_the_same_figures(run, model, tmp_path, monkeypatch):
    whole = run()
    before = weights(model)
    train, calls = module._Trainer._train, []

    def killed(self, arm, seed, *rest):
        calls.append((arm.name, seed))
        if len(calls) == 10:
            raise KeyboardInterrupt
        return train(self, arm, seed, *rest)

    monkeypatch.setattr(module._Trainer, "_train", killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path)
    assert same(before, weights(model))
    assert len(list((tmp_path / "runs").iterdir())) == 9
    resumed = run(folder=tmp_path)
    assert len(calls) == len(whole.runs) + 1  # the killed run was begun twice, no other
    assert figures(resumed) == figures(whole)
    assert figures(run(folder=tmp_path)) == figures(whole)
    assert len(calls) == len(whole.runs) + 1


@pytest.mark.slow
def test_processes_share_a_folder(run, tmp_path):
    run(folder=tmp_path, seeds=[2])
    run(folder=tmp_path, seeds=[0], thresholds=THRESHOLDS[:1], in_domain=None)
    assert figures(run(folder=tmp_path)) == figures(run())


@pytest.mark.parametrize("what", ["settings", "pool", "test", "model", "learner"])
def test_a_folder_of_another_comparison_is_refused(
    run, model, pool, test_contexts, learner, tmp_path, what
):
    arguments = {"folder": tmp_path, "thresholds": (), "seeds": [0], "in_domain": None}
    run(**arguments)
    if what == "model":
        with torch.no_grad():
            model.transformer.h[1].mlp.c_fc.weight[0, 0] += 1
    changed = {
        "settings": lambda: replace(SETTINGS, learning_rate=1e-3),
        "pool": lambda: pool.select(range(199)),
        "test": lambda: test_contexts.select(range(99)),
        "model": lambda: model,
        "learner": lambda: type(learner)(replace(learner.config, name="other"), learner.net),
    }
    with pytest.raises(
        SecondaryLearnersError, match=rf"other settings: {what}\b.* was .*Try another folder"
    ):
        run(**(arguments | {what: changed[what]()}))


def test_a_damaged_run_file_is_made_again(run, tmp_path, caplog):
    arguments = {"folder": tmp_path, "thresholds": (), "seeds": [0], "in_domain": None}
    whole = figures(run(**arguments))
    (path,) = (tmp_path / "runs").iterdir()
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        assert figures(run(**arguments)) == whole
        assert f"{path} is damaged" in caplog.text
        caplog.clear()


def test_a_loss_that_is_not_finite_stops_the_comparison(run, model, monkeypatch):
    before = weights(model)
    step, calls = module._Trainer._step, []

    def poisoned(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            with torch.no_grad():
                next(self._model.parameters()).fill_(float("nan"))
        return step(self, *arguments)

    monkeypatch.setattr(module._Trainer, "_step", poisoned)
    with pytest.raises(DivergedError, match=r"'standard', seed 0 is nan at update 3"):
        run()
    assert same(before, weights(model))


def test_results_read_back_from_json(run):
    comparison = run(seeds=[0, 1])
    text = json.dumps(comparison.to_dict(), allow_nan=False)
    again = Comparison.from_dict(json.loads(text))
    assert again == comparison
    assert again.table() == comparison.table()
    with pytest.raises(SecondaryLearnersError, match="newer"):
        Comparison.from_dict(json.loads(text) | {"format_version": 2})


def test_the_table_shows_every_arm(run):
    lines = run(seeds=[4]).table().splitlines()
    assert "after 12 updates of 4 contexts, 1 seed (" in lines[0]
    assert [line.split("  ")[0] for line in lines[4:]] == ARMS
    assert "±" not in "".join(lines[4:])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"in_domain": "lwo"}, UnknownNameError, "did you mean low"),
        ({"seeds": []}, SecondaryLearnersError, "seeds"),
        ({"seeds": [1, 1]}, SecondaryLearnersError, "a seed is given twice"),
        ({"thresholds": [Constant(1), Constant(1.0)]}, SecondaryLearnersError, "an? arm is given"),
    ],
)
def test_misuse_says_what_to_try(run, changes, error, message):
    with pytest.raises(error, match=message):
        run(**changes)


@pytest.mark.parametrize("changes", [{"updates": 0}, {"learning_rate": float("nan")}])
def test_settings_are_checked(changes):
    with pytest.raises(SecondaryLearnersError, match=f"the setting {next(iter(changes))}"):
        Settings(**changes)


def low_first(ids):
    """The learner of the tests likes high ids; this likes the opposite."""
    return -ids.mean(axis=1)


def test_selectors_are_judged_at_the_draws_of_the_filter(run, pool, tmp_path):
    seen = []

    def select(ids):
        seen.append(ids)
        return low_first(ids)

    options = {
        "thresholds": THRESHOLDS[:1],
        "selectors": {"lowest": select, "highest": lambda ids: -low_first(ids)},
        "everything": True,
        "folder": tmp_path,
    }
    comparison = run(**options)
    arms = {arm.name: arm for arm in comparison.arms}
    kept = SETTINGS.updates * SETTINGS.batch_size
    for place, seed in enumerate(comparison.seeds):
        last = {name: comparison.of(arm)[place].points[-1] for name, arm in arms.items()}
        drawn = last["constant:0.5"].drawn_contexts
        order = np.random.default_rng([seed, 0])
        places = np.concatenate([order.permutation(len(pool)) for _ in range(3)])[:drawn]
        np.testing.assert_array_equal(seen[place], pool.input_ids[places])
        assert last["lowest"].drawn_contexts <= drawn
        assert last["lowest"].update == SETTINGS.updates
        assert last["everything drawn"].update == drawn // SETTINGS.batch_size > SETTINGS.updates
        assert last["everything drawn"].drawn_contexts == kept * (drawn // kept) or (
            drawn - SETTINGS.batch_size < last["everything drawn"].drawn_contexts <= drawn
        )
    rows = {row.arm: row for row in comparison.rows()}
    assert rows["everything drawn"].drawn_per_kept == 1
    assert rows["highest"].perplexity != rows["lowest"].perplexity
    assert {rows["low only"].in_domain, rows["constant:0.5"].in_domain} == {1.0}
    assert 0.2 < rows["standard"].in_domain < 0.8
    assert rows["constant:0.5"].p_filter is None and rows["highest"].p_filter == 2 / 2**3
    assert "p (filter)" in comparison.table() and "p (filter)" not in run().table()
    words = plain_words(comparison)
    assert "draws and updates lowest ended 0.0 % lower than it (p = 1)" in words
    assert f"highest ended {rows['highest'].change * 100:.1f} % higher" in words
    again = run(**options)
    assert figures(again) == figures(comparison) and len(seen) == 3
    assert [row.change_interval for row in again.rows()] == [
        row.change_interval for row in comparison.rows()
    ]


def test_the_interval_covers_seeds_and_documents(run):
    comparison = run(seeds=range(4), thresholds=THRESHOLDS[:1])
    for row in comparison.rows():
        if row.kind == "filtered":
            assert row.change is row.change_interval is None
        elif row.kind == "in-domain":  # the very candidates that this learner keeps
            assert row.change == 0 and row.change_interval == (0, 0)
        else:
            low, high = row.change_interval
            assert 0 < low < row.change < high


def test_only_the_subset_is_trained_and_in_the_precision_asked_for(run, model, learner):
    before = weights(model)
    plain = run(thresholds=(), seeds=[0], in_domain=None)
    few, low = (
        run(thresholds=(), seeds=[0], in_domain=None, settings=replace(SETTINGS, **changes))
        for changes in ({"trainable": "last-layers"}, {"precision": "bfloat16"})
    )
    assert few.runs[0].points[0].perplexity == plain.runs[0].points[0].perplexity
    assert few.runs[0].perplexity != plain.runs[0].perplexity
    assert low.runs[0].perplexity == pytest.approx(plain.runs[0].perplexity, rel=0.1)
    assert low.runs[0].perplexity != plain.runs[0].perplexity
    assert same(before, weights(model))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_selector_that_gives_no_numbers_is_named(run):
    for wrong in (lambda ids: ids, lambda ids: np.full(len(ids), np.nan)):
        with pytest.raises(SecondaryLearnersError, match="a number for each"):
            run(thresholds=THRESHOLDS[:1], seeds=[0], selectors={"wrong": wrong})
    with pytest.raises(SecondaryLearnersError, match="there is no threshold"):
        run(thresholds=(), selectors={"lowest": low_first})
