"""`learners lock` and `learners verify`, and the option --locked of the commands that load."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from secondary_learners.cli.output import Output, columns, with_output

__all__ = ["lock_command", "verify_command", "with_locked"]

_VARIABLE = "SECONDARY_LEARNERS_LOCKED"


def with_locked(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --locked, which holds for everything that the command loads."""

    @click.option("--locked", is_flag=True, help="Refuse whatever learners.lock does not pin.")
    @functools.wraps(command)
    def wrapped(*args: Any, locked: bool, **kwargs: Any) -> Any:
        if not locked:
            return command(*args, **kwargs)
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = "1"
        try:
            return command(*args, **kwargs)
        finally:
            os.environ.pop(_VARIABLE)
            if before is not None:
                os.environ[_VARIABLE] = before

    return wrapped


@click.command("lock")
@click.argument("names", nargs=-1, required=True)
@with_output
def lock_command(output: Output, names: tuple[str, ...]) -> None:
    """Pin NAMES in learners.lock: where each comes from, its commit, the sha256 of each file.

    NAMES are names from `learners list` or repositories (owner/name, owner/name@v1.0). The base
    models in a registry that they need are pinned with them. What is pinned is from then on loaded
    as pinned in this folder; --locked or SECONDARY_LEARNERS_LOCKED=1 refuse all else.
    SECONDARY_LEARNERS_LOCK names another file than ./learners.lock.
    """
    from secondary_learners.registry.lock import lock_path
    from secondary_learners.registry.locking import lock_references

    new = lock_references(names)
    lines = [
        f"{key}  {pin.location}"
        + (f"@{pin.commit}" if pin.commit else "")
        + (f"  (was {was.commit or was.location})" if was else "")
        for key, (was, pin) in new.items()
    ]
    output.result(
        "\n".join([*lines, f"{len(new)} pinned anew in {lock_path()}"]),
        {"lock": str(lock_path()), "new": {key: asdict(pin) for key, (_, pin) in new.items()}},
    )


@click.command("verify")
@click.argument("names", nargs=-1)
@with_output
def verify_command(output: Output, names: tuple[str, ...]) -> int:
    """Hash again what ships and what is in the cache, and say which files differ.

    NAMES are names from `learners list` or repositories; without any, all that are known. Nothing
    is fetched. Exit code 1 when a file differs or is missing.
    """
    from secondary_learners.registry.verify import verify

    findings = verify(list(names) or None)
    bad = [finding for finding in findings if not finding.good]
    rows = [
        (
            finding.name,
            str(finding.path),
            f"sha256 {finding.actual or 'missing'}",
            f"and not {finding.expected} ({finding.recorded_in})",
        )
        for finding in bad
    ]
    checked = len({finding.name for finding in findings})
    words = f"{len(findings) - len(bad)} of {len(findings)} files of {checked} artifacts are right"
    if not findings:
        words = "nothing is here to verify: it was never loaded on this machine."
    output.result(
        "\n".join([*([columns(rows)] if rows else []), words]), [_json(f) for f in findings]
    )
    return 1 if bad else 0


def _json(finding: Any) -> dict[str, Any]:
    return {**asdict(finding), "path": str(finding.path), "good": finding.good}
