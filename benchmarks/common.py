"""What the benchmarks share: the facts of the machine, rounds of timings, tables and results."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from secondary_learners.files import json_bytes, sha256_bytes, sha256_file, write_json

__all__ = [
    "RESULTS",
    "cpu_seconds",
    "environment",
    "medians",
    "provenance",
    "rounds",
    "table",
    "write_result",
]

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


def provenance(
    *, seeds: Iterable[int] = (), data: Mapping[str, Path] | None = None
) -> dict[str, Any]:
    """What a result can be traced by: commit, version, date, seeds, command, digests of its data.

    seeds: all that were used. data: files and folders by the names to record them under. Absolute
    paths in the command are cut to their last part, since they are only one machine's.
    """
    script = Path(sys.argv[0])
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return {
        "commit": _commit(),
        "version": version("secondary-learners"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seeds": list(seeds),
        "command": shlex.join(["python", f"{script.parent.name}/{script.name}", *words]),
        "data": {name: _digest(path) for name, path in (data or {}).items()},
    }


def _commit() -> str | None:
    """Of this checkout, with a mark when its source differs from it; None outside of git."""
    here = Path(__file__).parents[1]

    def git(*words: str) -> str:
        asked = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        )
        return asked.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "src", "benchmarks/*.py")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _digest(path: Path) -> str:
    """The sha256 of a file, or of the names and digests of all files in a folder."""
    if path.is_file():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return sha256_bytes(
        json_bytes({file.relative_to(path).as_posix(): sha256_file(file) for file in files})
    )


def write_result(
    path: Path,
    figures: Mapping[str, Any],
    *,
    seeds: Iterable[int] = (),
    data: Mapping[str, Path] | None = None,
) -> None:
    """Write `figures` with the machine's facts and what `provenance` says of seeds and data."""
    traced = provenance(seeds=seeds, data=data)
    write_json(path, {**traced, "environment": environment(), **figures})
