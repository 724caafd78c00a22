"""The command line in this process, for its tests."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from secondary_learners.cli import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def learners(*arguments: object) -> Result:
    """What `learners ARGUMENTS` prints and returns."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["learners", *map(str, arguments)]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
    assert isinstance(code, int)
    return Result(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Tiny:
    """Own text, a base model, what the options of a quick run are, and the learner it made."""

    objective: Path
    pool: Path
    base: Path
    learner: Path
    made: Result

    @property
    def options(self) -> tuple[object, ...]:
        return quick_options(self.objective, self.pool, self.base)


def quick_options(objective: Path, pool: Path, base: Path) -> tuple[object, ...]:
    text = ("--objective", objective, "--pool", pool, "--base", base)
    return (*text, "--contexts", 200, "--context-length", 16, "--exact", 8, "--device", "cpu")
