"""What an import and the light commands may load: nothing that takes seconds.

`benchmarks/imports.py` measures what this costs; here it is held to a list.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

OURS = {"secondary_learners"}
COMMAND_LINE = OURS | {"click"}
LOADED = """
import atexit, json, sys
from pathlib import Path
report, sys.argv = Path(sys.argv[1]), sys.argv[1:]
before = set(sys.modules)
atexit.register(lambda: report.write_text(json.dumps(sorted(set(sys.modules) - before))))
"""


def third_party(code: str, report: Path, *arguments: str) -> set[str]:
    """The top-level modules outside the standard library that `code` loads in a new process."""
    command = [sys.executable, "-c", LOADED + code, str(report), *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    loaded = {name.partition(".")[0] for name in json.loads(report.read_text())}
    return loaded - sys.stdlib_module_names


def test_importing_the_package_loads_only_itself(tmp_path: Path) -> None:
    assert third_party("import secondary_learners", tmp_path / "modules.json") == OURS


def test_catching_our_errors_loads_only_the_package(tmp_path: Path) -> None:
    code = "from secondary_learners import SecondaryLearnersError"
    assert third_party(code, tmp_path / "modules.json") == OURS


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("list", "--help"),
        ("run", "--help"),
        ("refresh", "--help"),
        ("score", "--help"),
        ("select", "--help"),
        ("trials", "--help"),
        ("trials", "plan", "--help"),
        ("trials", "run", "--help"),
        ("delta", "make", "--help"),
    ],
    ids=" ".join,
)
def test_light_commands_load_only_click(arguments: tuple[str, ...], tmp_path: Path) -> None:
    code = "from secondary_learners.cli import main; main()"
    loaded = third_party(code, tmp_path / "modules.json", *arguments)
    assert loaded == COMMAND_LINE


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("list", "--json"), ("delta", "show", "sst2-mask-mini")],
    ids=" ".join,
)
def test_the_registry_is_read_with_msgspec_alone(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    code = "from secondary_learners.cli import main; main()"
    loaded = third_party(code, tmp_path / "modules.json", *arguments)
    assert loaded == COMMAND_LINE | {"msgspec", "typing_extensions"}


def test_trials_are_analyzed_without_torch(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("task,init_seed,order_seed,score\na,0,0,0.5\na,0,1,0.6\n")
    code = "from secondary_learners.cli import main; main()"
    arguments = ("trials", "analyze", str(tmp_path / "t.csv"))
    loaded = third_party(code, tmp_path / "modules.json", *arguments)
    assert loaded >= COMMAND_LINE | {"numpy", "scipy"}
    assert not loaded & {"torch", "transformers", "datasets", "optuna", "matplotlib"}
