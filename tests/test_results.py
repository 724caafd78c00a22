"""A result can be traced: what measured it, when, by which command, with which seeds and data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
TRACED = ("commit", "version", "date", "seeds", "command", "data")
# Measured before this was asked for. The list may only shrink: measure again, and take a line out.
UNTRACED = {
    "books.json",
    "deltas.json",
    "gains.json",
    "imports.json",
    "instruction_methods.json",
    "instructions.json",
    "label_speed.json",
    "load.json",
    "multistage.json",
    "overhead.json",
    "own_text.json",
    "scoring.json",
    "subsets.json",
    "transfer.json",
}


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.name)
def test_a_result_says_where_it_comes_from(path: Path) -> None:
    result = json.loads(path.read_text())
    assert result.get("command", "").startswith(("python ", "learners ")), "no command"
    missing = [name for name in TRACED if name not in result]
    if path.name in UNTRACED:
        assert missing, f"{path.name} is traced now: take it out of UNTRACED"
    else:
        assert not missing
        assert len(result["commit"].split()[0]) == 40
        assert all(len(digest) == 64 for digest in result["data"].values())


def test_no_result_is_excused_that_is_not_there() -> None:
    assert {path.name for path in RESULTS.glob("*.json")} >= UNTRACED
