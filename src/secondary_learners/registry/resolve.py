"""From a reference to a folder of files: locked, cached, bundled, then from the Hub.

Each resolver has one method, gives the files or None, and is asked in that order. A resolver that
knows why the others cannot help either raises.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from secondary_learners.artifacts.kinds import artifact_kind, kind_of_config
from secondary_learners.artifacts.reading import read_file
from secondary_learners.errors import ArtifactError, DigestMismatchError, LockError, OfflineError
from secondary_learners.files import git_sha1, sha256_file
from secondary_learners.registry.lock import Pinned
from secondary_learners.registry.pins import read_pin, read_ref, write_pin, write_ref
from secondary_learners.registry.references import is_commit
from secondary_learners.registry.remote import (
    Listing,
    Remote,
    blobs,
    check_snapshot,
    download,
    fetchable,
    forget,
    inspect,
    is_offline,
    keep_named,
    refuse_code,
    removal,
    snapshot_folder,
)
from secondary_learners.registry.resolved import Request, Resolved, Storage

__all__ = ["resolve"]

log = logging.getLogger(__name__)


class _Resolver(Protocol):
    def resolve(self, request: Request) -> Resolved | None: ...


def resolve(request: Request, lock: Mapping[str, Pinned], *, required: bool) -> Resolved:
    """The files of `request`. Raises LockError, HubError and DigestMismatchError with the reason.

    required: whether what is not in `lock` is refused.
    """
    places: Sequence[_Resolver] = (_Cached(), _Bundled(), _Hub())
    resolved = _first((_Locked(lock, required, places), *places), request)
    assert resolved is not None  # a request has a folder or a remote, and the last ones raise
    if resolved.kind is None:
        return replace(
            resolved, kind=kind_of_config(resolved.read("config.json"), resolved.key).kind
        )
    return resolved


def _first(resolvers: Sequence[_Resolver], request: Request) -> Resolved | None:
    return next((resolved for each in resolvers if (resolved := each.resolve(request))), None)


@dataclass(frozen=True)
class _Locked:
    """What learners.lock pins: from the same place, at its commit, with its digests."""

    lock: Mapping[str, Pinned]
    required: bool
    then: Sequence[_Resolver]

    def resolve(self, request: Request) -> Resolved | None:
        key, pinned = request.key, self.lock.get(request.key)
        if pinned is None:
            if self.required:
                raise LockError(f"{key!r} is not in learners.lock. Try `learners lock {key}`.")
            return None
        was, now = (pinned.location, pinned.endpoint), (request.location, request.endpoint)
        if was != now:
            moved = request.follows_client and was[0] == now[0]
            same = f"Set HF_ENDPOINT to {was[1]}. " if moved else ""
            raise LockError(
                f"{key!r} resolves elsewhere: learners.lock has {_place(*was)}, and now it leads "
                f"to {_place(*now)}. {same}If that is meant, try `learners lock {key}`."
            )
        if request.kind not in (None, pinned.kind):
            raise LockError(
                f"{key!r} is locked as a {pinned.kind}, and asked for as a {request.kind}. If it "
                f"is one now, try `learners lock {key}`."
            )
        return _first(
            self.then,
            replace(
                request,
                kind=pinned.kind,
                revision=pinned.commit or None,
                digests=pinned.files,
                remedy=f"If learners.lock is out of date, try `learners lock {key}`.",
            ),
        )


def _place(location: str, endpoint: str) -> str:
    return f"{location} on {endpoint}" if endpoint else location


class _Cached:
    """What was fetched before. A branch or tag only when offline: otherwise it may have moved."""

    def resolve(self, request: Request) -> Resolved | None:
        if request.remote is None:
            return None
        if is_commit(request.revision):
            return _from_cache(request, request.revision)
        if is_offline():
            return _from_cache(request, _last_commit(request.remote, request.revision))
        return None


class _Bundled:
    """What ships with the package or with a registry in a folder."""

    def resolve(self, request: Request) -> Resolved | None:
        if request.folder is None:
            return None
        remedy = request.remedy or (
            f"Compare with `learners show {request.key}`, or get it again: "
            "`pip install --force-reinstall secondary-learners`."
        )
        return _resolved(request, request.folder, request.digests, Storage.BUNDLED, "", remedy)


class _Hub:
    """What has to be fetched; and what cannot be asked about because the Hub does not answer."""

    def resolve(self, request: Request) -> Resolved | None:
        remote = request.remote
        if remote is None:
            return None
        if is_offline():
            raise OfflineError(
                f"{request.key!r} was not loaded on this machine before ({remote}), and "
                "HF_HUB_OFFLINE is set. Unset it and load it once."
            )
        try:
            listing = inspect(remote, request.revision)
        except OfflineError as error:
            commit = read_ref(remote, request.revision)
            resolved = _from_cache(request, commit)
            if resolved is None:
                raise OfflineError(
                    f"{request.key!r} was not loaded on this machine before. {error}"
                ) from error
            log.warning("%s Using the commit of the last time, %s.", error, resolved.commit)
            return resolved
        request = replace(request, kind=request.kind or _listed_kind(remote, listing))
        kind = artifact_kind(request.kind or "learner")
        if kind.whole:  # of others only tensors and text are fetched
            refuse_code(remote, listing)
            missing = set(kind.files) - set(listing.files)
            if missing:
                raise ArtifactError(
                    f"{remote} is not a {kind.name}: it has no {', '.join(sorted(missing))}. "
                    "Try `learners list`."
                )
        digests = _fetch(request, remote, listing.commit, listing.files)
        if is_commit(request.revision):
            keep_named(remote, _kept_as(request), listing.commit)
        else:
            write_ref(remote, request.revision, listing.commit)
            keep_named(remote, request.revision or "main", listing.commit)
        folder = snapshot_folder(remote, listing.commit)
        return _resolved(request, folder, digests, Storage.HUB, listing.commit, "")


def _kept_as(request: Request) -> str:
    """A name in the cache for a commit that was asked for by an entry, a lock or its own sha."""
    return f"learners/{request.key.replace(':', '/')}"


def _listed_kind(remote: Remote, listing: Listing) -> str:
    """What a repository holds, from its config.json alone."""
    if "config.json" not in listing.files:
        return "learner"  # which will be missed
    path = download(remote, listing.commit, ["config.json"]) / "config.json"
    return kind_of_config(read_file(path), remote).kind


def _fetch(
    request: Request, remote: Remote, commit: str, listed: Mapping[str, str]
) -> Mapping[str, str]:
    """Download what is missing, check every file, and return the digests."""
    pinned = request.digests or read_pin(remote, commit)
    names = _wanted(request.kind, request.digests or listed)
    check_snapshot(remote, commit)
    folder = snapshot_folder(remote, commit)
    known = blobs(remote)  # also those that were fetched for another commit
    download(remote, commit, names)
    digests = dict(pinned)
    for name in names:
        path = folder / name
        actual = sha256_file(path)
        expected = pinned.get(name)
        if expected is None and request.digests is None:  # as the Hub has it, this first time
            good = _hub_digest(path, listed[name]) == listed[name]
            expected = listed[name]
        else:
            good = actual == expected
        if not good:
            if path.resolve() not in known:  # or it would still be found after the Hub is mended
                forget(remote, path)
                raise DigestMismatchError.of(
                    path,
                    expected,
                    actual,
                    f"That is what {remote} sent: nothing of it was used, and the cache forgot it. "
                    f"{request.remedy or 'Ask whoever runs it.'}",
                )
            raise DigestMismatchError.of(path, expected, actual, _again(request))
        digests[name] = actual
    if request.digests is None and digests != pinned:
        write_pin(remote, commit, digests)
    return digests


def _from_cache(request: Request, commit: str | None) -> Resolved | None:
    """The files of `commit` when all are there, and recorded; nothing is hashed yet."""
    remote = request.remote
    if remote is None or commit is None:
        return None
    folder = snapshot_folder(remote, commit)
    digests = request.digests or read_pin(remote, commit)
    if not digests and remote.is_default and is_offline():
        digests = _named_blobs(folder)
    names = _wanted(request.kind, digests)
    if not names or not all(name in digests and (folder / name).is_file() for name in names):
        return None
    return _resolved(request, folder, digests, Storage.CACHE, commit, _again(request))


def _last_commit(remote: Remote, revision: str | None) -> str | None:
    """The commit that a branch or tag was last, by our records, else by those of the cache."""
    commit = read_ref(remote, revision)
    if commit is None and remote.is_default:
        refs = snapshot_folder(remote, "").parent / "refs"
        path = refs / (revision or "main")
        commit = path.read_text().strip() if path.is_file() else None
    return commit if is_commit(commit) else None


def _named_blobs(folder: Path) -> dict[str, str]:
    """The sha256 of what another tool fetched, each checked against its name in the cache."""
    digests = {}
    for path in folder.glob("*"):
        blob = path.resolve()
        if path.is_symlink() and _hub_digest(path, blob.name) == blob.name:
            digests[path.name] = sha256_file(path)
    return digests


def _hub_digest(path: Path, like: str) -> str:
    """What a Hub calls the bytes of a file: sha256 for large ones, git's sha1 for the others."""
    return sha256_file(path) if len(like) == 64 else git_sha1(path)


def _wanted(kind: str | None, names: Mapping[str, str]) -> tuple[str, ...]:
    """The files to have: those of the kind, or where it has others all that may be fetched."""
    if kind is not None and artifact_kind(kind).whole:
        return artifact_kind(kind).files
    return tuple(sorted(name for name in names if fetchable(name) and "/" not in name))


def _again(request: Request) -> str:
    again = f"get it again: `{removal(request.remote)}`" if request.remote else "get it again"
    return (
        f"It was changed in the cache. See `learners verify {request.key}`, then {again}. "
        f"{request.remedy}".rstrip()
    )


def _resolved(
    request: Request,
    folder: Path,
    digests: Mapping[str, str] | None,
    source: Storage,
    commit: str,
    remedy: str,
) -> Resolved:
    return Resolved(
        key=request.key,
        kind=request.kind,
        folder=folder,
        digests=digests,
        source=source,
        location=request.location,
        endpoint=request.endpoint,
        commit=commit,
        remedy=remedy or _again(request),
    )
