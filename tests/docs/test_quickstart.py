"""The README is short, and its Python runs as it is pasted: in an empty folder, offline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_the_script_runs_as_it_is_pasted(count: int, tmp_path: Path) -> None:
    if count == 2:
        pytest.importorskip("accelerate")
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)  # the second goes on from the first
    (tmp_path / "quickstart.py").write_text("".join(blocks[:count]), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "quickstart.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(tmp_path / "hf"),
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("40 of 80 candidates kept (50 %"), result.stdout
    assert ("trained" in result.stdout) == (count == 2), result.stdout
    assert (tmp_path / "mixed.jsonl").exists()


def test_it_has_at_most_700_words_outside_code() -> None:
    text = re.sub(r"```.*?```|<!--.*?-->", "", README, flags=re.S)
    assert len(text.split()) <= 700


def test_it_has_one_script_one_table_one_picture_and_a_recording() -> None:
    outside = re.sub(r"```.*?```", "", README, flags=re.S)
    tables = re.findall(r"^\|[-:|]+\|$", outside, re.M)
    assert len(tables) == 1
    pictures = re.findall(r"!\[[^\]]*\]\(.*?(\w+\.\w+)\)", outside)
    assert sorted(pictures) == ["comparison.png", "demo.svg"]
    assert README.count("```python") == 2  # the script, and the Trainer that goes on from it
