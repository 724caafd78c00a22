"""`learners registry`: other teams' registries, pinned by digest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from secondary_learners.cli.output import Output, columns, with_output

if TYPE_CHECKING:
    from secondary_learners.registry.registries import EntryChange, Registry

__all__ = ["registry_command"]


@click.group("registry")
def registry_command() -> None:
    """Add, list, update and remove other teams' registries.

    A registry is a folder, or a model repository on a Hub, with a TOML file for each learner. Its
    names then read ALIAS:NAME in every command and in load_learner.
    """


@registry_command.command("add")
@click.argument("alias")
@click.argument("source")
@click.option("--endpoint", default="", help="The Hub of SOURCE and its learners.  [HF_ENDPOINT]")
@click.option("--token-env", default="", help="Environment variable with a token for that Hub.")
@with_output
def add_command(output: Output, alias: str, source: str, endpoint: str, token_env: str) -> None:
    """Remember the registry SOURCE (a folder, or owner/name on a Hub) as ALIAS."""
    from secondary_learners.registry.registries import add_registry

    registry = add_registry(alias, source, endpoint=endpoint, token_env=token_env)
    names = [name.removesuffix(".toml") for name in registry.files]
    words = f"{alias}: {len(names)} names, such as {alias}:{names[0]}. See `learners list`."
    output.result(words, asdict(registry))


@registry_command.command("list")
@with_output
def list_command(output: Output) -> None:
    """List the registries that were added."""
    from secondary_learners.registry.registries import read_registries

    registries = read_registries().values()
    if not registries:
        output.note("none was added. Try `learners registry add ALIAS SOURCE`.")
    rows = [("ALIAS", "SOURCE", "HUB", "COMMIT", "NAMES")]
    rows += [
        (each.alias, each.source, each.endpoint, each.commit[:12], str(len(each.files)))
        for each in registries
    ]
    output.result(columns(rows) if registries else "", [asdict(each) for each in registries])


@registry_command.command("update")
@click.argument("aliases", nargs=-1)
@click.option("--yes", "-y", is_flag=True, help="Keep what is new without asking.")
@with_output
def update_command(output: Output, aliases: tuple[str, ...], yes: bool) -> None:
    """Fetch registries again (all, without ALIASES), show what changed, and ask to keep it."""
    from secondary_learners.registry.registries import read_registries, update_registry

    done = []
    for alias in aliases or tuple(read_registries()):

        def accept(registry: Registry, changes: Sequence[EntryChange]) -> bool:
            lines = [f"{registry.alias}:{_words(change)}" for change in changes]
            click.echo("\n".join(lines or [f"{registry.alias}: no entry changed"]), err=True)
            return yes or click.confirm("Keep these?", err=True)

        kept = update_registry(alias, accept)
        state = "kept as it was" if kept is None else "up to date"
        done.append({"alias": alias, "state": state})
    output.result("\n".join(f"{each['alias']}: {each['state']}" for each in done), done)


@registry_command.command("remove")
@click.argument("alias")
@with_output
def remove_command(output: Output, alias: str) -> None:
    """Forget the registry ALIAS; what was loaded from it stays in the cache."""
    from secondary_learners.registry.registries import remove_registry

    remove_registry(alias)
    output.result(f"{alias}: removed", {"alias": alias})


def _words(change: EntryChange) -> str:
    before, after = change.before, change.after
    if before is None or after is None:
        entry = after or before
        assert entry is not None
        verb = "new" if before is None else "gone"
        return f"{change.name}  {verb}: {entry.location}@{entry.revision or ''}".rstrip("@")
    if (before.location, before.endpoint) != (after.location, after.endpoint):
        old, new = (f"{e.location} {e.endpoint}".rstrip() for e in (before, after))
        return f"{change.name}  moved: {old} -> {new}, commit {before.revision} -> {after.revision}"
    if before.revision != after.revision:
        return f"{change.name}  commit {before.revision} -> {after.revision}"
    if before.files != after.files:
        names = before.files.keys() | after.files.keys()
        others = sorted(n for n in names if before.files.get(n) != after.files.get(n))
        return (
            f"{change.name}  OTHER BYTES at the same commit {after.revision}: {', '.join(others)}. "
            "A commit never changes its bytes: ask whoever runs that registry"
        )
    fields = [name for name, value in asdict(after).items() if asdict(before)[name] != value]
    return f"{change.name}  changed: {', '.join(fields)}"
