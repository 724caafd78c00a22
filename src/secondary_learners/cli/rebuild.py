"""`learners rebuild`."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from secondary_learners.cli.devices import resolve_device
from secondary_learners.cli.lock import with_locked
from secondary_learners.cli.output import Output, columns, with_output

if TYPE_CHECKING:
    from secondary_learners.recipes.likeness import Figure, FileBytes
    from secondary_learners.recipes.rebuild import Rebuild

__all__ = ["rebuild_command"]


@click.command("rebuild")
@click.argument("name")
@click.option(
    "--corpus",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that the recipe's files are in.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to rebuild it in.  [runs/NAME-rebuilt]"
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
@with_locked
@with_output
def rebuild_command(
    output: Output, name: str, corpus: Path | None, out: Path | None, device: str
) -> int:
    """Make NAME again by its own recipe, and compare with what was published.

    NAME is a name from `learners list`, a repository owner/name, or a folder. The files are
    compared byte by byte, the figures within stated limits, and the scores of both learners on
    text that neither was fitted on. Exit status: 0 when it is the same or within the limits, else
    1. A killed rebuild goes on where it was.
    """
    from secondary_learners.recipes.rebuild import published_seconds, read_published, rebuild
    from secondary_learners.recipes.run import Run

    published = read_published(name)
    folder = out or Path("runs") / f"{published.recipe.name}-rebuilt"
    seconds = published_seconds(published)
    output.note(
        f"rebuilding {published.recipe.name} in {folder}; when it was published, "
        + ("nothing was timed" if seconds is None else f"what was timed took {_duration(seconds)}")
    )
    place = resolve_device(device)
    run = Run(out=folder, corpus=corpus, device=place, progress=output.progress)
    rebuilt = rebuild(published, run)
    output.result(_report(rebuilt), _value(rebuilt))
    return 0 if rebuilt.verdict != "different" else 1


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def _report(rebuilt: Rebuild) -> str:
    files = [("FILE", "BYTES")]
    for file in rebuilt.files:
        files.append((file.name, _bytes(file)))
    figures = [("FIGURE", "PUBLISHED", "REBUILT", "DIFFERENCE", "LIMIT", "")]
    figures += [
        (
            figure.name,
            _number(figure.published),
            _number(figure.rebuilt),
            _difference(figure),
            str(figure.limit),
            "" if figure.within else "OUTSIDE",
        )
        for figure in rebuilt.figures
    ]
    parts = [columns(files), columns(figures)]
    if rebuilt.circumstances:
        rows = [("MADE WITH", "PUBLISHED", "REBUILT")]
        rows += [(c.name, _short(c.published), _short(c.rebuilt)) for c in rebuilt.circumstances]
        parts.append(columns(rows))
    return "\n\n".join([*parts, _sentence(rebuilt)])


def _bytes(file: FileBytes) -> str:
    if file.same:
        return "the same"
    if file.published is None or file.rebuilt is None:
        return "not published" if file.published is None else "not made"
    return "differ" if file.decisive else "differ, without effect on what it does"


def _sentence(rebuilt: Rebuild) -> str:
    outside = sum(not figure.within for figure in rebuilt.figures)
    words = {
        "identical": "the weights and all that belongs to them have the same bytes",
        "within tolerance": "other bytes, and every figure within its limit",
        "different": f"{outside} of {len(rebuilt.figures)} figures outside their limits",
    }
    took = _duration(rebuilt.seconds)
    text = f"{rebuilt.name}: {rebuilt.verdict}: {words[rebuilt.verdict]} ({took})."
    if rebuilt.verdict == "different" and not rebuilt.circumstances:
        text += " Nothing that is recorded explains it: same text, versions and device."
    return text


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _difference(figure: Figure) -> str:
    if math.isinf(figure.difference):
        return "–"
    return f"{figure.difference:.2%}" if figure.limit.relative else f"{figure.difference:.2g}"


def _short(value: str) -> str:
    return value[:12] if len(value) == 64 else value


def _value(rebuilt: Rebuild) -> dict[str, object]:
    """For --json: the fields, and what is worked out from them; no number is infinite."""
    value = asdict(rebuilt)
    value["files"] = [asdict(file) | {"same": file.same} for file in rebuilt.files]
    value["figures"] = [
        {
            "name": figure.name,
            "published": figure.published,
            "rebuilt": figure.rebuilt,
            "limit": figure.limit.most,
            "relative": figure.limit.relative,
            "difference": None if math.isinf(figure.difference) else figure.difference,
            "within": figure.within,
        }
        for figure in rebuilt.figures
    ]
    return value
