"""Who calls, and what they may read and write. What may not be read does not exist."""

from __future__ import annotations

from dataclasses import dataclass

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.repositories import Repository, find_repository
from secondary_learners.server.store.tokens import Token, find_token

__all__ = [
    "Caller",
    "caller_from",
    "check_files_readable",
    "check_namespace_writable",
    "readable_repository",
    "repository_not_found",
    "writable_repository",
]


@dataclass(frozen=True)
class Caller:
    """The sender of a request: the token it came with, or nobody in particular."""

    token: Token | None

    def belongs_to(self, owner: str) -> bool:
        return self.token is not None and owner in self.token.namespaces


def caller_from(hub: Hub, authorization: str | None) -> Caller:
    """The caller by the Authorization header. Raises Refused 401 for a token that is not known."""
    if not authorization:
        return Caller(None)
    scheme, _, text = authorization.partition(" ")
    token = find_token(hub.database, text.strip()) if scheme.lower() == "bearer" else None
    if token is None:
        raise Refused(401, "Invalid credentials in Authorization header")  # the client knows it
    return Caller(token)


def readable_repository(hub: Hub, caller: Caller, kind: str, owner: str, name: str) -> Repository:
    """The repository, when the caller may know of it. Raises Refused 404 RepoNotFound."""
    repository = find_repository(hub.database, kind, owner, name)
    if repository is None or (repository.private and not caller.belongs_to(repository.owner)):
        raise repository_not_found(kind, f"{owner}/{name}")
    return repository


def check_files_readable(caller: Caller, repository: Repository) -> None:
    """Raises Refused 401 or 403 GatedRepo when the files are for members only."""
    if repository.gated and not caller.belongs_to(repository.owner):
        raise Refused(
            401 if caller.token is None else 403,
            f"Access to {repository.full_name} is gated: its files are for members of "
            f"{repository.owner!r}. Ask them for a token, and send it.",
            "GatedRepo",
        )


def writable_repository(hub: Hub, caller: Caller, kind: str, owner: str, name: str) -> Repository:
    """The repository, when the caller may write to it. Raises Refused 404, 401 or 403."""
    repository = readable_repository(hub, caller, kind, owner, name)
    check_namespace_writable(hub, caller, repository.owner)
    return repository


def check_namespace_writable(hub: Hub, caller: Caller, owner: str) -> None:
    if caller.token is None:
        none_yet = hub.database.row("SELECT 1 FROM tokens WHERE revoked IS NULL") is None
        raise Refused(
            401,
            "Writing needs a token"
            + (", and this server has none yet" if none_yet else "")
            + ". On the server, try `learners serve-token create USER ROOT --role write`.",
        )
    if not caller.belongs_to(owner):
        raise Refused(
            403,
            f"{caller.token.user!r} may not write in {owner!r}, only in "
            f"{', '.join(caller.token.namespaces)}. On the server, try `learners serve-token "
            f"create {caller.token.user} ROOT --role write --org {owner}`.",
        )
    if caller.token.role != "write":
        raise Refused(
            403, f"This token of {caller.token.user!r} may only read. Use one with role write."
        )


def repository_not_found(kind: str, full_name: str) -> Refused:
    return Refused(404, f"{kind.capitalize()} {full_name} not found.", "RepoNotFound")
