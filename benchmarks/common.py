"""What the benchmarks share: the facts of the machine, rounds of timings, tables and results."""

from __future__ import annotations

import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from secondary_learners.files import write_json

__all__ = ["RESULTS", "cpu_seconds", "environment", "medians", "rounds", "table", "write_result"]

RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    """The facts that timings depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    """The name in /proc/cpuinfo, or of the architecture where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of `call` in this process: with one thread, what it takes on a quiet machine."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


def rounds(calls: Mapping[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """The figure of every call, `count` times in turn, so that a slow minute hits all alike."""
    figures: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(count):
        for name, call in calls.items():
            figures[name].append(call())
    return figures


def medians(figures: Mapping[str, Iterable[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in figures.items()}


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns of text, the first to the left and the others to the right."""
    lines = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1e4
        else (f"{value:,.0f}" if isinstance(value, float) else str(value))
    )


def write_result(path: Path, figures: Mapping[str, Any]) -> None:
    """Write `figures` with the machine's facts and the command that made them."""
    script = Path(sys.argv[0])
    command = shlex.join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]])
    write_json(path, {"command": command, "environment": environment(), **figures})
