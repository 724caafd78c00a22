"""The option that names the columns of a prompt and its completion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

__all__ = ["with_columns"]


def _two(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise click.BadParameter(f"{value!r} is not two names, such as question,answer.")
    return names[0], names[1]


def with_columns(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--columns`, which gives the command a pair of names or None."""
    return click.option(
        "--columns",
        callback=_two,
        metavar="PROMPT,COMPLETION",
        help="Of instructions, where they are not called prompt and completion.",
    )(command)
