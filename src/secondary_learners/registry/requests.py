"""From a parsed reference to a request: the entry of a name, or the repository itself."""

from __future__ import annotations

from secondary_learners.errors import ArtifactError, SecondaryLearnersError
from secondary_learners.registry.index import Entry, find
from secondary_learners.registry.references import NameReference, RepositoryReference
from secondary_learners.registry.registries import Shelf, shelf
from secondary_learners.registry.remote import Remote
from secondary_learners.registry.resolved import Request

__all__ = ["entry_request", "request"]


def request(
    reference: NameReference | RepositoryReference,
    kind: str | None = None,
    *,
    endpoint: str | None = None,
    token: str | None = None,
) -> Request:
    """What `reference` asks for; a name is looked up in its registry.

    endpoint, token: of the Hub, in place of what the registry or huggingface_hub says. Raises
    UnknownNameError, which suggests the near names.
    """
    if isinstance(reference, RepositoryReference):
        return Request(
            key=str(reference),
            kind=kind,
            remote=Remote(reference.repository, (endpoint or "").rstrip("/"), token),
            revision=reference.revision,
        )
    place = shelf(reference.registry, reference.name)
    entry = find(reference.name, kind=kind, folder=place.index)
    return entry_request(place, entry, reference.revision, endpoint=endpoint, token=token)


def entry_request(
    place: Shelf,
    entry: Entry,
    revision: str | None = None,
    *,
    endpoint: str | None = None,
    token: str | None = None,
) -> Request:
    """What an entry on a shelf asks for: the commit and digests it has, unless told otherwise."""
    alias = place.registry.alias if place.registry else None
    key = str(NameReference(alias, entry.name, revision))
    if entry.location == "bundled":
        if revision is not None:
            raise SecondaryLearnersError(
                f"{key!r}: {entry.name!r} ships as files and has no revisions. "
                f"Try `learners show {place.prefix}{entry.name}`."
            )
        if place.bundled is None:
            source = place.registry.source if place.registry else "this installation"
            raise ArtifactError(
                f"{key!r} ships with {source}, and no folder learners/ is there any more. See "
                "`learners registry list`."
            )
        folder = place.bundled / entry.name
        remedy = f"It is in the registry {place.registry.source}." if place.registry else ""
        return Request(key=key, kind=entry.kind, folder=folder, digests=entry.files, remedy=remedy)
    return Request(
        key=key,
        kind=entry.kind,
        remote=_remote(place, entry, endpoint, token),
        revision=revision or entry.revision,
        digests=None if revision else entry.files,
    )


def _remote(place: Shelf, entry: Entry, endpoint: str | None, token: str | None) -> Remote:
    """A registry's token goes only to the registry's own Hub, wherever its entries may point."""
    registry = place.registry
    theirs = registry.endpoint if registry else ""
    address = (endpoint or entry.endpoint or theirs).rstrip("/")
    hint = ""
    if registry is not None and address == theirs:
        token = token or registry.token
        hint = f"the variable {registry.token_env}" if registry.token_env else ""
    return Remote(entry.location, address, token, hint)
