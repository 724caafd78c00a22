"""The processes of this machine: each item once, and a message where one is killed."""

from __future__ import annotations

import pytest

from corpus_helpers import Doubled
from secondary_learners.engines import local
from secondary_learners.errors import CorpusError, SecondaryLearnersError


def test_each_item_once_by_two_processes() -> None:
    reports: list[int] = []
    results = list(local.run(Doubled(), range(12), 2, reports.append))
    assert sorted(results) == [2 * number for number in range(12)]
    assert len(reports) == len(set(reports)) <= 12  # the last may come too late


def test_what_a_worker_raises_is_raised() -> None:
    with pytest.raises(CorpusError, match="13 is not doubled"):
        list(local.run(Doubled(), range(10, 20), 2, lambda tokens: None))


def test_a_worker_that_is_killed_is_said() -> None:
    with pytest.raises(SecondaryLearnersError, match=r"a worker was killed.*fewer --workers"):
        list(local.run(Doubled(), [1, 666, 2], 2, lambda tokens: None))
