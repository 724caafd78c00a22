"""What is in a revision: trees and paths."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse

from secondary_learners.server.api.web import (
    commit_of,
    hub_of,
    next_link,
    parameter,
    read_body,
    repository_of,
)
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.names import check_path
from secondary_learners.server.store.trees import (
    Row,
    entry_view,
    last_commits,
    listing,
    select,
)

__all__ = ["paths_info", "tree"]

_PAGE = 1000
_EXPANDED_PAGE = 100
_EXPANDED_PATHS = 1000


def tree(request: Request) -> JSONResponse:
    """GET …/tree/{revision}[/{folder}]?recursive&expand."""
    hub, repository = hub_of(request), repository_of(request)
    commit = commit_of(request, repository)
    folder = parameter(request, "folder") if "folder" in request.path_params else ""
    if folder := folder.strip("/"):
        check_path(folder)
    expand, recursive = _flag(request, "expand"), _flag(request, "recursive")
    rows = listing(hub.database, commit.id, folder, recursive)
    if (cursor := request.query_params.get("cursor")) is not None:
        rows = [row for row in rows if row[0] > cursor]
    size = _EXPANDED_PAGE if expand else _PAGE
    page = rows[:size]
    headers = next_link(request, page[-1][0]) if len(rows) > size else {}
    return JSONResponse(_views(hub, page, expand), headers=headers)


async def paths_info(request: Request) -> JSONResponse:
    """POST …/paths-info/{revision}, a form or JSON: those of the paths that exist."""
    hub, repository = hub_of(request), repository_of(request)
    commit = commit_of(request, repository)
    body = await read_body(request, hub.limits.json_body)

    def answer() -> list[dict[str, Any]]:
        try:
            form = parse_qs(body.decode(), max_num_fields=hub.limits.files_per_commit)
        except ValueError:
            raise Refused(400, "The body is not a form, or names too many paths.") from None
        expand = form.get("expand", [""])[0].lower() in ("true", "1")
        paths = dict.fromkeys(form.get("paths", []))  # each once, in their order
        views = _views(hub, select(hub.database, commit.id, paths), expand)
        for view in views:
            if "lfs" in view:  # without it the client does not copy a file between repositories
                view["xetHash"] = view["lfs"]["oid"]
        return views

    return JSONResponse(await run_in_threadpool(answer))


def _views(hub: Hub, rows: list[Row], expand: bool) -> list[dict[str, Any]]:
    views = [entry_view(*row) for row in rows]
    if expand and len(rows) > _EXPANDED_PATHS:
        raise Refused(400, f"At most {_EXPANDED_PATHS:,} paths are expanded at once.")
    if expand:
        newest = [max(file.changed for file in files) for _, _, files in rows]
        commits = last_commits(hub.database, newest)
        for view, commit in zip(views, newest, strict=True):
            view["lastCommit"] = commits.get(commit)
    return views


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("true", "1")
