"""Scores a corpus again and again, killed at one step after the other: run as a script.

    python killed_scoring.py POOL OUT STEP...

A step is a batch written or a file that becomes whole. Each run is a process of its own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from secondary_learners.engines import sidecars


def dies_at(step: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates functions so that the call number `step` of all of them kills this process."""
    calls = 0

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return counted

    return decorate


def main(pool: str, out: str, *steps: str) -> None:
    from cli_helpers import learners
    from secondary_learners.engines.specification import load_scorer, specify

    load_scorer(specify("books-mini"))  # once for all processes
    for step in steps:
        child = os.fork()
        if not child:
            decorate = dies_at(int(step))
            sidecars.SidecarWriter.write = decorate(sidecars.SidecarWriter.write)
            os.replace = decorate(os.replace)
            result = learners("score", pool, "-l", "books-mini", "--out", out, "--workers", 1)
            print(result.err)
            os._exit(result.code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
