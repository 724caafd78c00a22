"""What was made once loads for good, and says the same.

1/ holds artifacts of format 1 as the first release shipped them, and their registry entries, with
the spellings of that time; they are never made again. scores.json holds what everything that ships
said then of the tokens in `contract_helpers.IDS`.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cli_helpers import learners
from contract_helpers import probe
from secondary_learners.content import content

HERE = Path(__file__).parent
SCORES: dict[str, list[float]] = json.loads((HERE / "scores.json").read_text())
OLD = HERE / "1"
FROZEN = sorted(path.name for path in (OLD / "learners").iterdir())


def kind_of(entry: Path) -> str:
    kind: str = tomllib.loads(entry.read_text())["kind"]
    return kind


def flat(value: Any) -> list[float]:
    return [one for part in value for one in flat(part)] if isinstance(value, list) else [value]


@pytest.mark.parametrize("name", SCORES)
def test_what_ships_says_what_it_said(name: str) -> None:
    value = probe(kind_of(content("registry") / f"{name}.toml"), name)
    # Another processor sums in another order.
    assert flat(value) == pytest.approx(SCORES[name], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", FROZEN)
def test_an_old_artifact_loads_and_says_what_it_said(name: str) -> None:
    value = probe(kind_of(OLD / "registry" / f"{name}.toml"), OLD / "learners" / name)
    assert flat(value) == pytest.approx(SCORES[name], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", FROZEN)
def test_an_old_recipe_is_read(name: str, tmp_path: Path) -> None:
    """Far enough to say which of its files are not there."""
    result = learners(
        "rebuild", OLD / "learners" / name, "--corpus", tmp_path, "--out", tmp_path / "out"
    )
    assert result.code == 1
    assert "sst2/" in result.err


def test_old_registry_entries_are_read() -> None:
    """Those of a team's own registry, made before."""
    result = learners("registry", "add", "old", OLD, "--json")
    assert result.code == 0, result.err
    try:
        listed = {row["name"]: row for row in learners("list", "--json").json}
        assert {f"old:{name}" for name in FROZEN} <= set(listed)
        assert listed[f"old:{FROZEN[0]}"]["license"] == "apache-2.0"
        for name in FROZEN:  # by their digests
            value = probe(kind_of(OLD / "registry" / f"{name}.toml"), f"old:{name}")
            assert flat(value) == pytest.approx(SCORES[name], rel=1e-5, abs=1e-6)
    finally:
        assert learners("registry", "remove", "old").code == 0
