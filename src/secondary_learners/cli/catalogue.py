"""`learners list` and `learners show`: no torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from secondary_learners.artifacts.kinds import artifact_kind, artifact_kinds
from secondary_learners.cli.lock import with_locked
from secondary_learners.cli.output import Output, columns, with_output
from secondary_learners.content import content
from secondary_learners.errors import ArtifactError, OfflineError
from secondary_learners.learners.architectures import ARCHITECTURES, TEXT_ARCHITECTURES
from secondary_learners.registry.index import (
    Entry,
    Sort,
    entry_toml,
    find,
    list_learners,
    sort_key,
)
from secondary_learners.registry.references import NameReference, parse_reference
from secondary_learners.registry.registries import shelf, shelves

if TYPE_CHECKING:
    from secondary_learners.registry.resolved import Resolved

__all__ = ["list_command", "show_command"]


@click.command("list")
@click.option("--base", help="Only learners for this base model.")
@click.option("--corpus", help="Only learners whose corpus contains this word.")
@click.option(
    "--architecture",
    type=click.Choice([*ARCHITECTURES, *TEXT_ARCHITECTURES]),
    help="Only this kind.",
)
@click.option(
    "--sort",
    type=click.Choice(["name", "size", "added"]),
    default="name",
    show_default=True,
    help="Small ones first, or new ones first.",
)
@click.option("--recipes", is_flag=True, help="List the bundled recipes instead.")
@with_output
def list_command(
    output: Output,
    base: str | None,
    corpus: str | None,
    architecture: str | None,
    sort: Sort,
    recipes: bool,
) -> None:
    """List the learners that can be loaded by name, and the base models that ship with them.

    Names of registries that were added (`learners registry`) read ALIAS:NAME.
    """
    if recipes:
        names = sorted(path.stem for path in content("recipes").glob("*.toml"))
        output.result("\n".join(names), names)
        return
    entries: list[tuple[str, Entry]] = []
    for place in shelves():
        listed = list_learners(base=base, architecture=architecture, folder=place.index)
        listed = [entry for entry in listed if corpus is None or corpus in entry.corpus]
        if not (base or corpus or architecture):
            others = [kind.kind for kind in artifact_kinds()[1:]]
            listed += [e for kind in others for e in list_learners(kind=kind, folder=place.index)]
        entries += [(place.prefix + entry.name, entry) for entry in listed]
    key = sort_key(sort)
    entries.sort(key=lambda pair: (artifact_kind(pair[1].kind).place, key(pair[1])))
    if not entries:
        output.note("nothing matches. Try `learners list` without filters.")
    rows = [("NAME", "KIND", "BASE", "ARCHITECTURE", "CORPUS", "SIZE")]
    rows += [(name, e.kind, e.base, e.architecture, e.corpus, _size(e.size)) for name, e in entries]
    remarks = [remark for name, entry in entries for remark in _remarks(name, entry)]
    text = "\n".join([columns(rows), *([""] if remarks else []), *remarks])
    output.result(text if entries else "", [{**asdict(e), "name": name} for name, e in entries])


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


def _remarks(name: str, entry: Entry) -> list[str]:
    """What the columns have no room for."""
    prefix = name.removesuffix(entry.name)
    deprecated = (
        [f"{name} should no longer be used: {entry.deprecated}"] if entry.deprecated else []
    )
    return deprecated + [
        f"{prefix}{alias} is now called {name}: {reason}" for alias, reason in entry.aliases.items()
    ]


@click.command("show")
@click.argument("name")
@with_locked
@with_output
def show_command(output: Output, name: str) -> None:
    """Show the card of NAME, where it is, its commit and the sha256 of each file.

    NAME is a name from `learners list`, a repository owner/name on a Hub, or a folder.
    """
    from secondary_learners.registry.load import locate

    reference = parse_reference(name)
    value: dict[str, Any] = {}
    entry = None
    if isinstance(reference, NameReference):
        place = shelf(reference.registry)
        entry = find(reference.name, folder=place.index)
        value = {**asdict(entry), "name": place.prefix + entry.name}
    try:
        resolved = locate(name)
    except OfflineError as error:
        if entry is None:
            raise
        output.note(f"{error} Its entry says:")
        output.result(entry_toml(entry), value)
        return
    value |= {"source": resolved.source, "folder": str(resolved.folder)}
    value |= {"location": resolved.location or "folder", "endpoint": resolved.endpoint}
    value |= {"commit": resolved.commit or None, "files": dict(resolved.digests or {})}
    for key in ("config", "evaluation"):
        value[key] = _json(resolved, f"{key}.json")
    card = resolved.folder / "README.md"
    text = resolved.read("README.md").decode() if card.is_file() else json.dumps(value, indent=2)
    if text.startswith("---\n"):  # the metadata is for the Hub
        text = text.split("\n---\n", 1)[1].lstrip()
    output.result(f"{text.rstrip()}\n\n{_origin(resolved)}", value)


def _json(resolved: Resolved, name: str) -> Any:
    if not (resolved.folder / name).is_file():
        return None
    try:
        return json.loads(resolved.read(name))
    except ValueError as error:
        path = resolved.folder / name
        raise ArtifactError(f"{path} is damaged: {error}. Get the folder again.") from error


def _origin(resolved: Resolved) -> str:
    """Where the files are from and where they are, and the digests that they have to have."""
    hub = f" on {resolved.endpoint}" if resolved.endpoint else ""
    rows = [("location", f"{resolved.location or 'a folder of your own'}{hub}")]
    rows += [("commit", resolved.commit)] if resolved.commit else []
    rows += [("folder", str(resolved.folder))]
    rows += [
        (f"sha256 {digest}", name) for name, digest in sorted((resolved.digests or {}).items())
    ]
    return columns(rows)
