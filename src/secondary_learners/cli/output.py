"""The one place that prints: for people, as JSON, or nothing but the essential."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from secondary_learners.experiments.tables import columns

__all__ = ["Output", "columns", "printable", "with_output"]


@dataclass(frozen=True)
class Output:
    """Where a command's words go. `json`: one JSON value on stdout. `quiet`: results alone."""

    json: bool
    quiet: bool

    @property
    def progress(self) -> bool:
        """Whether progress bars are shown."""
        return not (self.json or self.quiet) and sys.stderr.isatty()

    def note(self, text: str) -> None:
        """Something worth knowing on the way, on stderr."""
        if not (self.json or self.quiet):
            click.echo(printable(text), err=True)

    def result(self, text: str, value: Any, *, styled: bool = False) -> None:
        """What the command was asked for: `text` for people, `value` as JSON.

        styled: `text` has codes of our own for the terminal, around what is `printable`.
        """
        if self.json:
            click.echo(printable(json.dumps(value, ensure_ascii=False, default=str)))
        else:
            click.echo(text if styled else printable(text))


# Control characters but for tab and line feed, and half of a surrogate pair.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with the escapes of what could steer a terminal in place of it.

    Cards, registries and answers of Hubs are other people's words.
    """
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def with_output(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json and --quiet, and pass an Output as the first argument."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON value.")
    @click.option("--quiet", "-q", is_flag=True, help="Print results only: no notes, no progress.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> Any:
        level = logging.WARNING if as_json or quiet else logging.INFO
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("secondary_learners").setLevel(level)
        # transformers has a bar for loading weights, which takes no time at these sizes.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        return command(Output(as_json, quiet), *args, **kwargs)

    return wrapped
