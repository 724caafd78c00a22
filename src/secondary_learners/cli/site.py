"""`learners catalogue build`: the pages of the registries, as files for any web server."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from secondary_learners.cli.output import Output, with_output
from secondary_learners.errors import MissingExtraError, SecondaryLearnersError
from secondary_learners.registry.index import Entry, read_index
from secondary_learners.registry.registries import Shelf, shelves

if TYPE_CHECKING:
    from secondary_learners.server.judge import Judge
    from secondary_learners.server.pages.artifacts import Artifact

__all__ = ["catalogue_command"]

_READ = ("config.json", "evaluation.json", "README.md")


@click.group("catalogue")
def catalogue_command() -> None:
    """The pages of all that can be loaded by name."""


@catalogue_command.command("build")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--title", default="Secondary learners", show_default=True, help="Of every page.")
@click.option("--url", default="", help="Where the folder will be served, for its feed.")
@with_output
def build_command(output: Output, out: Path, title: str, url: str) -> None:
    """Build the pages as files in the folder OUT, which must be new or empty.

    They show the bundled registry and every added one, need no JavaScript and no server of their
    own: put the folder behind any web server.
    """
    try:
        from secondary_learners.engines.answering import COMMAND
        from secondary_learners.server.judge import Judge
        from secondary_learners.server.pages.site import build_site
    except ModuleNotFoundError as error:
        raise MissingExtraError("jinja2, markdown-it-py and nh3", "serve") from error
    if out.is_dir() and any(out.iterdir()):
        raise SecondaryLearnersError(f"{out} is not empty. Name a new folder, or empty this one.")
    with closing(Judge(COMMAND)) as judge:
        artifacts = [
            _artifact(place, entry, judge)
            for place in shelves()
            for entry in read_index(place.index).values()
        ]
    count = build_site(out, title, artifacts, url)
    text = f"{count:,} files of {len(artifacts):,} artifacts in {out}. Open {out / 'index.html'}."
    output.result(text, {"files": count, "artifacts": len(artifacts), "out": str(out)})


def _artifact(place: Shelf, entry: Entry, judge: Judge) -> Artifact:
    from secondary_learners.server.judge import Material
    from secondary_learners.server.pages.artifacts import File, PageSource, read_artifact
    from secondary_learners.server.pages.scoring import probed
    from secondary_learners.server.store.metadata import MetadataError, metadata_json

    folder = place.bundled / entry.name if place.bundled and not entry.revision else None
    paths = {name: folder / name for name in entry.files} if folder else {}
    readers = {name: paths[name].read_bytes() for name in _READ if name in paths}
    source = PageSource(
        name=place.prefix + entry.name,
        kind=entry.kind.replace("-", " "),
        summary=entry.summary,
        date=f"{entry.added}T00:00:00Z",
        files=[
            File(name, paths[name].stat().st_size if name in paths else None, digest)
            for name, digest in sorted(entry.files.items())
        ],
        readers=readers,
        facts={
            "base": entry.base,
            "objective": entry.objective,
            "corpus": entry.corpus,
            "architecture": entry.architecture,
            "license": entry.license,
            "size": str(entry.size),
        },
    )
    try:
        card = metadata_json(readers.get("README.md", b""))
    except MetadataError:
        card = ""
    artifact = read_artifact(source, json.loads(card) if card else {})
    return probed(artifact, judge, Material(paths, entry.files)) if paths else artifact
