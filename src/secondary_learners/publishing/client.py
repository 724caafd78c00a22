"""Every call of huggingface_hub for publishing, and what its errors mean in plain words."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from secondary_learners.errors import HubError, OfflineError, PublishError
from secondary_learners.registry.hub_errors import words_of
from secondary_learners.registry.remote import Remote, digest_of, warn_of_plain_http

if TYPE_CHECKING:
    from huggingface_hub import HfApi, errors

__all__ = ["Client", "HubFile", "State"]


@dataclass(frozen=True)
class HubFile:
    """A file on a Hub. digest: its sha256 where the Hub keeps large files, else git's sha1."""

    size: int
    digest: str

    @property
    def sha256(self) -> str | None:
        return self.digest if len(self.digest) == 64 else None


@dataclass(frozen=True)
class State:
    """A repository at one commit."""

    commit: str
    private: bool
    files: Mapping[str, HubFile]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Client:
    """A repository that one user writes to. Every method raises HubError in plain words."""

    remote: Remote

    @cached_property
    def _token(self) -> str:
        from huggingface_hub import get_token

        token = self.remote.token or (get_token() if self.remote.is_default else None)
        if token is None:
            raise PublishError(f"publishing needs a token that may write, and {self._no_token()}")
        return token

    def _no_token(self) -> str:
        own = (
            "On a server of your own `learners serve-token create USER ROOT --role write` makes "
            "one."
        )
        if self.remote.is_default:
            return f"there is none: set HF_TOKEN, or log in with `hf auth login`. {own}"
        return (
            f"none was given for {self.remote.address}: name the variable that holds it with "
            "--token-env, because your own token goes only to the Hub that HF_ENDPOINT names. "
            f"{own}"
        )

    @cached_property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        warn_of_plain_http(self.remote)
        return HfApi(self.remote.address, self._token, library_name="secondary-learners")

    def check_writer(self) -> None:
        """Raise PublishError unless the token's user may write where the repository is."""
        with self._plain_errors():
            user = self._api.whoami()
        owner = self.remote.repository.split("/")[0]
        owners = [user["name"], *(organisation["name"] for organisation in user.get("orgs", ()))]
        if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise PublishError(
                f"the token of {user['name']} for {self.remote.address} may only read. Use one "
                "whose role is write."
            )
        if owner.lower() not in map(str.lower, owners):
            raise PublishError(
                f"{user['name']} may not write to {owner!r} on {self.remote.address}, only to "
                f"{', '.join(owners)}. Try `learners publish FOLDER "
                f"{owners[0]}/{self.remote.repository.split('/')[1]}`."
            )

    def state(self, revision: str | None = None) -> State | None:
        """The repository at its head or at `revision`; None when there is none."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        repository = self.remote.repository
        with self._plain_errors():
            try:
                info = self._api.model_info(repository, revision=revision, files_metadata=True)
            except GatedRepoError:
                raise
            except RepositoryNotFoundError:
                return None
            tags = self._api.list_repo_refs(repository).tags
        return State(
            commit=info.sha or "",
            private=bool(info.private),
            files={
                file.rfilename: HubFile(file.size or 0, digest_of(file))
                for file in info.siblings or ()
            },
            tags={tag.name: tag.target_commit for tag in tags},
        )

    def read(self, name: str, commit: str) -> str:
        """The text of a file; line ends of other systems become newlines."""
        with self._plain_errors(), tempfile.TemporaryDirectory() as folder:
            path = self._api.hf_hub_download(
                self.remote.repository, name, revision=commit, cache_dir=folder
            )
            return Path(path).read_text(encoding="utf-8", errors="replace")

    def create(self, private: bool | None) -> None:
        with self._plain_errors():
            self._api.create_repo(self.remote.repository, private=private)

    def commit(self, files: Mapping[str, Path | bytes], parent: str, message: str) -> str:
        """One commit on `parent`, all or nothing; returns it."""
        from huggingface_hub import CommitOperationAdd

        with self._plain_errors():
            return self._api.create_commit(
                self.remote.repository,
                [CommitOperationAdd(name, source) for name, source in files.items()],
                commit_message=message,
                parent_commit=parent,
            ).oid

    def tag(self, name: str, commit: str) -> None:
        with self._plain_errors():
            self._api.create_tag(self.remote.repository, tag=name, revision=commit)

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        from httpx2 import TransportError
        from huggingface_hub import errors

        try:
            yield
        except errors.LocalEntryNotFoundError as error:  # its own words are about the cache
            raise self._unreachable(error.__cause__ or error) from error
        except errors.HfHubHTTPError as error:
            raise self._refused(error) from error
        except errors.OfflineModeIsEnabled as error:
            raise OfflineError(
                f"{self.remote} cannot be asked: HF_HUB_OFFLINE is set. Unset it."
            ) from error
        except TransportError as error:
            raise self._unreachable(error) from error
        except (RuntimeError, ConnectionError) as error:  # of an upload, with LFS and with Xet
            if isinstance(error.__cause__, errors.HfHubHTTPError):
                raise self._refused(error.__cause__) from error
            raise self._unreachable(error.__cause__ or error) from error
        except ValueError as error:  # how the client says what the Hub thinks of a card
            raise PublishError(f"{self.remote} refused: {error}") from error

    def _unreachable(self, error: BaseException) -> HubError:
        return OfflineError(
            f"{self.remote.address} cannot be reached ({type(error).__name__}: {error}). Check the "
            "connection and the address, and run the same command again."
        )

    def _refused(self, error: errors.HfHubHTTPError) -> HubError:
        status = error.response.status_code
        words = words_of(error)
        if status == 401:
            return PublishError(
                f"{self.remote.address} does not accept the token{words}. Set HF_TOKEN to one that "
                "is valid, or log in with `hf auth login`."
            )
        if status == 403:
            return PublishError(
                f"the token may not write to {self.remote}{words}. Use one whose role is write, of "
                "a user who may."
            )
        if status == 409:
            return PublishError(
                f"{self.remote}: somebody else made it meanwhile{words}. Run the same command "
                "again."
            )
        if status == 412:
            return PublishError(
                f"{self.remote} was published to by somebody else meanwhile, and nothing of this "
                "was kept. Run the same command again: it starts from what is there now."
            )
        if status >= 500 or status == 429:
            return OfflineError(f"{self.remote} answered {status}{words}. Try again later.")
        return PublishError(f"{self.remote} refused with {status}{words}.")
