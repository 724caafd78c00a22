"""Creating, describing, changing and deleting repositories; and who is asking."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from secondary_learners.server.api.access import (
    check_files_readable,
    check_namespace_writable,
    writable_repository,
)
from secondary_learners.server.api.catalogue import repository_view
from secondary_learners.server.api.uploads import GIT_ATTRIBUTES
from secondary_learners.server.api.web import (
    caller_of,
    commit_of,
    hub_of,
    json_object,
    repository_of,
    repository_url,
    writable_repository_of,
)
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.collection import drop_objects
from secondary_learners.server.store.commits import insert_first_commit
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.metadata import MetadataError, metadata_json
from secondary_learners.server.store.names import check_namespace, check_repository_name
from secondary_learners.server.store.oids import blob_oid
from secondary_learners.server.store.repositories import (
    Repository,
    create_ref,
    delete_repository,
    grant,
    insert_repository,
    update_settings,
)
from secondary_learners.server.store.trees import TreeEntry, entries

__all__ = [
    "check_access",
    "create_repository",
    "delete_repository_named",
    "info",
    "settings",
    "validate_metadata",
    "who_am_i",
]


def who_am_i(request: Request) -> JSONResponse:
    """GET /api/whoami-v2."""
    token = caller_of(request).token
    if token is None:
        raise Refused(401, "Send a token to hear whose it is.")
    organizations = [
        {"type": "org", "id": name, "name": name, "fullname": name, "roleInOrg": token.role}
        for name in token.organizations
    ]
    access = {"displayName": token.id, "role": token.role}
    return JSONResponse(
        {
            "type": "user",
            "id": token.user,
            "name": token.user,
            "fullname": token.user,
            "orgs": organizations,
            "auth": {"type": "access_token", "accessToken": access},
        }
    )


async def validate_metadata(request: Request) -> JSONResponse:
    """POST /api/validate-yaml: the client asks before it commits a README.

    Some of its ways (`ModelCard.validate`) send no token, so anyone may ask: the metadata is
    limited instead.
    """
    content = (await json_object(request)).get("content")
    if not isinstance(content, str):
        raise Refused(400, "content must be text.")
    try:
        await run_in_threadpool(metadata_json, content.encode(errors="replace"))
    except MetadataError as error:
        errors = [{"message": str(error)}]
        return JSONResponse({"errors": errors, "warnings": []}, status_code=400)
    return JSONResponse({"errors": [], "warnings": []})


async def create_repository(request: Request) -> JSONResponse:
    """POST /api/repos/create: a repository with one commit on its branch main."""
    hub, caller, body = hub_of(request), caller_of(request), await json_object(request)
    kind, owner, name = _named(body, caller.token.user if caller.token else None)
    private = _private(body)
    check_namespace_writable(hub, caller, owner)
    assert caller.token is not None
    url = repository_url(request, kind, f"{owner}/{name}")
    user = caller.token.user
    try:
        await run_in_threadpool(_create, hub, kind, owner, name, bool(private), user)
    except Refused as error:
        if error.status != 409:
            raise
        return JSONResponse({"error": error.message, "url": url}, status_code=409)
    return JSONResponse({"url": url, "name": f"{owner}/{name}", "id": f"{owner}/{name}"})


def _create(hub: Hub, kind: str, owner: str, name: str, private: bool, user: str) -> None:
    with closing(hub.objects.contents()) as contents:
        stored = contents.add(GIT_ATTRIBUTES)
        contents.seal()
        oid = blob_oid(GIT_ATTRIBUTES)
        first = TreeEntry(".gitattributes", stored.sha256, stored.size, oid, False, 0)
        with hub.database.transaction() as connection:
            repository = insert_repository(connection, kind, owner, name, private)
            commit = insert_first_commit(connection, repository, user, [first])
            create_ref(connection, repository.id, "branch", "main", commit)
            grant(connection, repository.id, stored)
            contents.keep()


async def delete_repository_named(request: Request) -> Response:
    """DELETE /api/repos/delete, with the contents no other repository holds."""
    hub, caller, body = hub_of(request), caller_of(request), await json_object(request)
    kind, owner, name = _named(body, caller.token.user if caller.token else None)
    repository = writable_repository(hub, caller, kind, owner, name)
    await run_in_threadpool(_delete, hub, repository)
    return Response(status_code=200)


def _delete(hub: Hub, repository: Repository) -> None:
    with hub.database.transaction() as connection:
        orphans = delete_repository(connection, repository.id)
    drop_objects(hub, orphans)


async def settings(request: Request) -> JSONResponse:
    """PUT …/settings: visibility and gating."""
    hub, repository = hub_of(request), writable_repository_of(request)
    body = await json_object(request)
    private, gated = _private(body), body.get("gated")
    if not (gated is None or gated is False or gated in ("auto", "manual")):
        raise Refused(400, "gated must be auto, manual or false.")

    def write() -> None:
        with hub.database.transaction() as connection:
            update_settings(
                connection, repository.id, private, gated or ("" if gated is False else None)
            )

    await run_in_threadpool(write)
    return JSONResponse({"private": private, "gated": gated})


def info(request: Request) -> JSONResponse:
    """GET /api/{kind}s/{id}[/revision/{revision}]."""
    hub, repository = hub_of(request), repository_of(request)
    commit = commit_of(request, repository)
    blobs = request.query_params.get("blobs", "").lower() in ("true", "1")
    files = entries(hub.database, commit.id)
    return JSONResponse(repository_view(repository, commit.oid, commit.card, files, blobs=blobs))


def check_access(request: Request) -> JSONResponse:
    """GET …/auth-check, and …/auth-check/write."""
    if request.scope["path"].endswith("/write"):
        writable_repository_of(request)
    else:
        check_files_readable(caller_of(request), repository_of(request))
    return JSONResponse({})


def _named(body: dict[str, Any], user: str | None) -> tuple[str, str, str]:
    """(kind, owner, name) of a body that names a repository; the owner is the caller by default."""
    kind, owner, name = body.get("type") or "model", body.get("organization"), body.get("name")
    if kind not in ("model", "dataset"):
        raise Refused(400, f"This server keeps models and datasets, not {str(kind)[:40]!r}.")
    if owner is None and isinstance(name, str) and "/" in name:
        owner, _, name = name.partition("/")
    if owner is None and user is None:
        raise Refused(401, "Creating and deleting repositories needs a token.")
    return kind, check_namespace(owner if owner is not None else user), check_repository_name(name)


def _private(body: dict[str, Any]) -> bool | None:
    visibility, private = body.get("visibility"), body.get("private")
    if visibility is not None:
        if visibility not in ("public", "private"):
            raise Refused(400, "visibility must be public or private.")
        return bool(visibility == "private")
    if not (private is None or isinstance(private, bool)):
        raise Refused(400, "private must be true or false.")
    return private
