from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipes_helpers import make
from secondary_learners.errors import (
    MissingExtraError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.gains import store
from secondary_learners.recipes.energy import WORLD, Meter, open_meter
from secondary_learners.recipes.gain_learner import make as run_module
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe

pytestmark = pytest.mark.slow

pytest.importorskip("codecarbon")
COMMON: dict[str, Any] = {"device": "cpu", "command": "learners run tiny", "progress": False}


def spend() -> None:
    sum(range(3_000_000))


def meter(folder: Path, country: str | None = "FRA", **changes: Any) -> Meter | None:
    options = {"plan": "p", "stages": "all", "begun": False} | changes
    return open_meter(folder / "energy.json", country, **options)


def killed(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_a_run_records_its_energy_and_says_how_it_was_had(
    recipe: LearnerRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    made = make(recipe, None, tmp_path / "tiny", energy="FRA", **COMMON)
    energy = made.evaluation["energy"]
    assert 0 < energy["kwh"] < 0.01
    # France: some 50 g of CO2 a kWh, by codecarbon's table.
    assert 0.01 < energy["co2_kg"] / energy["kwh"] < 0.2
    assert 0 < energy["seconds"] < 60
    assert energy["country"] == "FRA"
    assert energy["tool"].startswith("codecarbon 3")
    assert energy["stages"] == "labelling and fitting"
    assert "memory" in energy["method"]
    assert "processor" in energy["method"]
    written = json.loads((made.folder / "evaluation.json").read_text())
    assert written["energy"] == energy
    assert list(here.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("codecarbon").disabled is False

    again = make(recipe, None, made.folder, **COMMON)  # such as after a killed comparison
    assert again.evaluation["energy"] == energy


@pytest.mark.parametrize("stage", ["labeller", "fit_learners"])
def test_a_killed_run_goes_on_measuring_and_adds_up(
    recipe: LearnerRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store if stage == "labeller" else run_module, stage, killed)
        with pytest.raises(KeyboardInterrupt):
            make(recipe, None, tmp_path, energy=WORLD, **COMMON)
    before = json.loads((tmp_path / "work" / "energy.json").read_text())["energy"]
    made = make(recipe, None, tmp_path, **COMMON)
    energy = made.evaluation["energy"]
    assert energy["runs"] == 2
    assert energy["country"] == WORLD
    for figure in ("kwh", "co2_kg", "seconds"):
        assert energy[figure] > before[figure] > 0


def test_a_run_begun_without_measuring_is_never_given_a_part_of_its_energy(
    recipe: LearnerRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "fit_learners", killed)
        with pytest.raises(KeyboardInterrupt):
            make(recipe, None, tmp_path, **COMMON)
    made = make(recipe, None, tmp_path, energy="FRA", **COMMON)
    assert "energy" not in made.evaluation
    assert "was done without measuring it" in caplog.text


def test_energy_of_another_plan_is_not_taken_over(recipe: LearnerRecipe, tmp_path: Path) -> None:
    make(recipe, None, tmp_path, energy="FRA", **COMMON)
    other = replace(recipe, learner=replace(recipe.learner, counts="frequency"))
    assert "energy" not in make(other, None, tmp_path, **COMMON).evaluation


def test_a_complete_measurement_does_not_go_on(tmp_path: Path) -> None:
    first = meter(tmp_path)
    assert first is not None
    assert first.figures() is None
    with first.running():
        spend()
    figures = first.figures()
    again = meter(tmp_path, None)
    assert again is not None
    with again.running():
        spend()
    assert again.figures() == figures


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"plan": "p", "energy": {"x": 1}}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "energy.json").write_bytes(damage)
    assert meter(tmp_path, None) is None
    assert meter(tmp_path, "FRA", begun=True) is None


def test_a_run_is_in_one_country(tmp_path: Path) -> None:
    first = meter(tmp_path)
    assert first is not None
    with first.running():
        pass
    with pytest.raises(
        SecondaryLearnersError, match=r"'FRA', and this run has 'USA'.*--country FRA"
    ):
        meter(tmp_path, "USA")


def test_an_unknown_country_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no country named 'FRX': did you mean .*FRA"):
        meter(tmp_path, "FRX")
    assert list(tmp_path.iterdir()) == []


def test_without_codecarbon_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon.input", None)
    with pytest.raises(MissingExtraError, match=r"codecarbon.*secondary-learners\[energy\]"):
        meter(tmp_path)


_AUDITED = """
import os, sys, tempfile
from pathlib import Path

seen, out = [], Path(sys.argv[1]).resolve()
tempfile.gettempdir()  # which is tried out by writing to it

def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "signal.signal"):
        seen.append((event, str(arguments)))
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path, writes = os.fsdecode(arguments[0]), arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and path != os.devnull and not Path(path).resolve().is_relative_to(out):
            seen.append((event, path))

from secondary_learners.recipes.energy import open_meter
assert "codecarbon" not in sys.modules, "energy.py must not import it"
sys.dont_write_bytecode = True
sys.addaudithook(hook)
meter = open_meter(out / "energy.json", "FRA", plan="p", stages="s", begun=False)
with meter.running():
    sum(range(3_000_000))
assert meter.figures()["kwh"] > 0
assert seen == [], seen
"""


def test_nothing_is_sent_and_nothing_else_written_whatever_codecarbon_is_configured_to_do(
    tmp_path: Path,
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / ".codecarbon.config").write_text(
        "[codecarbon]\noutput_methods=csv,api\nsave_to_api=true\nlog_level=debug\n"
        "emissions_endpoint=http://localhost:9/\nelectricitymaps_api_token=x\n"
        "allow_multiple_runs=false\ncloud_provider=gcp\ncloud_region=europe-west1\n"
    )
    environment = os.environ | {"CODECARBON_CO2_SIGNAL_API_TOKEN": "x", "HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", _AUDITED, str(tmp_path / "out")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["energy.json"]
