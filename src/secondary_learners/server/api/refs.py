"""Branches, tags and history."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from secondary_learners.server.api.web import (
    commit_of,
    hub_of,
    json_object,
    next_link,
    parameter,
    repository_of,
    writable_repository_of,
)
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.names import check_ref_name
from secondary_learners.server.store.repositories import (
    Repository,
    create_ref,
    delete_ref,
    find_commit,
    list_refs,
)

__all__ = ["create_branch", "create_tag", "delete_branch", "delete_tag", "history", "refs"]

_HISTORY_PAGE = 100


def refs(request: Request) -> JSONResponse:
    """GET …/refs."""
    repository = repository_of(request)
    all_refs = list_refs(hub_of(request).database, repository.id)

    def views(kind: str, prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref.name, "ref": f"{prefix}{ref.name}", "targetCommit": ref.oid}
            for ref in all_refs
            if ref.kind == kind
        ]

    return JSONResponse(
        {
            "branches": views("branch", "refs/heads/"),
            "tags": views("tag", "refs/tags/"),
            "converts": [],
            "pullRequests": [],
        }
    )


def history(request: Request) -> JSONResponse:
    """GET …/commits/{revision}: newest first."""
    hub, repository = hub_of(request), repository_of(request)
    start = commit_of(request, repository)
    if cursor := request.query_params.get("cursor"):
        start = find_commit(hub.database, repository, cursor)
    rows = hub.database.rows(
        "WITH RECURSIVE line (id, depth) AS (SELECT ?, 0 UNION ALL"
        " SELECT commits.parent, line.depth + 1 FROM line JOIN commits ON commits.id = line.id"
        " WHERE commits.parent IS NOT NULL AND line.depth < ?)"
        " SELECT commits.* FROM line JOIN commits ON commits.id = line.id ORDER BY line.depth",
        start.id,
        _HISTORY_PAGE,
    )
    page = [
        {
            "id": row["oid"],
            "title": row["title"],
            "message": row["message"],
            "authors": [{"user": row["author"]}],
            "date": row["date"],
        }
        for row in rows[:_HISTORY_PAGE]
    ]
    more = len(rows) > _HISTORY_PAGE
    headers = next_link(request, rows[_HISTORY_PAGE]["oid"]) if more else {}
    return JSONResponse(page, headers=headers)


async def create_tag(request: Request) -> JSONResponse:
    """POST …/tag/{revision} {tag}."""
    repository = writable_repository_of(request)
    name = check_ref_name((await json_object(request)).get("tag"))
    await _create_ref(request, repository, "tag", name, parameter(request, "revision"))
    return JSONResponse({"name": name})


async def create_branch(request: Request) -> JSONResponse:
    """POST …/branch/{branch} {startingPoint?}: from main where nothing else is said."""
    repository = writable_repository_of(request)
    name = check_ref_name(parameter(request, "branch"))
    start = (await json_object(request)).get("startingPoint", "main")
    if not isinstance(start, str):
        raise Refused(400, "startingPoint must be a revision.")
    await _create_ref(request, repository, "branch", name, start)
    return JSONResponse({"name": name})


async def _create_ref(
    request: Request, repository: Repository, kind: str, name: str, revision: str
) -> None:
    hub = hub_of(request)
    commit = find_commit(hub.database, repository, revision)

    def write() -> None:
        with hub.database.transaction() as connection:
            create_ref(connection, repository.id, kind, name, commit.id)

    await run_in_threadpool(write)


def delete_tag(request: Request) -> Response:
    """DELETE …/tag/{tag}."""
    return _delete_ref(request, "tag", parameter(request, "revision"))


def delete_branch(request: Request) -> Response:
    """DELETE …/branch/{branch}. Its commits stay, by their oid."""
    return _delete_ref(request, "branch", parameter(request, "branch"))


def _delete_ref(request: Request, kind: str, name: str) -> Response:
    hub, repository = hub_of(request), writable_repository_of(request)
    with hub.database.transaction() as connection:
        delete_ref(connection, repository.id, kind, name)
    return Response(status_code=200)
