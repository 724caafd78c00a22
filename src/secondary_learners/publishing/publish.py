"""Publishing an artifact: audited, compared with what is there, one commit, a tag."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Literal

from secondary_learners.artifacts.layout import FORBIDDEN, published_files
from secondary_learners.cards.check import CardFault, check_card
from secondary_learners.errors import AuditError, HubError, PublishError
from secondary_learners.files import sha256_bytes, sha256_file
from secondary_learners.publishing.audit import audit, check_license
from secondary_learners.publishing.client import Client, State
from secondary_learners.publishing.merge import Conflict, merge_cards
from secondary_learners.recipes.parsing import parse_recipe
from secondary_learners.recipes.record import Record
from secondary_learners.registry.entries import artifact_entry
from secondary_learners.registry.index import Entry
from secondary_learners.registry.references import is_repository, is_revision
from secondary_learners.registry.remote import Remote

__all__ = ["Change", "ChangeKind", "Publication", "publish"]

CARD = "README.md"
# The card as it was last rendered here, kept beside the one that people edit on the hub: what
# differs between the two is their work, whatever becomes of the history.
RENDERED = ".card.md"

Choice = Literal["merge", "ours", "hub"]
_BRANCHES = ("HEAD", "main", "master")
_HEX = re.compile("[0-9a-fA-F]{7,40}")


class ChangeKind(StrEnum):
    """What becomes of a file of the repository."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    KEPT = "kept-on-hub"
    MERGED = "merged"


@dataclass(frozen=True)
class Change:
    """One file. sha256: of what is in the repository afterwards, where it is known."""

    path: str
    kind: ChangeKind
    size: int
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What was published, or with `dry_run` would be.

    private: None before a repository is made that nobody said it for. parent: the head before, None
    for a new repository. commit: the head afterwards, None after a
    dry run that would change something; equal to `parent` when nothing changed. entry: for a
    registry, when there is a commit. left_out: what the folder holds and is not published.
    """

    repository: str
    endpoint: str
    private: bool | None
    parent: str | None
    commit: str | None
    changes: tuple[Change, ...]
    tag: str | None
    entry: Entry | None
    left_out: tuple[str, ...]
    dry_run: bool

    @property
    def changed(self) -> bool:
        """Whether any file is not what it was."""
        return any(change.kind in _SENT for change in self.changes)


_SENT = (ChangeKind.ADDED, ChangeKind.CHANGED, ChangeKind.MERGED)


def publish(
    folder: str | Path,
    repository: str,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    private: bool | None = None,
    tag: str | None = None,
    dry_run: bool = False,
    card: Choice = "merge",
    message: str | None = None,
) -> Publication:
    """Publish the learner, delta or base model in `folder` to the repository "owner/name" of a Hub.

    The folder is audited first. Everything goes in one commit on the head that was looked at, so a
    failure leaves the repository as it was; then the commit is tagged. Files that are only on the
    Hub stay. A card that was edited there is merged with the folder's.

    Args:
        folder: Of the artifact.
        repository: "owner/name", made if it is not there.
        endpoint: The Hub, by default that of huggingface_hub (HF_ENDPOINT).
        token: With the right to write, by default huggingface_hub's own (HF_TOKEN), which goes to
            its own Hub only.
        private: For a new repository.
        tag: A name for the commit, such as v1.0.
        dry_run: Only say what would happen; nothing is sent.
        card: What to do about a card edited on the Hub: "merge" both, or take "ours" or the
            "hub"'s.
        message: Of the commit.

    Returns:
        What was published, or would be.

    Raises:
        AuditError: With all that is wrong with the folder.
        PublishError: For what the Hub or its state does not allow.
        OfflineError: When the Hub does not answer.
    """
    folder = Path(folder)
    _check_arguments(repository, tag, card)
    if problems := audit(folder):
        raise AuditError(str(folder), problems)
    recipe = parse_recipe((folder / "recipe.toml").read_text(encoding="utf-8"))
    client = Client(Remote(repository, (endpoint or "").rstrip("/"), token))
    client.check_writer()
    head = client.state()
    if head is not None:
        _check_head(client, head, recipe, private, tag)
    plan = _plan(client, head, folder, recipe, card)
    publication = Publication(
        repository=repository,
        endpoint=client.remote.address,
        private=private if head is None else head.private,
        parent=None if head is None else head.commit,
        commit=None,
        changes=plan.changes,
        tag=tag,
        entry=None,
        left_out=_left_out(folder),
        dry_run=dry_run,
    )
    if tag is not None and head is not None and publication.changed and tag in head.tags:
        raise _tag_exists(client.remote, tag, head.tags[tag])
    if publication.changed:
        if dry_run:
            return publication
        if head is None:
            client.create(private)
            head = _existing(client)
        text = message or f"Publish {recipe.name}" + (f" {tag}" if tag else "")
        with _told_of_empty(client.remote, head, new=publication.parent is None):
            commit = client.commit(plan.sent, head.commit, text)
        _verify(client, commit, plan.contents)
    else:
        assert head is not None  # an artifact has files, and in a new repository all are added
        commit = head.commit
    if tag is not None and not dry_run and tag not in head.tags:
        _tag(client, tag, commit)
    entry = artifact_entry(
        folder,
        location=repository,
        revision=commit,
        endpoint=_entry_endpoint(client.remote),
        files={
            name: (item.sha256, item.size)
            for name, item in plan.contents.items()
            if name != RENDERED
        },
    )
    return replace(publication, commit=commit, entry=entry, private=head.private)


def _check_arguments(repository: str, tag: str | None, card: str) -> None:
    if not is_repository(repository):
        raise PublishError(
            f"{repository!r} is not the name of a repository: it must read OWNER/NAME, of letters, "
            "digits, - _ and ., at most 96 characters. Try `learners publish FOLDER "
            "me/my-learner`."
        )
    if tag is not None and not is_revision(tag):
        raise PublishError(f"{tag!r} is not the name of a tag. Try `--tag v1.0`.")
    if tag is not None and (tag in _BRANCHES or tag.split("/")[0] == "refs" or _HEX.fullmatch(tag)):
        raise PublishError(
            f"{tag!r} would be taken for a branch or a commit, and nothing was sent. "
            "Try `--tag v1.0`."
        )
    if card not in ("merge", "ours", "hub"):
        raise PublishError(f"card is {card!r}, and must be merge, ours or hub.")


def _check_head(
    client: Client, head: State, recipe: Record, private: bool | None, tag: str | None
) -> None:
    """What is in the repository already must allow what is asked."""
    remote = client.remote
    if private is not None and private != head.private:
        is_, asked = ("private", "public") if head.private else ("public", "private")
        raise PublishError(
            f"{remote} is {is_} already, and publishing does not change that. Make it {asked} in "
            "its settings first, or leave the option out."
        )
    if tag is not None and head.tags.get(tag, head.commit) != head.commit:
        raise _tag_exists(remote, tag, head.tags[tag])
    for name in head.files:
        if PurePosixPath(name).suffix.lower() in FORBIDDEN:
            raise PublishError(
                f"{remote} holds {name}, which could run code when it is loaded, and so nobody "
                f"could load from there. Delete it first: "
                f"`hf repos delete-files {remote.repository} {name}`."
            )
    other = _other(client, head, recipe.name)
    if other is not None:
        raise PublishError(
            f"{remote} holds {other}, and this is {recipe.name}. Publish to a repository of its "
            "own."
        )


def _other(client: Client, head: State, name: str) -> str | None:
    """What the repository holds, if that is not this artifact: its history is not ours to go on."""
    if "recipe.toml" not in head.files:
        return "another model" if "config.json" in head.files else None
    try:
        held = tomllib.loads(client.read("recipe.toml", head.commit)).get("name")
    except tomllib.TOMLDecodeError:
        return None  # an artifact, and damaged: a new publication mends it
    return None if held == name else str(held)


def _tag_exists(remote: Remote, tag: str, commit: str) -> PublishError:
    return PublishError(
        f"{remote} has a tag {tag!r} already, on the commit {commit}, and tags do not move: "
        "nothing was sent. Choose another `--tag`."
    )


@contextmanager
def _told_of_empty(remote: Remote, head: State, *, new: bool) -> Iterator[None]:
    """A failed commit leaves the repository that was made for it: its maker must know."""
    try:
        yield
    except HubError as error:
        if not new:
            raise
        raise type(error)(
            f"{error} The repository was made for this and stays, empty and "
            f"{'private' if head.private else 'public'}: publish again, or remove it with "
            f"`HF_ENDPOINT={remote.address} hf repos delete {remote.repository}`."
        ) from error


def _existing(client: Client) -> State:
    head = client.state()
    if head is None:
        raise PublishError(f"{client.remote} was made and is gone again. Run the command again.")
    return head


def _tag(client: Client, tag: str, commit: str) -> None:
    try:
        client.tag(tag, commit)
    except PublishError as error:
        raise PublishError(
            f"the files are published as commit {commit}, but not tagged {tag!r}: {error} "
            "The same command with another --tag adds that alone."
        ) from error


def _verify(client: Client, commit: str, contents: Mapping[str, _Content]) -> None:
    """What the Hub says it has is what was sent: a .gitignore there may leave files out."""
    state = client.state(commit)
    stored = {} if state is None else state.files
    wrong = [
        name
        for name, item in contents.items()
        if name not in stored or stored[name].digest not in (item.sha256, item.sha1)
    ]
    if wrong:
        raise PublishError(
            f"{client.remote} has other bytes at {commit} than were sent for {', '.join(wrong)}: "
            "do not use that commit. Is there a .gitignore? Did a file change meanwhile? Run the "
            "same command again."
        )


def _entry_endpoint(remote: Remote) -> str:
    """The address as others need it: none for the public Hub, which is theirs too."""
    return "" if remote.address == "https://huggingface.co" else remote.address


def _left_out(folder: Path) -> tuple[str, ...]:
    kept = {path.name for path in published_files(folder)}
    return tuple(
        path.name + "/" * path.is_dir()
        for path in sorted(folder.iterdir())
        if path.name not in kept
    )


# What goes where


@dataclass(frozen=True)
class _Content:
    """The bytes of a file, in memory or on disk, and what Hubs call them by."""

    source: Path | bytes
    size: int
    sha256: str
    sha1: str


def _content(source: Path | bytes) -> _Content:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    sha256 = sha256_bytes(source) if isinstance(source, bytes) else sha256_file(source)
    git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    if isinstance(source, bytes):
        git.update(source)
    else:
        with source.open("rb") as file:
            while block := file.read(2**20):
                git.update(block)
    return _Content(source, size, sha256, git.hexdigest())


@dataclass(frozen=True)
class _Plan:
    """The files as they will be in the repository, and what becomes of each."""

    contents: Mapping[str, _Content]
    changes: tuple[Change, ...]

    @property
    def sent(self) -> dict[str, Path | bytes]:
        kinds = {change.path: change.kind for change in self.changes}
        return {name: it.source for name, it in self.contents.items() if kinds[name] in _SENT}


def _plan(client: Client, head: State | None, folder: Path, recipe: Record, card: Choice) -> _Plan:
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
            changes.append(Change(name, ChangeKind.KEPT, stored.size, stored.sha256))
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
        changes.append(Change(name, kind, item.size, item.sha256))
    return _Plan(contents, tuple(changes))


def _for_repository(card: str, recipe: Record, remote: Remote) -> str:
    """The card whose example loads from the repository, not from where it was made."""
    local = rf"(?:{re.escape(recipe.name)}|\./[^\"/]+)"
    loads = "load_learner|load_delta|load_base"
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
