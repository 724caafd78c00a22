"""Publishing an artifact: audited, compared with what is there, one commit, a tag."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from secondary_learners.artifacts.layout import FORBIDDEN, published_files
from secondary_learners.errors import AuditError, HubError, PublishError
from secondary_learners.publishing.audit import audit
from secondary_learners.publishing.client import Client, State
from secondary_learners.publishing.plan import (
    RENDERED,
    SENT,
    Choice,
    Content,
    FileChange,
    plan_upload,
)
from secondary_learners.recipes.parsing import parse_recipe
from secondary_learners.recipes.record import Record
from secondary_learners.registry.entries import artifact_entry
from secondary_learners.registry.index import Entry
from secondary_learners.registry.references import is_repository, is_revision
from secondary_learners.registry.remote import Remote

__all__ = ["Publication", "PublishOptions", "publish"]

_BRANCHES = ("HEAD", "main", "master")
_HEX = re.compile("[0-9a-fA-F]{7,40}")


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """How an artifact is published.

    Attributes:
        private: Whether only members may read the repository, if it is new.
        tag: A name for the commit, such as v1.0.
        card: What to do about a card edited on the Hub: "merge" both, or take "ours" or the
            "hub"'s.
        message: Of the commit.
    """

    private: bool | None = None
    tag: str | None = None
    card: Choice = "merge"
    message: str | None = None

    def __post_init__(self) -> None:
        tag = self.tag
        if tag is not None and not is_revision(tag):
            raise PublishError(f"{tag!r} is not the name of a tag. Try `--tag v1.0`.")
        branch = tag in _BRANCHES or (tag or "").split("/")[0] == "refs"
        if tag is not None and (branch or _HEX.fullmatch(tag)):
            raise PublishError(
                f"{tag!r} would be taken for a branch or a commit, and nothing was sent. "
                "Try `--tag v1.0`."
            )
        if self.card not in ("merge", "ours", "hub"):
            raise PublishError(f"card is {self.card!r}, and must be merge, ours or hub.")


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
    changes: tuple[FileChange, ...]
    tag: str | None
    entry: Entry | None
    left_out: tuple[str, ...]
    dry_run: bool

    @property
    def changed(self) -> bool:
        """Whether any file is not what it was."""
        return any(change.kind in SENT for change in self.changes)


def publish(
    folder: str | Path,
    repository: str,
    options: PublishOptions | None = None,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> Publication:
    """Publish the learner, delta or base model in `folder` to the repository "owner/name" of a Hub.

    The folder is audited first. Everything goes in one commit on the head that was looked at, so a
    failure leaves the repository as it was; then the commit is tagged. Files that are only on the
    Hub stay. A card that was edited there is merged with the folder's.

    Args:
        folder: Of the artifact.
        repository: "owner/name", made if it is not there.
        options: Who may read it, the tag and message of the commit, and whose card.
        endpoint: The Hub, by default that of huggingface_hub (HF_ENDPOINT).
        token: With the right to write, by default huggingface_hub's own (HF_TOKEN), which goes to
            its own Hub only.
        dry_run: Only say what would happen; nothing is sent.

    Returns:
        What was published, or would be.

    Raises:
        AuditError: With all that is wrong with the folder.
        PublishError: For what the Hub or its state does not allow.
        OfflineError: When the Hub does not answer.
    """
    folder, options = Path(folder), options or PublishOptions()
    tag = options.tag
    if not is_repository(repository):
        raise PublishError(
            f"{repository!r} is not the name of a repository: it must read OWNER/NAME, of letters, "
            "digits, - _ and ., at most 96 characters. Try `learners publish FOLDER "
            "me/my-learner`."
        )
    if problems := audit(folder):
        raise AuditError(str(folder), problems)
    recipe = parse_recipe((folder / "recipe.toml").read_text(encoding="utf-8"))
    client = Client(Remote(repository, (endpoint or "").rstrip("/"), token))
    client.check_writer()
    head = client.state()
    if head is not None:
        _check_head(client, head, recipe, options)
    plan = plan_upload(client, head, folder, recipe, options.card)
    publication = Publication(
        repository=repository,
        endpoint=client.remote.address,
        private=options.private if head is None else head.private,
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
            client.create(options.private)
            head = _existing(client)
        text = options.message or f"Publish {recipe.name}" + (f" {tag}" if tag else "")
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


def _check_head(client: Client, head: State, recipe: Record, options: PublishOptions) -> None:
    """What is in the repository already must allow what is asked."""
    remote, private, tag = client.remote, options.private, options.tag
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


def _verify(client: Client, commit: str, contents: Mapping[str, Content]) -> None:
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
