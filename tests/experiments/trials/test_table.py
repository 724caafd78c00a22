from __future__ import annotations

import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.errors import TrialsError, UnknownNameError
from secondary_learners.experiments.trials.table import (
    Trial,
    TrialsTable,
    curves,
    grid,
    read_table,
    write_table,
)

scores = st.floats(-10, 10)
names = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=6).map(str.strip)


@st.composite
def trials(draw, curved):
    points = draw(st.lists(scores, min_size=1, max_size=4)) if curved else []
    places = tuple((place + 1) / len(points) for place in range(len(points)))
    return Trial(
        task=draw(names.filter(bool)),
        init_seed=draw(st.integers(-3, 3)),
        order_seed=draw(st.integers(0, 3)),
        score=max(points) if points else draw(scores),
        arm=draw(names),
        fractions=places,
        scores=tuple(points),
        diverged=draw(st.sampled_from([None, False, True])),
    )


def unique(trial):
    return trial.task, trial.arm, trial.init_seed, trial.order_seed


@settings(deadline=None)
@given(
    st.booleans().flatmap(
        lambda curved: st.lists(trials(curved), min_size=1, max_size=8, unique_by=unique)
    ),
    st.booleans(),
)
def test_what_is_written_is_read_back(tmp_path_factory, held, ranks):
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    table = TrialsTable(tuple(held), ranks)
    write_table(table, path)
    assert read_table(path) == table


def write(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_published_form_is_read(tmp_path):
    table = read_table(
        write(tmp_path, "\ufefftask,init_rank,data_rank,best_val\nrte,0,1,0.6\n\nrte,1,0,0.5\n")
    )
    assert table.ranks
    assert table.trials == (Trial("rte", 0, 1, 0.6), Trial("rte", 1, 0, 0.5))


def test_evaluations_in_any_order_make_one_curve(tmp_path):
    table = read_table(
        write(
            tmp_path,
            "fraction,score,task,order_seed,init_seed,filter,note\n"
            "1,0.5,rte,7,3,books,x\n0.5,0.7,rte,7,3,books,\n0.5,0.1,rte,7,4,books,\n",
        )
    )
    first, second = table.trials
    assert first == Trial("rte", 3, 7, 0.7, "books", (0.5, 1.0), (0.7, 0.5))
    assert first.final == 0.5 and first.finished and not second.finished
    assert table.unfinished() == 1
    assert table.of("rte") == (first,)
    assert table.finals().trials == (Trial("rte", 3, 7, 0.5, "books"),)
    assert not table.ranks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column task and no column init_seed"),
        ("task,init_seed,score\na,1,2\n", r"no column order_seed; it has task, init_seed, score"),
        ("task,init_seed,order_seed,score\n", "a header and nothing below"),
        ("task,init_seed,order_seed,score\na,1,2\n", "line 2: 3 cells under 4 columns"),
        ("task,init_seed,order_seed,score\na,1,2,high\n", "line 2: score is 'high', and must be a"),
        ("task,init_seed,order_seed,score\na,1.5,2,3\n", "init_seed is '1.5', and must be a whole"),
        ("task,init_seed,order_seed,score\na,1,2,nan\n", "seeds 1 and 2 has a score that is not"),
        ("task,init_seed,order_seed,score\na,1,2,3\na,1,2,4\n", "is in the table twice"),
        ("task,init_seed,order_seed,score,score\na,1,2,3,4\n", "the column score twice"),
        ("task,init_seed,order_seed,score,diverged\na,1,2,3,maybe\n", "must be 0, 1 or empty"),
        ("task,init_seed,order_seed,score,fraction\na,1,2,3,2\n", "above 0 and at most 1"),
        ("task,init_seed,order_seed,score,fraction\na,1,2,3,nan\n", "above 0 and at most 1"),
        ("task,init_seed,order_seed,score,fraction\na,1,2,3,1\na,1,2,3,1\n", "each once"),
        ("task,init_seed,order_seed,score,fraction\na,1,2,3,1\na,1,2,3,\n", "some of them without"),
    ],
)
def test_a_bad_table_is_refused_by_its_fault(tmp_path, text, message):
    with pytest.raises(TrialsError, match=message) as caught:
        read_table(write(tmp_path, text))
    assert "t.csv" in str(caught.value)


def test_other_bytes_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"task,\xff\n")
    with pytest.raises(TrialsError, match="not UTF-8"):
        read_table(path)


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    write_table(TrialsTable((Trial("a", 0, 0, 1.0),)), path)
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_table(TrialsTable((Trial("b", 0, 0, 1.0),)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_trial_must_agree_with_its_curve():
    with pytest.raises(TrialsError, match=r"curve's best is 0\.5"):
        Trial("a", 0, 0, 0.6, fractions=(1.0,), scores=(0.5,))
    with pytest.raises(TrialsError, match="1 fractions and 0 scores"):
        Trial("a", 0, 0, 0.6, fractions=(1.0,))


def test_tasks_and_arms_are_asked_for_by_name(table):
    assert table.tasks == ("cola", "rte")
    with pytest.raises(UnknownNameError, match="did you mean cola"):
        table.of("colla")
    two = TrialsTable((Trial("a", 0, 0, 1.0, "x"), Trial("a", 0, 0, 2.0, "y")))
    with pytest.raises(TrialsError, match="the arms x, y: name one"):
        two.of("a")
    assert two.of("a", "y")[0].score == 2.0
    with pytest.raises(UnknownNameError, match="no arm named 'z'"):
        two.of("a", "z")


def test_a_grid_has_holes_where_trials_are_missing():
    inits, orders, cells = grid([Trial("a", 5, 1, 0.1), Trial("a", 2, 9, 0.2)])
    assert (inits, orders) == ((2, 5), (1, 9))
    assert math.isnan(cells[0, 0]) and cells[0, 1] == 0.2 and cells[1, 0] == 0.1


def test_curves_keep_the_points_that_all_share():
    first = Trial("a", 0, 0, 3.0, fractions=(0.25, 0.5, 1.0), scores=(3.0, 1.0, 2.0))
    second = Trial("a", 0, 1, 5.0, fractions=(0.5, 1.0), scores=(4.0, 5.0))
    fractions, held = curves([first, second])
    assert fractions.tolist() == [0.5, 1.0]
    assert held.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    with pytest.raises(TrialsError, match="share only the fractions"):
        curves([second, Trial("a", 0, 2, 1.0, fractions=(0.3, 1.0), scores=(0.0, 1.0))])
    with pytest.raises(TrialsError, match="needs the curve of every trial"):
        curves([second, Trial("a", 0, 2, 1.0)])
