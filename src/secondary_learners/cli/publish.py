"""`learners publish`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from secondary_learners.cli.output import Output, columns, with_output

if TYPE_CHECKING:
    from secondary_learners.publishing.plan import Choice
    from secondary_learners.publishing.publish import Publication

__all__ = ["publish_command"]


@click.command("publish")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--endpoint", help="Address of the Hub.  [default: HF_ENDPOINT, or the public Hub]")
@click.option(
    "--token-env",
    metavar="VARIABLE",
    help="Environment variable with the token.  [default: HF_TOKEN or `hf auth login`]",
)
@click.option("--private/--public", default=None, help="Who may read a repository that is new.")
@click.option("--tag", help="Tag the commit, such as v1.0.")
@click.option(
    "--dry-run", is_flag=True, help="Show what would be uploaded and changed; send nothing."
)
@click.option(
    "--card",
    type=click.Choice(["merge", "ours", "hub"]),
    default="merge",
    show_default=True,
    help="A card edited on the Hub: merge both edits, take this one, or keep the Hub's.",
)
@click.option("--message", "-m", help="Message of the commit.")
@with_output
def publish_command(
    output: Output,
    folder: Path,
    repository: str,
    endpoint: str | None,
    token_env: str | None,
    private: bool | None,
    tag: str | None,
    dry_run: bool,
    card: Choice,
    message: str | None,
) -> None:
    """Publish the learner, delta or base model in FOLDER to a repository of a Hub.

    The folder is audited, and everything goes in one commit. Prints the registry entry to add: save
    it as registry/NAME.toml, or in a registry of your own (see `learners registry`).
    """
    from secondary_learners.publishing.publish import PublishOptions, publish

    publication = publish(
        folder,
        repository,
        PublishOptions(private=private, tag=tag, card=card, message=message),
        endpoint=endpoint,
        token=_token(token_env),
        dry_run=dry_run,
    )
    value = _value(publication)
    if dry_run:
        output.result(_account(publication), value)
    else:
        output.note(_account(publication) + "\n")
        output.result(value["entry_toml"].rstrip("\n"), value)


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise click.UsageError(f"the environment variable {variable} is not set or empty.")
    return token


def _value(publication: Publication) -> dict[str, Any]:
    """The publication in JSON's types, with the entry as TOML beside its fields."""
    from secondary_learners.registry.index import entry_toml

    entry = publication.entry
    return {**asdict(publication), "entry_toml": entry and entry_toml(entry)}


def _account(publication: Publication) -> str:
    """What was done, or would be, file by file."""
    place = f"{publication.repository} on {publication.endpoint}"
    words = {True: ["private"], False: ["public"], None: []}[publication.private]
    if publication.parent is None:  # nobody said which: then a Hub makes it public, unless…
        words = ["new", *(words or ["public unless that Hub makes new ones private: --private"])]
    rows = [
        (str(change.kind), change.path, f"{change.size:,} bytes", (change.sha256 or "")[:12])
        for change in publication.changes
    ]
    lines = [f"{place} ({', '.join(words)})", columns(rows)]
    if publication.left_out:
        lines.append(f"not published: {', '.join(publication.left_out)}")
    if publication.dry_run:
        done = "one commit would be made" if publication.changed else "nothing would change"
        done += f", and tagged {publication.tag}" if publication.tag else ""
        lines.append(f"dry run: nothing was sent; {done}.")
    else:
        done = f"commit {publication.commit}"
        done = done if publication.changed else f"nothing changed since {done}"
        lines.append(f"{done}, tagged {publication.tag}" if publication.tag else done)
    return "\n".join(lines)
