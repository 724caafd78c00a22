"""`learners serve` and `learners serve-token`: a Hub of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from secondary_learners.cli.output import Output, columns, with_output
from secondary_learners.errors import MissingExtraError, SecondaryLearnersError

__all__ = ["serve_command", "serve_token_command"]

_root = click.argument("root", type=click.Path(path_type=Path, file_okay=False))


@click.command("serve")
@_root
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free one."
)
@click.option(
    "--max-file-gb",
    type=click.FloatRange(min=0.001),
    default=100.0,
    show_default=True,
    help="Largest file that is taken.",
)
@click.option(
    "--max-files",
    type=click.IntRange(min=1),
    default=50_000,
    show_default=True,
    help="Most files in a repository.",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    help="A further name this server answers to, such as the one a proxy is reached by.",
)
@click.option(
    "--quota",
    "quotas",
    multiple=True,
    metavar="GB or OWNER=GB",
    help="How much the repositories of every owner, or of this one, may hold.",
)
@click.option(
    "--requests-per-minute",
    type=click.IntRange(min=0),
    help="From one token, or one address without any. 0: no end.  [default: 6000, on loopback 0]",
)
@click.option(
    "--access-log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one line of JSON for each request to this file.",
)
@click.option(
    "--upstream",
    metavar="URL",
    help="Fetch public repositories that are not here from this hub, and keep them.",
)
@click.option(
    "--scoring/--no-scoring",
    default=None,
    help="Score texts that visitors paste, with learners stored here.  [default: on loopback]",
)
@with_output
def serve_command(output: Output, root: Path, host: str, port: int, **options: Any) -> None:
    """Serve the Hub stored in the folder ROOT, which is made if it is not there.

    \b
    learners serve-token create alice ROOT --role write --org team
    learners serve ROOT
    HF_ENDPOINT=http://127.0.0.1:8080 HF_TOKEN=… learners publish runs/mine team/mine

    Anyone who reaches the server reads its public repositories; all else needs a token. ROOT is
    made for you alone to read: it holds the private ones, and the secret that signs links.

    What a commit names is kept for as long as its repository; an upload that no commit names goes
    after a week. Every object is read again once a day, or before it is sent, and one whose bytes
    have changed is set aside, not sent. Try `learners serve-backup ROOT OUT` every night.
    """
    try:
        from secondary_learners.engines.answering import COMMAND
        from secondary_learners.server.hosts import is_loopback
        from secondary_learners.server.server import Address, Service, serve
        from secondary_learners.server.store.limits import Limits
    except ModuleNotFoundError as error:
        raise MissingExtraError("starlette and uvicorn", "serve") from error
    if not is_loopback(host):
        output.note(
            f"warning: {host} is reached from other machines, and this server speaks plain HTTP: "
            "tokens can be read on the way. Put a proxy with TLS in front of it."
        )
    for_all, for_owners = _quotas(options["quotas"])
    scoring = is_loopback(host) if options["scoring"] is None else options["scoring"]
    rate = options["requests_per_minute"]
    if rate is None:
        rate = 0 if is_loopback(host) else 6000
    service = Service(
        Address(host, port, options["names"]),
        Limits(
            file=int(options["max_file_gb"] * 1e9),
            files_per_repository=options["max_files"],
            quota=for_all,
            quotas=for_owners,
        ),
        rate or None,
        options["access_log"],
        options["upstream"],
        COMMAND if scoring else None,
    )
    serve(root, service, click.echo)


def _quotas(texts: Sequence[str]) -> tuple[int | None, dict[str, int]]:
    """(bytes for every owner or None, bytes by owner) of what --quota says."""
    for_all, for_owners = None, {}
    for text in texts:
        owner, equals, size = text.rpartition("=")
        try:
            count = int(float(size) * 1e9)
        except (ValueError, OverflowError):
            count = -1
        if count < 0 or (equals and not owner):
            raise click.BadParameter(f"{text!r} is neither GB nor OWNER=GB.", param_hint="--quota")
        if owner:
            for_owners[owner] = count
        else:
            for_all = count
    return for_all, for_owners


@click.group("serve-token")
def serve_token_command() -> None:
    """Create, list and revoke the tokens of the Hub stored in the folder ROOT.

    A running server knows of a change at once.
    """


@serve_token_command.command("create")
@click.argument("user")
@_root
@click.option("--role", type=click.Choice(["read", "write"]), required=True)
@click.option("--org", "organizations", multiple=True, help="A team whose repositories it opens.")
@with_output
def create_command(
    output: Output, user: str, root: Path, role: str, organizations: tuple[str, ...]
) -> None:
    """Make a token for USER. It is shown this once: only its digest is kept."""
    from secondary_learners.server.store.tokens import create_token

    text = create_token(root, user, role, organizations)
    output.note("Keep it now, it is not shown again. Clients send it as HF_TOKEN.")
    output.result(text, {"token": text})


@serve_token_command.command("list")
@_root
@with_output
def list_command(output: Output, root: Path) -> None:
    """List all tokens: whose they are and what they may do, not what they read."""
    from secondary_learners.server.store.tokens import list_tokens

    tokens = list_tokens(_existing(root))
    rows = [("ID", "USER", "ROLE", "ORGANIZATIONS", "CREATED", "REVOKED")]
    rows += [
        (t.id, t.user, t.role, ", ".join(t.organizations), t.created, t.revoked or "")
        for t in tokens
    ]
    output.result(columns(rows), [asdict(token) for token in tokens])


@serve_token_command.command("revoke")
@click.argument("identifier", metavar="ID")
@_root
@with_output
def revoke_command(output: Output, identifier: str, root: Path) -> None:
    """Refuse the token ID from now on."""
    from secondary_learners.server.store.tokens import revoke_token

    revoke_token(_existing(root), identifier)
    output.result(f"revoked {identifier}", {"revoked": identifier})


def _existing(root: Path) -> Path:
    if not (root / "hub.sqlite3").is_file():
        raise SecondaryLearnersError(
            f"{root} holds no Hub. Try `learners serve-token create USER {root} --role write`."
        )
    return root
