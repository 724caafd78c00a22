"""The application: which path leads where, and how what is refused is said."""

from __future__ import annotations

import errno
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from secondary_learners.server.api import (
    catalogue,
    contents,
    downloads,
    history,
    refs,
    repository,
    service,
    uploads,
)
from secondary_learners.server.api.access import repository_not_found
from secondary_learners.server.api.web import kind_of, parameter
from secondary_learners.server.api.xet import xet_routes
from secondary_learners.server.errors import Refused
from secondary_learners.server.hosts import HostGate, KnownHosts
from secondary_learners.server.judge import Judge
from secondary_learners.server.memory import Accounted, Memory
from secondary_learners.server.observing import AccessLog, Figures, Observed
from secondary_learners.server.pages.catalogue import Catalogue
from secondary_learners.server.pages.routes import page_routes
from secondary_learners.server.pages.scoring import Scoring
from secondary_learners.server.quick import Quick
from secondary_learners.server.rates import RateGate, RateLimit
from secondary_learners.server.refusals import refusal
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.limits import Limits
from secondary_learners.server.upstream import PullThrough, Upstream

__all__ = ["Front", "close_app", "create_app"]


@dataclass(frozen=True)
class Front:
    """What lies before the application.

    `hosts`: the names it answers to, besides those of this machine; None for any.
    `requests_per_minute`: from one sender, None for no end. `access_log`: where a line for each
    request goes. `upstream`: the address of a hub from which comes what is not here. `scorer`: the
    command of a process that scores texts, None for no scores; see `judge.py`.
    """

    hosts: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    access_log: Path | None = None
    upstream: str | None = None
    scorer: tuple[str, ...] | None = None


def create_app(root: Path, limits: Limits | None = None, front: Front | None = None) -> Starlette:
    """The Hub stored in `root`, as an ASGI application."""
    front = front or Front()
    hub = Hub.open(root, limits or Limits())
    app = Starlette(
        routes=_routes(),
        exception_handlers={
            Refused: _refused,
            HTTPException: _not_served,
            ClientDisconnect: _nobody,
            OSError: _disk_failed,
            sqlite3.OperationalError: _database_failed,
            Exception: _failed,
        },
    )
    app.state.catalogue = Catalogue(hub)
    app.state.scoring = Scoring(Judge(front.scorer)) if front.scorer else None
    app.state.memory, app.state.figures = Memory(hub.limits.memory), Figures()
    app.add_middleware(Accounted, memory=app.state.memory)
    app.add_middleware(_RawPath)
    app.state.hub, app.state.answers = hub, downloads.Answers(hub)
    app.add_middleware(downloads.Shortcut, answers=app.state.answers)
    rate, hosts = None, None
    if front.upstream is not None:
        app.add_middleware(PullThrough, upstream=Upstream(hub, front.upstream))
    if front.requests_per_minute is not None:
        rate = RateLimit(front.requests_per_minute)
        app.add_middleware(RateGate, rate=rate)
    if front.hosts is not None:
        hosts = KnownHosts(front.hosts)
        app.add_middleware(HostGate, hosts=hosts)
    app.state.log = AccessLog(front.access_log) if front.access_log else None
    app.add_middleware(Observed, figures=app.state.figures, log=app.state.log)
    app.state.quick = Quick(app.state.answers, hosts, rate, app.state.figures, app.state.log)
    return app


def close_app(app: Starlette) -> None:
    """Close the files that `create_app` opened."""
    if app.state.scoring is not None:
        app.state.scoring.close()
    app.state.hub.close()
    if app.state.log is not None:
        app.state.log.close()


class _RawPath:
    """Routes see the path as it was sent: in it, an encoded slash belongs to a revision."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["raw_path"].decode("latin-1")}
        await self._app(scope, receive, send)


def _routes() -> list[Route]:
    # Data sets come first: a data set named "resolve" would else be read as a model's file.
    files = [
        Route(f"{prefix}/{{owner}}/{{name}}/resolve/{{revision}}/{{path:path}}", downloads.resolve)
        for prefix in ("/datasets", "")
    ]
    large = [
        Route(f"{prefix}/{{owner}}/{{name}}.git/info/lfs/objects/{end}", endpoint, methods=[method])
        for prefix in ("/datasets", "")
        for end, endpoint, method in (
            ("batch", uploads.batch, "POST"),
            ("verify", uploads.verify_upload, "POST"),
            ("{sha256}", uploads.receive, "PUT"),
        )
    ]
    general = [
        Route("/health", service.health),
        Route("/metrics", service.metrics),
        Route("/api/whoami-v2", repository.who_am_i),
        Route("/api/validate-yaml", repository.validate_metadata, methods=["POST"]),
        Route("/api/repos/create", repository.create_repository, methods=["POST"]),
        Route("/api/repos/move", history.move, methods=["POST"]),
        Route("/api/repos/delete", repository.delete_repository_named, methods=["DELETE"]),
    ]
    of_kinds = [route for kind in ("model", "dataset") for route in _kind_routes(f"/api/{kind}s")]
    bare = [
        Route(path, _bare_name, methods=["GET", "POST"])
        for path in ("/api/models/{name}", "/api/datasets/{name}", "/{name}/resolve/{rest:path}")
    ]
    spaces = [
        Route("/api/spaces", _no_spaces),
        Route("/api/spaces/{owner}/{name}", _no_space),
        Route("/api/spaces/{owner}/{name}/{rest:path}", _no_space),
    ]
    return [*files, *large, *general, *spaces, *xet_routes(), *of_kinds, *bare, *page_routes()]


def _kind_routes(api: str) -> list[Route]:
    one = f"{api}/{{owner}}/{{name}}"
    table: list[tuple[str, Any, str]] = [
        ("", repository.info, "GET"),
        ("/revision/{revision}", repository.info, "GET"),
        ("/tree/{revision}", contents.tree, "GET"),
        ("/tree/{revision}/{folder:path}", contents.tree, "GET"),
        ("/paths-info/{revision}", contents.paths_info, "POST"),
        ("/refs", refs.refs, "GET"),
        ("/commits/{revision}", refs.history, "GET"),
        ("/auth-check", repository.check_access, "GET"),
        ("/auth-check/write", repository.check_access, "GET"),
        ("/settings", repository.settings, "PUT"),
        ("/preupload/{revision}", uploads.preupload, "POST"),
        ("/commit/{revision}", uploads.commit, "POST"),
        ("/super-squash/{branch}", history.squash_branch, "POST"),
        ("/duplicate", history.duplicate, "POST"),
        ("/lfs-files", history.list_large_files, "GET"),
        ("/lfs-files/batch", history.delete_files, "POST"),
        ("/lfs-files/duplicate", history.copy_large_files, "POST"),
        ("/tag/{revision}", refs.create_tag, "POST"),
        ("/tag/{revision}", refs.delete_tag, "DELETE"),
        ("/branch/{branch}", refs.create_branch, "POST"),
        ("/branch/{branch}", refs.delete_branch, "DELETE"),
    ]
    return [
        Route(api, catalogue.list_repositories),
        *(Route(one + end, endpoint, methods=[method]) for end, endpoint, method in table),
    ]


def _bare_name(request: Request) -> Response:
    """A repository without an owner, such as the Hub's gpt2: there is none here."""
    raise repository_not_found(kind_of(request), parameter(request, "name"))


def _no_spaces(request: Request) -> Response:
    return JSONResponse([])


def _no_space(request: Request) -> Response:
    """Nothing runs here, so a space does not exist, which the client asks for by its name."""
    name = f"{parameter(request, 'owner')}/{parameter(request, 'name')}"
    raise repository_not_found("space", name)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refusal(error)


def _not_served(request: Request, error: Exception) -> Response:
    """A path or a method without a route."""
    assert isinstance(error, HTTPException)
    message = f"This server has no {request.method} {request.url.path}."
    return _refused(request, Refused(error.status_code, message, "", dict(error.headers or {})))


def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # the client has gone: no one reads this


def _disk_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _refused(request, _disk_full())
    raise error


def _database_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, sqlite3.OperationalError)
    code = getattr(error, "sqlite_errorcode", 0)  # some errors of the module itself have none
    if code & 0xFF == sqlite3.SQLITE_FULL or code in _NO_SPACE:
        return _refused(request, _disk_full())
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        message = "The server is busy: nothing was stored. Try again."
        return _refused(request, Refused(503, message, headers={"Retry-After": "5"}))
    raise error


# How SQLite calls a quota that is used up, and a disk too full for its index of the journal.
_NO_SPACE = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


def _disk_full() -> Refused:
    return Refused(507, "The server's disk is full: nothing was stored. Ask who runs it.")


def _failed(request: Request, error: Exception) -> Response:
    """A mistake of ours: the log, which uvicorn writes, has the whole story."""
    return _refused(request, Refused(500, "The server failed. Its log says why."))
