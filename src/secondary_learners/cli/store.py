"""`learners serve-check`, `serve-backup`, `serve-restore` and `serve-gc`: what a Hub has stored."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import click
from tqdm import tqdm

from secondary_learners.cli.output import Output, with_output
from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.server.store.alone import alone
from secondary_learners.server.store.backup import Copied, back_up, restore
from secondary_learners.server.store.checking import check_root
from secondary_learners.server.store.collection import collect_strays, collect_uploads
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.limits import Limits

__all__ = [
    "serve_backup_command",
    "serve_check_command",
    "serve_gc_command",
    "serve_restore_command",
]

_folder = click.Path(path_type=Path, file_okay=False)


@click.command("serve-check")
@click.argument("root", type=_folder)
@click.option("--repair", is_flag=True, help="Set aside what is damaged; no server may run.")
@with_output
def serve_check_command(output: Output, root: Path, repair: bool) -> int:
    """Hash every object of the Hub stored in ROOT, and compare with what its database names.

    Found are entries without their object, damaged and torn objects, and strays, which no
    repository holds. A check may run beside the server. With --repair, damaged objects go to
    ROOT/damaged and strays to ROOT/strays, missing ones are put back from there where their bytes
    are right, and a database older than the objects is accepted. Nothing is deleted. The exit code
    is 1 where a file cannot be read.
    """
    _check_is_root(root)
    with alone(root) if repair else nullcontext():
        hub = Hub.open(root, Limits(), older=repair)
        try:
            with _bar(output, "hashed") as progress:
                problems = check_root(hub, repair, progress)
        finally:
            hub.close()
    lines = [
        f"{p.kind}: {p.what}: {p.detail}" + (f" ({p.repaired})" if p.repaired else "")
        for p in problems
    ]
    lost = sum(problem.is_loss for problem in problems)
    if lost:
        lines.append(
            f"{lost} of these are files that cannot be read: upload them again, or copy their "
            "objects from a backup into ROOT/objects."
        )
    text = "\n".join(lines) or "Every object is there, and is what its name says."
    output.result(text, {"problems": [asdict(problem) for problem in problems], "lost": lost})
    return 1 if lost else 0


@click.command("serve-backup")
@click.argument("root", type=_folder)
@click.argument("out", type=_folder)
@click.option("--verify", is_flag=True, help="Hash what the backup holds already, too.")
@with_output
def serve_backup_command(output: Output, root: Path, out: Path, verify: bool) -> int:
    """Add the Hub stored in ROOT, as it is now, to the backup in the folder OUT.

    It may be served meanwhile. Only objects that are not in OUT are copied, each hashed on the way.
    Nothing in OUT is overwritten: every backup stays, and any of them can be restored. OUT holds
    private repositories and the secret that signs links: keep it as you keep ROOT.
    """
    _check_is_root(root)
    with _bar(output, "copied") as progress:
        copied = back_up(root, out, verify, progress)
    return _report(output, copied, f"Backed up as {copied.database}")


@click.command("serve-restore")
@click.argument("backup", type=_folder)
@click.argument("root", type=_folder)
@click.option("--database", help="The backup of this moment, as serve-backup named it.")
@with_output
def serve_restore_command(output: Output, backup: Path, root: Path, database: str | None) -> int:
    """Make ROOT the Hub that was stored when BACKUP was taken, every object hashed.

    ROOT is a new folder, or one that has lost its database: objects there stay. A restore that was
    broken off goes on when it is run again.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(root), _bar(output, "restored") as progress:
        copied = restore(backup, root, database, progress)
    return _report(output, copied, f"Restored {copied.database}")


@click.command("serve-gc")
@click.argument("root", type=_folder)
@click.option(
    "--grace-hours",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    help="Keep what was uploaded or touched within so many hours.",
)
@with_output
def serve_gc_command(output: Output, root: Path, grace_hours: float) -> None:
    """Drop what no commit of the Hub stored in ROOT names, and what no repository holds.

    It may be served meanwhile. A server drops uploads that no commit named within a week by itself.
    """
    _check_is_root(root)
    hub = Hub.open(root, Limits())
    try:
        uploads = collect_uploads(hub, grace_hours * 3600)
        strays = collect_strays(hub, grace_hours * 3600)
    finally:
        hub.close()
    size = uploads.bytes + strays.bytes
    output.result(
        f"Dropped {uploads.count + strays.count:,} objects, {size:,} bytes.",
        {"uploads": asdict(uploads), "strays": asdict(strays)},
    )


def _report(output: Output, copied: Copied, what: str) -> int:
    lines = [f"{what}: {copied.copied:,} objects copied, {copied.there:,} were there."]
    lines += [f"not copied: {line}" for line in copied.failed]
    output.result("\n".join(lines), asdict(copied))
    return 1 if copied.failed else 0


def _check_is_root(root: Path) -> None:
    if not any((root / name).exists() for name in ("hub.sqlite3", "objects")):
        raise SecondaryLearnersError(f"{root} holds no Hub. Try `learners serve {root}`.")


class _bar:
    """A progress bar over objects, where bars are shown."""

    def __init__(self, output: Output, what: str) -> None:
        self._bar = tqdm(desc=what, unit="object", disable=not output.progress)

    def __enter__(self) -> Callable[[int, int], None]:
        return self._update

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _update(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)
