"""Rewriting: squash, move, duplicate; large files copied to other repositories and deleted."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse

from secondary_learners.server.api.access import (
    check_files_readable,
    check_namespace_writable,
    writable_repository,
)
from secondary_learners.server.api.web import (
    caller_of,
    hub_of,
    json_object,
    next_link,
    parameter,
    repository_of,
    repository_url,
    writable_repository_of,
)
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.collection import drop_objects
from secondary_learners.server.store.history import (
    committed,
    delete_large_files,
    duplicate_repository,
    large_files,
    move_repository,
    squash,
)
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.names import (
    check_namespace,
    check_repository_name,
    is_sha256,
)
from secondary_learners.server.store.objects import Stored
from secondary_learners.server.store.repositories import grant

__all__ = [
    "copy_large_files",
    "delete_files",
    "duplicate",
    "list_large_files",
    "move",
    "squash_branch",
]

_PAGE = 1000


async def squash_branch(request: Request) -> JSONResponse:
    """POST …/super-squash/{branch} {message?}."""
    hub, repository = hub_of(request), writable_repository_of(request)
    message = (await json_object(request)).get("message") or "Squash"
    token = caller_of(request).token
    assert token is not None
    if not isinstance(message, str) or len(message) > 1000:
        raise Refused(400, "message must be text of at most 1,000 characters.")
    branch = parameter(request, "branch")
    await run_in_threadpool(squash, hub.database, repository, branch, token.user, message)
    return JSONResponse({})


async def move(request: Request) -> JSONResponse:
    """POST /api/repos/move {fromRepo, toRepo, type}: another name, to which the old one leads.

    Until another repository is called so.
    """
    hub, caller, body = hub_of(request), caller_of(request), await json_object(request)
    kind = body.get("type") or "model"
    if kind not in ("model", "dataset"):
        raise Refused(400, f"This server keeps models and datasets, not {str(kind)[:40]!r}.")
    repository = writable_repository(hub, caller, kind, *_full_name(body, "fromRepo"))
    owner, name = _full_name(body, "toRepo")
    check_namespace_writable(hub, caller, owner)

    def write() -> None:
        with hub.database.transaction() as connection:
            move_repository(connection, repository, owner, name)
            hub.check_quota(connection, owner)

    await run_in_threadpool(write)
    return JSONResponse({"url": repository_url(request, kind, f"{owner}/{name}")})


async def duplicate(request: Request) -> JSONResponse:
    """POST …/duplicate {repository, visibility?}: as private as it is where nothing is said."""
    hub, caller, source = hub_of(request), caller_of(request), repository_of(request)
    check_files_readable(caller, source)
    body = await json_object(request)
    owner, name = _full_name(body, "repository")
    check_namespace_writable(hub, caller, owner)
    visibility = body.get("visibility")
    if visibility not in (None, "public", "private"):
        raise Refused(400, "visibility must be public or private.")
    private = source.private if visibility is None else visibility == "private"
    url = repository_url(request, source.kind, f"{owner}/{name}")

    def write() -> None:
        with hub.database.transaction() as connection:
            duplicate_repository(connection, source, owner, name, private)
            hub.check_quota(connection, owner)

    try:
        await run_in_threadpool(write)
    except Refused as error:
        if error.status != 409:
            raise
        return JSONResponse({"error": error.message, "url": url}, status_code=409)
    return JSONResponse({"url": url})


async def copy_large_files(request: Request) -> JSONResponse:
    """POST …/lfs-files/duplicate {target: {type, name}, files: [{sha256}]}.

    From then on the target holds what a commit of this repository names, and may commit it.
    """
    hub, caller, source = hub_of(request), caller_of(request), repository_of(request)
    check_files_readable(caller, source)
    body = await json_object(request)
    target, files = body.get("target"), body.get("files")
    if not isinstance(target, dict) or not isinstance(files, list) or len(files) > _PAGE:
        raise Refused(400, f"It takes a target and at most {_PAGE:,} files.")
    kind = str(target.get("type") or "model")
    repository = writable_repository(hub, caller, kind, *_full_name(target, "name"))
    wanted = [str(file.get("sha256")) if isinstance(file, dict) else "" for file in files]
    held = await run_in_threadpool(committed, hub.database, source.id)
    there = [sha256 for sha256 in wanted if sha256 in held]

    def write() -> None:
        with hub.database.transaction() as connection:
            contents = [Stored(sha256, held[sha256]) for sha256 in there]
            grant(connection, repository.id, *contents)
            hub.check_quota(connection, repository.owner)

    await run_in_threadpool(write)
    failed = [
        {"sha256": sha256, "error": f"{source.full_name} does not hold it"}
        for sha256 in wanted
        if sha256 not in held
    ]
    return JSONResponse({"success": [{"sha256": sha256} for sha256 in there], "failed": failed})


async def list_large_files(request: Request) -> JSONResponse:
    """GET …/lfs-files: every large file that any commit names."""
    hub, repository = hub_of(request), repository_of(request)
    check_files_readable(caller_of(request), repository)
    cursor = request.query_params.get("cursor", "")
    if cursor and not is_sha256(cursor):
        raise Refused(400, "cursor is not one of this server's.")
    files = await run_in_threadpool(large_files, hub.database, repository.id, cursor, _PAGE + 1)
    page = [
        {
            "fileOid": file.sha256,
            "filename": file.path,
            "oid": file.oid,
            "pushedAt": file.date,
            "ref": "main",
            "size": file.size,
        }
        for file in files[:_PAGE]
    ]
    headers = next_link(request, files[_PAGE - 1].sha256) if len(files) > _PAGE else {}
    return JSONResponse(page, headers=headers)


async def delete_files(request: Request) -> JSONResponse:
    """POST …/lfs-files/batch {deletions: {sha, rewriteHistory}}: gone for good."""
    hub, repository = hub_of(request), writable_repository_of(request)
    deletions = (await json_object(request)).get("deletions")
    if not isinstance(deletions, dict):
        raise Refused(400, "deletions must be an object.")
    wanted = deletions.get("sha")
    if not isinstance(wanted, list) or len(wanted) > _PAGE or not all(map(is_sha256, wanted)):
        raise Refused(400, f"deletions.sha must be a list of at most {_PAGE:,} sha256.")
    rewrite = deletions.get("rewriteHistory", True) is not False
    await run_in_threadpool(_delete_files, hub, repository.id, wanted, rewrite)
    return JSONResponse({})


def _delete_files(hub: Hub, repository: int, contents: list[str], rewrite: bool) -> None:
    with hub.database.transaction() as connection:
        gone = delete_large_files(connection, repository, contents, rewrite)
    drop_objects(hub, gone)


def _full_name(body: dict[str, Any], key: str) -> tuple[str, str]:
    owner, slash, name = str(body.get(key)).partition("/")
    if not slash:
        raise Refused(400, f"{key} must be OWNER/NAME.")
    return check_namespace(owner), check_repository_name(name)
