"""What the errors of huggingface_hub mean in plain words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from secondary_learners.errors import HubError, OfflineError, UnknownNameError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

    from secondary_learners.registry.remote import Remote

__all__ = ["plain_errors", "words_of"]


@contextmanager
def plain_errors(remote: Remote, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub raises into HubError and OfflineError."""
    from httpx2 import TransportError
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalEntryNotFoundError as error:  # its own words are about the cache
        cause = error.__cause__
        if not isinstance(cause, Exception):
            raise OfflineError(f"{remote} cannot be reached. Check the connection.") from error
        raise _plain(remote, revision, cause) from error
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, TransportError) as error:
        raise _plain(remote, revision, error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HubError(_full_disk(remote)) from error
        if error.errno is None:  # huggingface_hub's check of the size
            raise HubError(
                f"{remote} sent a file that has another size than it announced. Try again; if that "
                "does not help, ask whoever runs it."
            ) from error
        raise


def _full_disk(remote: Remote) -> str:
    variable = "HF_HUB_CACHE" if remote.is_default else "SECONDARY_LEARNERS_HOME"
    return (
        f"the disk with the cache {remote.cache} is full. Free some space (`hf cache prune`), or "
        f"set {variable} to another disk, and load again."
    )


def _plain(remote: Remote, revision: str | None, error: Exception) -> Exception:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):  # before RepositoryNotFoundError, its parent
        return HubError(
            f"{remote} is gated: its files are for those who accepted its license. Accept it at "
            f"{remote.address}/{remote.repository}, then {_token_step(remote)}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"there is no repository {remote}, or it is private and this user may not read it. "
            f"Check the name (`learners list` has those that are known); if it is private, "
            f"{_token_step(remote)}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return _no_revision(remote, revision)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return OfflineError(f"{remote} cannot be asked: HF_HUB_OFFLINE is set. Unset it.")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        words = words_of(error)
        if status in (401, 403):
            what = "does not accept the token" if remote.sends_token else "asks for a token"
            return HubError(f"{remote} {what}{words}: {_token_step(remote)}")
        if status >= 500 or status == 429:
            return OfflineError(f"{remote} answered {status}{words}. Try again later.")
        return HubError(f"{remote} answered {status}{words}. Check the name and the address.")
    return OfflineError(
        f"{remote.address} cannot be reached ({type(error).__name__}: {error}). Check the "
        "connection and the address."
    )


def _no_revision(remote: Remote, revision: str | None) -> Exception:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=remote.address, token=remote.sent_token, library_name="secondary-learners")
    try:
        refs = api.list_repo_refs(remote.repository)
    except Exception:  # the answer that matters is the first one
        return HubError(f"{remote} has no revision {revision!r}. Check its tags and branches.")
    names = [ref.name for ref in (*refs.tags, *refs.branches)]
    return UnknownNameError(
        f"revision of {remote}", str(revision), names, f"learners show {remote.repository}"
    )


def _token_step(remote: Remote) -> str:
    """What to do about the token, which depends on whether one was sent and to which Hub."""
    if remote.is_default:
        if remote.sends_token:
            return (
                "use the token of a user who may: the one that was sent (the argument token, "
                "HF_TOKEN or `hf auth login`) may not."
            )
        return "log in with `hf auth login` or set HF_TOKEN: no token was sent."
    if remote.token:
        return "use the token of a user who may: the one that was sent may not."
    return (
        f"give a token for this Hub ({remote.token_hint or 'the argument token'}): none was sent, "
        "because your own token goes only to the Hub that HF_ENDPOINT names."
    )


def words_of(error: HfHubHTTPError) -> str:
    """What a Hub says of its refusal, in brackets; "" when it says nothing."""
    message = error.server_message or error.response.headers.get("X-Error-Message") or ""
    return f" ({message.strip().rstrip('.')})" if message.strip() else ""
