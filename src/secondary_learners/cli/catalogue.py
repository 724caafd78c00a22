"""`learners list` and `learners show`: no torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from secondary_learners.catalogue import content
from secondary_learners.cli.output import Output, columns, with_output
from secondary_learners.errors import ArtefactError
from secondary_learners.registry.index import find, list_learners, read_index

__all__ = ["list_command", "show_command"]


@click.command("list")
@click.option("--base", help="Only learners for this base model.")
@click.option("--corpus", help="Only learners whose corpus contains this word.")
@click.option("--architecture", type=click.Choice(["linear", "conv"]), help="Only this kind.")
@click.option("--recipes", is_flag=True, help="List the bundled recipes instead.")
@with_output
def list_command(
    output: Output, base: str | None, corpus: str | None, architecture: str | None, recipes: bool
) -> None:
    """List the learners that can be loaded by name, and the base models that ship with them."""
    if recipes:
        names = sorted(path.stem for path in content("recipes").glob("*.toml"))
        output.result("\n".join(names), names)
        return
    entries = list_learners(base=base, architecture=architecture)
    entries = [entry for entry in entries if corpus is None or corpus in entry.corpus]
    if not (base or corpus or architecture):
        entries += [entry for entry in read_index().values() if entry.kind == "base-model"]
    if not entries:
        output.note("nothing matches. Try `learners list` without filters.")
    rows = [("NAME", "KIND", "BASE", "ARCHITECTURE", "CORPUS", "SIZE")]
    rows += [
        (e.name, e.kind, e.base, e.architecture, e.corpus, f"{e.size / 1e6:.1f} MB")
        for e in entries
    ]
    output.result(columns(rows) if entries else "", [asdict(entry) for entry in entries])


@click.command("show")
@click.argument("name")
@with_output
def show_command(output: Output, name: str) -> None:
    """Show the card of NAME, or of the artefact in the folder NAME."""
    if (Path(name) / "config.json").is_file():
        folder, value = Path(name), {}
    else:
        entry = find(name)
        folder, value = content("learners") / entry.name, asdict(entry)
    for key in ("config", "evaluation"):
        path = folder / f"{key}.json"
        try:
            value[key] = json.loads(path.read_bytes()) if path.is_file() else None
        except ValueError as error:
            raise ArtefactError(f"{path} is damaged: {error}. Get the folder again.") from error
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else json.dumps(value, indent=2)
    if text.startswith("---\n"):  # the metadata is for the Hub
        text = text.split("\n---\n", 1)[1].lstrip()
    output.result(text, value)
