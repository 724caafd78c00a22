"""Every call of huggingface_hub for loading.

huggingface_hub is imported inside: what ships with the package loads without it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from secondary_learners.artifacts.layout import FORBIDDEN
from secondary_learners.errors import ArtifactError, HubError
from secondary_learners.files import sha256_bytes
from secondary_learners.registry.hf_cache import foreign_name, keep, lay
from secondary_learners.registry.home import cache_folder
from secondary_learners.registry.hub_errors import plain_errors
from secondary_learners.registry.references import is_commit

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

__all__ = [
    "Listing",
    "Remote",
    "blobs",
    "check_snapshot",
    "digest_of",
    "download",
    "fetchable",
    "forget",
    "inspect",
    "is_offline",
    "keep_named",
    "refuse_code",
    "removal",
    "repository_folder",
    "snapshot_folder",
    "warn_of_plain_http",
]

_FETCHED = frozenset((".json", ".md", ".safetensors", ".toml"))
_PARALLEL = 8
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remote:
    """A model repository on a Hub.

    endpoint: the Hub's address, or "" for the one that huggingface_hub is set to. token: to send
    there; when None, the user's own token is sent to the Hub of huggingface_hub, and none to any
    other. token_hint: where a token for this Hub would have come from.
    """

    repository: str
    endpoint: str = ""
    token: str | None = field(default=None, repr=False)
    token_hint: str = ""

    @property
    def address(self) -> str:
        from huggingface_hub import constants

        return (self.endpoint or constants.ENDPOINT).rstrip("/")

    @property
    def is_default(self) -> bool:
        """Whether this is the Hub that huggingface_hub, and so the user's token, is set to."""
        from huggingface_hub import constants

        return self.address == constants.ENDPOINT.rstrip("/")

    @property
    def cache(self) -> Path:
        """The cache for this Hub: huggingface_hub's own, or for another Hub a folder of ours.

        huggingface_hub files a repository by its name alone, so that in one cache the "owner/name"
        of one Hub could pass for that of another. What is in ours are links to where they lie in
        the other, named with their Hub.
        """
        if self.is_default:
            return _client_cache()
        return _resolved(str(cache_folder() / sha256_bytes(self.address.encode())[:16]))

    @property
    def cached_as(self) -> str:
        """What `hf cache` calls it, in huggingface_hub's own cache."""
        return self.repository if self.is_default else foreign_name(self.address, self.repository)

    @property
    def sent_token(self) -> str | bool | None:
        """As huggingface_hub wants it: None for the user's own, False for none at all."""
        return self.token or (None if self.is_default else False)

    @property
    def sends_token(self) -> bool:
        from huggingface_hub import get_token

        return bool(self.token or (self.is_default and get_token()))

    def __str__(self) -> str:
        return f"{self.repository} on {self.address}"


@dataclass(frozen=True)
class Listing:
    """A commit and its files, each with what the Hub calls it by: sha256 (LFS) or git's sha1."""

    commit: str
    files: Mapping[str, str]


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


def fetchable(name: str) -> bool:
    """Whether a file may be fetched: tensors and text, by its suffix."""
    return PurePosixPath(name).suffix in _FETCHED


def snapshot_folder(remote: Remote, commit: str) -> Path:
    """Where huggingface_hub keeps the files of a commit, whether they are there or not."""
    return remote.cache / _folder_name(remote.repository) / "snapshots" / commit


def _folder_name(repository: str) -> str:
    return f"models--{repository.replace('/', '--')}"


def blobs(remote: Remote) -> frozenset[Path]:
    """The bytes that the cache has of a repository, for whichever commits they were fetched."""
    return frozenset((repository_folder(remote) / "blobs").resolve().glob("*"))


def _client_cache() -> Path:
    from huggingface_hub import constants

    return _resolved(constants.HF_HUB_CACHE)


@cache
def _resolved(folder: str) -> Path:
    return Path(folder).expanduser().resolve()


def inspect(remote: Remote, revision: str | None) -> Listing:
    """The commit that `revision` (None: the default branch) is now, and its files.

    Raises HubError, and OfflineError when the Hub does not answer.
    """
    from huggingface_hub import HfApi, constants

    warn_of_plain_http(remote)
    api = HfApi(endpoint=remote.address, token=remote.sent_token, library_name="secondary-learners")
    with plain_errors(remote, revision):
        try:
            info = api.model_info(
                remote.repository,
                revision=revision,
                files_metadata=True,
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
            commit = info.sha or ""
            files = {file.rfilename: digest_of(file) for file in info.siblings or ()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HubError(
                f"{remote.address} does not answer like a Hub ({type(error).__name__}: {error}). "
                "Check the address, HF_ENDPOINT and the proxy settings."
            ) from error
    if not is_commit(commit):
        raise HubError(f"{remote} does not say which commit it has. Check the address of the Hub.")
    if is_commit(revision) and commit != revision:
        raise _other_commit(remote, str(revision), commit)
    return Listing(commit, files)


def digest_of(file: RepoSibling) -> str:
    """What a Hub calls a file by: its sha256 where it keeps large ones, else git's sha1."""
    return (file.lfs.sha256 if file.lfs else file.blob_id) or ""


def refuse_code(remote: Remote, listing: Listing) -> None:
    """Raise ArtifactError if the repository ships a file that could run code when loaded."""
    for name in sorted(listing.files):
        if PurePosixPath(name).suffix.lower() in FORBIDDEN:
            raise ArtifactError(
                f"{remote} ships {name}, which could run code when loaded, and a learner never "
                "holds such a file: it was not fetched. Ask its maker to delete it and publish "
                "again, or find another with `learners list`."
            )


def download(remote: Remote, commit: str, names: Iterable[str]) -> Path:
    """Fetch the files that are not in the cache yet; returns the folder of the commit.

    What a broken connection left out is asked for again from there, and what an ended process had
    finished is kept. Raises HubError, also when the Hub answers with another commit.
    """
    from huggingface_hub import hf_hub_download

    warn_of_plain_http(remote)
    folder = snapshot_folder(remote, commit)
    if not remote.is_default:
        lay(repository_folder(remote), _client_cache() / _folder_name(remote.cached_as))

    def fetch(name: str) -> None:
        path = Path(
            hf_hub_download(
                remote.repository,
                name,
                revision=commit,
                endpoint=remote.address,
                cache_dir=remote.cache,
                token=remote.sent_token,
                library_name="secondary-learners",
            )
        )
        if path != folder / name:
            raise _other_commit(remote, commit, path.relative_to(folder.parent).parts[0])

    with plain_errors(remote, commit), ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(fetch, [name for name in names if fetchable(name)]))
    return folder


def repository_folder(remote: Remote) -> Path:
    """Where huggingface_hub keeps all of a repository: blobs, snapshots and refs."""
    return snapshot_folder(remote, "").parent


def keep_named(remote: Remote, name: str, commit: str) -> None:
    """Have the cache keep a commit for as long as `name` (a branch, a tag or one of ours) is it."""
    keep(repository_folder(remote), name, commit)


def removal(remote: Remote) -> str:
    """The command that takes a repository out of the cache."""
    if remote.is_default or repository_folder(remote).is_symlink():
        return f"hf cache rm model/{remote.cached_as}"
    return f"hf cache rm model/{remote.repository} --cache-dir {remote.cache}"


def check_snapshot(remote: Remote, commit: str) -> None:
    """Raise ArtifactError where the folder of a commit is a link that leads out of the cache."""
    folder = snapshot_folder(remote, commit)
    if not folder.resolve().is_relative_to(repository_folder(remote).resolve()):
        raise ArtifactError(
            f"{folder} is a link to {folder.resolve()}, outside of the cache, and nothing was "
            f"read or written there. Remove the link: `rm {folder}`."
        )


def forget(remote: Remote, path: Path) -> None:
    """Take a file that was just fetched, and is wrong, out of the cache: its name and its blob.

    Only the name goes where it is a link to something else than a blob of this repository.
    """
    blob = path.resolve()
    path.unlink(missing_ok=True)
    if blob.parent == (repository_folder(remote) / "blobs").resolve():
        blob.unlink(missing_ok=True)


def _other_commit(remote: Remote, asked: str, answered: str) -> HubError:
    return HubError(
        f"{remote} was asked for the commit {asked} and answered with {answered}: refused. "
        "Try again later, or ask whoever runs that Hub."
    )


def warn_of_plain_http(remote: Remote) -> None:
    """Say, once for each address, that a token can be read on its way to another machine."""
    parts = urlsplit(remote.address)
    if parts.scheme == "http" and not _is_this_machine(parts.hostname) and remote.sends_token:
        _warn_once(remote.address)


@cache
def _warn_once(address: str) -> None:
    log.warning(
        "warning: %s is another machine and this is plain HTTP: your token can be read on the way. "
        "Use an https address.",
        address,
    )


def _is_this_machine(host: str | None) -> bool:
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
