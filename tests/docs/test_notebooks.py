"""The notebooks of docs/ run as they are, offline, and are stored without their output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
LAST = {
    "filter-a-trainer": "loss on the story",
    "make-a-learner": "The expression list",
    "score-your-jsonl": "It was a dark evening",
}
"""What the last cell of each prints."""


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_every_notebook_is_here_and_stored_without_output() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(LAST)
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    source = str(Path(__file__).parents[2] / "src")
    for name, value in {
        "HF_HUB_OFFLINE": "1",
        "SECONDARY_LEARNERS_HOME": str(tmp_path / "home"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]),
    }.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    options = {"timeout": 300, "kernel_name": "python3"}
    nbclient.NotebookClient(
        notebook, resources={"metadata": {"path": str(tmp_path)}}, **options
    ).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert LAST[path.stem] in printed(code[-1])
    if path.stem == "filter-a-trainer":
        assert "trained" in printed(code[-2])
