"""What all handlers need of a request: its hub, its sender, its names, its JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from secondary_learners.server.api.access import Caller, caller_from, readable_repository
from secondary_learners.server.api.access import writable_repository as _writable
from secondary_learners.server.errors import Refused
from secondary_learners.server.memory import Held
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.repositories import (
    Commit,
    Repository,
    find_commit,
    find_moved,
)

__all__ = [
    "base_url",
    "caller_of",
    "commit_of",
    "hold",
    "hub_of",
    "json_object",
    "kind_of",
    "moved_to",
    "next_link",
    "parameter",
    "read_body",
    "repository_of",
    "repository_url",
    "writable_repository_of",
]

_LARGE_BODY = 64 * 1024
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")


def hub_of(request: Request) -> Hub:
    hub = request.app.state.hub
    assert isinstance(hub, Hub)
    return hub


def caller_of(request: Request) -> Caller:
    """Who sends `request`. Raises Refused 401 for an unknown token."""
    caller = caller_from(hub_of(request), request.headers.get("authorization"))
    if caller.token is not None:
        request.scope["sender"]["token"] = caller.token.id  # for the access log
    return caller


def parameter(request: Request, name: str) -> str:
    """A part of the path, decoded only now: a revision may hold an encoded slash."""
    return unquote(request.path_params[name])


def kind_of(request: Request) -> str:
    """model or dataset, by the path."""
    path: str = request.scope["path"]
    return "dataset" if path.startswith(("/api/datasets", "/datasets/")) else "model"


def repository_of(request: Request) -> Repository:
    """The repository the path names. Raises Refused 404 when the caller may not know of it, and
    307 to where it is where it was moved.
    """
    return _named(request, readable_repository)


def writable_repository_of(request: Request) -> Repository:
    """The same, if the caller may write to it, else Refused 401 or 403, too."""
    return _named(request, _writable)


def _named(
    request: Request, find: Callable[[Hub, Caller, str, str, str], Repository]
) -> Repository:
    owner, name = parameter(request, "owner"), parameter(request, "name")
    hub, caller, kind = hub_of(request), caller_of(request), kind_of(request)
    try:
        return find(hub, caller, kind, owner, name)
    except Refused as error:
        if error.status == 404 and (place := moved_to(request, caller, kind, owner, name)):
            message = f"{owner}/{name} was moved to {place}."
            raise Refused(307, message, headers={"Location": place}) from None
        raise


def moved_to(request: Request, caller: Caller, kind: str, owner: str, name: str) -> str:
    """The same path below the name that the repository has now; "" where it is nowhere to be seen.

    It names no host, as the real Hub's: clients follow it with their token.
    """
    moved = find_moved(hub_of(request).database, kind, owner, name)
    if moved is None or (moved.private and not caller.belongs_to(moved.owner)):
        return ""
    old = f"/{request.path_params['owner']}/{request.path_params['name']}"
    path: str = request.scope["path"].replace(old, f"/{moved.full_name}", 1)
    query = request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def commit_of(request: Request, repository: Repository) -> Commit:
    """The commit the path names, main where it names none."""
    revision = parameter(request, "revision") if "revision" in request.path_params else "main"
    return find_commit(hub_of(request).database, repository, revision)


def base_url(request: Request) -> str:
    """How the client reached this server: links in answers must work from where it is."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise Refused(400, "The Host header is not a host.")
    return f"{request.scope['scheme']}://{host}"


def repository_url(request: Request, kind: str, full_name: str) -> str:
    return f"{base_url(request)}/{'datasets/' if kind == 'dataset' else ''}{full_name}"


def next_link(request: Request, cursor: str) -> dict[str, str]:
    """The header that leads to the next page."""
    url = request.url.include_query_params(cursor=cursor)
    return {"Link": f'<{base_url(request)}{url.path}?{url.query}>; rel="next"'}


def hold(request: Request, count: int) -> None:
    """Say that `count` bytes of the request are in memory now. Raises Refused 503 for too many."""
    held = request.scope["held"]
    assert isinstance(held, Held)
    held.set(count)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises Refused 413 beyond `limit` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Refused(413, f"The body is larger than {limit:,} bytes.")
        hold(request, len(body))
    return bytes(body)


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises Refused 400 or 413."""
    body = await read_body(request, hub_of(request).limits.json_body)
    if len(body) > _LARGE_BODY:  # others are answered meanwhile
        return await run_in_threadpool(_object, body)
    return _object(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
        # An escape such as \ud800 is JSON and no text: nothing further on could store it.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused(400, "The body is not JSON, or holds half a character.") from None
    if not isinstance(value, dict):
        raise Refused(400, "The body is not a JSON object.")
    return value
