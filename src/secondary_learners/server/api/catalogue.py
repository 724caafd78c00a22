"""Listing and searching repositories, page by page."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from secondary_learners.server.api.access import Caller
from secondary_learners.server.api.web import caller_of, hub_of, kind_of, next_link
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.metadata import labels
from secondary_learners.server.store.repositories import Repository, repository_from
from secondary_learners.server.store.trees import TreeEntry, entries, sibling

__all__ = ["list_repositories", "repository_view"]

_PAGE = 1000
# Nothing is counted here, so what the Hub sorts by popularity is sorted by date.
_SORTS = {
    "lastModified": "modified",
    "createdAt": "created",
    "downloads": "modified",
    "likes": "modified",
    "trendingScore": "modified",
}
_UNKNOWN_FILTERS = ("apps", "inference", "inference_provider", "num_parameters")


def list_repositories(request: Request) -> JSONResponse:
    """GET /api/models and /api/datasets: what the caller may see, newest first."""
    hub, caller, query = hub_of(request), caller_of(request), request.query_params
    column = _SORTS.get(query.get("sort", "lastModified"))
    if column is None:
        raise Refused(400, f"sort must be one of {', '.join(_SORTS)}.")
    for name in _UNKNOWN_FILTERS:
        if name in query:
            raise Refused(400, f"This server cannot filter by {name}.")
    limit = _limit(query.get("limit"))
    conditions, values = _conditions(request, caller)
    if cursor := query.get("cursor"):
        conditions.append(f"({column}, id) < (?, ?)")
        values += _read_cursor(cursor)
    rows = hub.database.rows(
        f"SELECT * FROM repositories WHERE {' AND '.join(conditions)}"
        f" ORDER BY {column} DESC, id DESC LIMIT ?",
        *values,
        limit + 1,
    )
    repositories = [repository_from(row) for row in rows[:limit]]
    full = any(query.get(name, "").lower() in ("true", "1") for name in ("full", "cardData"))
    full = full or bool(query.getlist("expand"))
    views = []
    for repository in repositories:
        head = hub.database.row(
            "SELECT commits.id, commits.oid, commits.card FROM refs JOIN commits"
            " ON commits.id = refs.commit_id WHERE refs.repository = ? AND refs.name = 'main'",
            repository.id,
        )
        if head is None:
            continue  # deleted since
        files = entries(hub.database, head["id"]) if full else None
        views.append(repository_view(repository, head["oid"], head["card"], files, full))
    headers = {}
    if len(rows) > limit:
        last = rows[limit - 1]
        headers = next_link(request, _cursor(last[column], last["id"]))
    return JSONResponse(views, headers=headers)


def repository_view(
    repository: Repository,
    oid: str,
    card: str,
    files: list[TreeEntry] | None,
    full: bool = True,
    blobs: bool = False,
) -> dict[str, Any]:
    """A repository at a commit, as the client reads it. `card`: JSON, or ""."""
    metadata = json.loads(card) if card else None
    tags = labels(card)
    view: dict[str, Any] = {
        "_id": f"{repository.id:024x}",
        "id": repository.full_name,
        "author": repository.owner,
        "sha": oid,
        "private": repository.private,
        "gated": repository.gated or False,
        "disabled": False,
        "tags": tags,
        "downloads": 0,
        "likes": 0,
        "lastModified": repository.modified,
        "createdAt": repository.created,
    }
    if repository.kind == "model":
        view["modelId"] = repository.full_name
        for key in ("library_name", "pipeline_tag"):
            if metadata and isinstance(metadata.get(key), str):
                view[key] = metadata[key]
    if full:
        view["cardData"] = metadata
    if files is not None:
        view["siblings"] = [sibling(file, blobs) for file in files]
    return view


def _conditions(request: Request, caller: Caller) -> tuple[list[str], list[Any]]:
    query = request.query_params
    namespaces = () if caller.token is None else caller.token.namespaces
    marks = ",".join("?" * len(namespaces))
    conditions = ["kind = ?", f"(private = 0 OR owner IN ({marks}))"]
    values: list[Any] = [kind_of(request), *namespaces]
    if author := query.get("author"):
        conditions.append("owner = ?")
        values.append(author)
    for word in query.get("search", "").split():
        conditions.append("instr(lower(owner || '/' || name), lower(?))")
        values.append(word)
    wanted = [*query.getlist("filter"), *query.getlist("pipeline_tag")]
    for label in [part for text in wanted for part in text.split(",") if part]:
        conditions.append(
            "EXISTS (SELECT 1 FROM labels WHERE repository = repositories.id AND label = ?)"
        )
        values.append(label)
    if (gated := query.get("gated")) is not None:
        conditions.append("(gated != '') = ?")
        values.append(gated.lower() in ("true", "1"))
    if len(conditions) > 50:
        raise Refused(400, "Too many filters and words.")
    return conditions, values


def _limit(text: str | None) -> int:
    if text is None:
        return _PAGE
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused(400, "limit must be a number.")
    return max(1, min(int(text), _PAGE))


def _cursor(value: str, identifier: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([value, identifier]).encode()).decode()


def _read_cursor(text: str) -> list[Any]:
    try:
        value, identifier = json.loads(base64.urlsafe_b64decode(text.encode()))
        if isinstance(value, str) and type(identifier) is int and abs(identifier) < 2**62:
            return [value.encode(errors="replace").decode(), identifier]
    except (binascii.Error, ValueError, TypeError, RecursionError):
        pass
    raise Refused(400, "cursor is not one of this server's.")
