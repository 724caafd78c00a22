"""The benchmarks run: their figures are for a quiet machine, their code is for every change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("name", ["deltas", "gains", "own_text", "scoring"])
def test_smoke_run(name: str, tmp_path: Path) -> None:
    script = BENCHMARKS / f"{name}.py"
    found = subprocess.run(
        [sys.executable, str(script), "--quick", "--out", str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert result["command"].startswith(f"python benchmarks/{name}.py --quick")
    assert {"cpu", "threads", "torch"} <= set(result["environment"])
    assert (tmp_path / f"{name}.png").exists() == (name in ("deltas", "gains"))
