"""The option that says where curves and figures are sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from secondary_learners.experiments.tracking import TRACKERS, check_tracker

__all__ = ["with_report_to"]


def _installed(context: click.Context, parameter: click.Parameter, value: str) -> str:
    check_tracker(value)
    return value


def with_report_to(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--report-to`, which gives the command the name of a tracker that is installed."""
    return click.option(
        "--report-to",
        type=click.Choice(list(TRACKERS)),
        default="none",
        show_default=True,
        callback=_installed,
        help="Where curves and figures are sent as they come.",
    )(command)
