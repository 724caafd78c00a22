"""What becomes of each file of a repository, and the card as it will be there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from secondary_learners.artifacts.kinds import artifact_kinds
from secondary_learners.artifacts.layout import published_files
from secondary_learners.cards.check import CardFault, check_card
from secondary_learners.errors import AuditError, PublishError
from secondary_learners.files import git_sha1, sha256_bytes, sha256_file
from secondary_learners.publishing.audit import check_license
from secondary_learners.publishing.client import Client, State
from secondary_learners.publishing.merge import Conflict, merge_cards
from secondary_learners.recipes.record import Record
from secondary_learners.registry.remote import Remote

__all__ = [
    "RENDERED",
    "SENT",
    "ChangeKind",
    "Choice",
    "Content",
    "FileChange",
    "UploadPlan",
    "plan_upload",
]

CARD = "README.md"
# The card as it was last rendered here, kept beside the one that people edit on the hub: what
# differs between the two is their work, whatever becomes of the history.
RENDERED = ".card.md"

Choice = Literal["merge", "ours", "hub"]


class ChangeKind(StrEnum):
    """What becomes of a file of the repository."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    KEPT = "kept-on-hub"
    MERGED = "merged"


@dataclass(frozen=True)
class FileChange:
    """One file. sha256: of what is in the repository afterwards, where it is known."""

    path: str
    kind: ChangeKind
    size: int
    sha256: str | None


SENT = (ChangeKind.ADDED, ChangeKind.CHANGED, ChangeKind.MERGED)


@dataclass(frozen=True)
class Content:
    """The bytes of a file, in memory or on disk, and what Hubs call them by."""

    source: Path | bytes
    size: int
    sha256: str
    sha1: str


def _content(source: Path | bytes) -> Content:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    sha256 = sha256_bytes(source) if isinstance(source, bytes) else sha256_file(source)
    return Content(source, size, sha256, git_sha1(source))


@dataclass(frozen=True)
class UploadPlan:
    """The files as they will be in the repository, and what becomes of each."""

    contents: Mapping[str, Content]
    changes: tuple[FileChange, ...]

    @property
    def sent(self) -> dict[str, Path | bytes]:
        kinds = {change.path: change.kind for change in self.changes}
        return {name: it.source for name, it in self.contents.items() if kinds[name] in SENT}


def plan_upload(
    client: Client, head: State | None, folder: Path, recipe: Record, card: Choice
) -> UploadPlan:
    contents = {path.name: _content(path) for path in published_files(folder)}
    ours = _for_repository((folder / CARD).read_text(encoding="utf-8"), recipe, client.remote)
    text, card_kind = _card(client, head, ours, card)
    if text != ours:
        _check_merged(text, folder, recipe)
    contents[CARD] = _content(text.encode())
    contents[RENDERED] = _content(ours.encode())
    there = {} if head is None else head.files
    changes = []
    for name in sorted({*contents, *there}):
        if name not in contents:
            stored = there[name]
            changes.append(FileChange(name, ChangeKind.KEPT, stored.size, stored.sha256))
            continue
        item = contents[name]
        if name not in there:
            kind = ChangeKind.ADDED
        elif there[name].digest in (item.sha256, item.sha1):
            kind = ChangeKind.UNCHANGED
        else:
            kind = ChangeKind.CHANGED
        if name == CARD and card_kind is not None:
            kind = card_kind
        changes.append(FileChange(name, kind, item.size, item.sha256))
    return UploadPlan(contents, tuple(changes))


def _for_repository(card: str, recipe: Record, remote: Remote) -> str:
    """The card whose example loads from the repository, not from where it was made."""
    local = rf"(?:{re.escape(recipe.name)}|\./[^\"/]+)"
    loads = "|".join(kind.loader for kind in artifact_kinds())
    return re.sub(rf'\b({loads})\("{local}"', rf'\1("{remote.repository}"', card)


def _card(
    client: Client, head: State | None, ours: str, choice: Choice
) -> tuple[str, ChangeKind | None]:
    """The card to be, and its kind when that does not follow from its bytes alone."""
    if head is None or CARD not in head.files or choice == "ours":
        return ours, None
    theirs = client.read(CARD, head.commit)
    if theirs == ours:
        return ours, None
    if choice == "hub":
        return theirs, ChangeKind.KEPT
    base = client.read(RENDERED, head.commit) if RENDERED in head.files else ""
    if base == theirs:
        return ours, None
    merged = merge_cards(base, ours, theirs)
    if isinstance(merged, str):
        return merged, ChangeKind.KEPT if merged == theirs else ChangeKind.MERGED
    places = "\n".join(map(_differing, merged))
    raise PublishError(
        f"the card was changed here and on {client.remote} in the same place, and nothing was "
        f"sent:\n{places}\nTake one with `--card ours` or `--card hub`, or edit README.md here to "
        "say what the hub's says."
    )


def _differing(place: Conflict) -> str:
    """Both sides, from a little before where they part: a paragraph is one long line."""
    pairs = enumerate(zip(place.ours, place.theirs, strict=False))
    start = max(0, next((at for at, (one, other) in pairs if one != other), 0) - 30)
    here, hub = (text[start : start + 120].strip() for text in (place.ours, place.theirs))
    return f"  here: … {here} …\n  hub:  … {hub} …"


def _check_merged(card: str, folder: Path, recipe: Record) -> None:
    """An edit on the hub may not take away what the audit asks for; its own links are its own."""
    problems = [
        problem
        for problem in (*check_card(card, folder), *check_license(card, recipe))
        if problem.kind not in (CardFault.LINK, CardFault.PATH)
    ]
    if problems:
        raise AuditError(f"the card as it would be after the edits on the hub ({folder})", problems)
