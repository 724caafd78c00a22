"""The pages that a hub serves. What may not be read is not shown, to whoever is signed in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from importlib.resources import files
from urllib.parse import parse_qs, quote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from secondary_learners.server.api.access import Caller
from secondary_learners.server.api.web import (
    base_url,
    caller_of,
    hub_of,
    moved_to,
    parameter,
    read_body,
)
from secondary_learners.server.errors import Refused
from secondary_learners.server.judge import NotScored
from secondary_learners.server.pages.artifacts import Artifact
from secondary_learners.server.pages.catalogue import Catalogue
from secondary_learners.server.pages.choosing import Choice, choose
from secondary_learners.server.pages.render import (
    Beside,
    Page,
    Tried,
    artifact_page,
    boards_page,
    compare_page,
    feed,
    list_page,
    tried_page,
)
from secondary_learners.server.pages.scoring import LONGEST_TEXT, Scoring
from secondary_learners.server.pages.snippets import snippets_for
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.names import is_reserved
from secondary_learners.server.store.signing import sign, verify
from secondary_learners.server.store.tokens import find_token, token_by_id

__all__ = ["page_routes"]

_TITLE = "Learners"
_SESSION, _FORM = "learners_session", "learners_form"
_SESSION_S = 12 * 3600
_MOST_COMPARED, _RELATIVES = 10, 50
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
}


class _HubLinks:
    style, home, boards, feed = "/static/style.css", "/", "/boards", "/feed.atom"
    compare, login, try_out = "/compare", "/login", "/try"

    def artifact(self, name: str) -> str:
        return f"/{quote(name)}"

    def listed(self, choice: Choice) -> str:
        query = [("q", " ".join(choice.words))] if choice.words else []
        query += [(f, v) for f, values in sorted(choice.facets.items()) for v in sorted(values)]
        query += [("sort", choice.sort)] if choice.sort != "name" else []
        query += [("page", str(choice.page))] if choice.page > 1 else []
        return f"/?{urlencode(query)}" if query else "/"


def page_routes() -> list[Route]:
    return [
        Route("/", _list),
        Route("/boards", _boards),
        Route("/compare", _compare),
        Route("/try", _try, methods=["POST"]),
        Route("/login", _login, methods=["GET", "POST"]),
        Route("/logout", _logout, methods=["POST"]),
        Route("/feed.atom", _feed),
        Route("/index.json", _index),
        Route("/static/style.css", _style),
        Route("/datasets/{owner}/{name}", _artifact),
        Route("/{owner}/{name}", _artifact),
    ]


async def _list(request: Request) -> Response:
    choice = Choice.of(request.query_params.multi_items())
    artifacts = await run_in_threadpool(_catalogue(request).visible, _caller(request))
    chosen = choose(artifacts, choice).page(choice.page)
    return _html(list_page(_page(request), choice, chosen))


async def _artifact(request: Request) -> Response:
    owner, name = parameter(request, "owner"), parameter(request, "name")
    prefix = "datasets/" if request.scope["path"].startswith("/datasets/") else ""
    catalogue, caller, scoring = _catalogue(request), _caller(request), _scoring(request)
    artifact = None
    if not is_reserved(owner):
        artifact = await run_in_threadpool(catalogue.find, caller, f"{prefix}{owner}/{name}")
    if artifact is None:
        kind = "dataset" if prefix else "model"
        if place := await run_in_threadpool(moved_to, request, caller, kind, owner, name):
            return RedirectResponse(place, headers=_HEADERS)
        if "text/html" not in request.headers.get("accept", ""):
            raise Refused(404, f"This server has no {request.method} {request.url.path}.")
        return _not_found(request)
    everything = await run_in_threadpool(catalogue.visible, caller)
    reference = artifact.name.removeprefix("datasets/")
    tries = scoring is not None and artifact.measured.quantiles
    beside = Beside(
        snippets_for(artifact.kind, reference, base_url(request)),
        [other for other in everything if artifact.name in other.derived_from][:_RELATIVES],
        await run_in_threadpool(scoring.known, everything) if scoring else (),
        LONGEST_TEXT if tries else 0,
    )
    return _html(artifact_page(_page(request), _probed(request, artifact), beside))


def _not_found(request: Request) -> Response:
    text = "There is nothing of this name here, or it is for members: sign in to see more."
    return _html(_page(request).render("message.html", heading="Not found", text=text), 404)


def _probed(request: Request, artifact: Artifact) -> Artifact:
    """With its scores of the probe set, as far as they are known."""
    scoring, catalogue, caller = _scoring(request), _catalogue(request), _caller(request)
    if scoring is None:
        return artifact
    return scoring.probed(artifact, lambda: catalogue.material(caller, artifact.name))


async def _compare(request: Request) -> Response:
    names = list(dict.fromkeys(request.query_params.getlist("a")))[:_MOST_COMPARED]
    artifacts = await run_in_threadpool(_catalogue(request).visible, _caller(request))
    by_name = {artifact.name: artifact for artifact in artifacts}
    compared = [_probed(request, by_name[name]) for name in names if name in by_name]
    missing = [name[:100] for name in names if name not in by_name]
    return _html(compare_page(_page(request), compared, missing))


async def _try(request: Request) -> Response:
    """A text that a visitor pasted, with its score and what each token adds to it."""
    scoring, catalogue, caller = _scoring(request), _catalogue(request), _caller(request)
    if scoring is None:
        raise Refused(404, "This server scores no texts. Start it with --scoring.")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused(403, "This did not come from a page of this server.")
    form = await _form(request, 4 * LONGEST_TEXT * 3)  # a character is up to 4 bytes, %XX each
    name, text = form.get("a", ""), form.get("text", "").replace("\r\n", "\n")
    artifact = await run_in_threadpool(catalogue.find, caller, name)
    material = await run_in_threadpool(catalogue.material, caller, name)
    if artifact is None or material is None:
        return _not_found(request)
    sender = caller.token.id if caller.token else request.client and request.client.host
    status, tried = 200, Tried(LONGEST_TEXT, problem="There is no text to score.")
    try:
        explained = await run_in_threadpool(scoring.explain, sender, material, text)
        if explained is not None:
            tried = Tried(LONGEST_TEXT, explained.score, explained.tokens)
    except NotScored as error:
        tried = Tried(LONGEST_TEXT, problem=f"It was not scored: {error}")
    except Refused as error:
        status, tried = error.status, Tried(LONGEST_TEXT, problem=error.message)
    return _html(tried_page(_page(request), artifact, text[:LONGEST_TEXT], tried), status)


async def _boards(request: Request) -> Response:
    artifacts = await run_in_threadpool(_catalogue(request).visible, _caller(request))
    return _html(boards_page(_page(request), artifacts))


async def _feed(request: Request) -> Response:
    artifacts = await run_in_threadpool(_catalogue(request).visible, _caller(request))
    text = feed(_page(request), base_url(request), artifacts)
    return Response(text, media_type="application/atom+xml", headers=_HEADERS)


async def _index(request: Request) -> Response:
    artifacts = await run_in_threadpool(_catalogue(request).visible, _caller(request))
    rows = [
        {
            "name": artifact.name,
            "date": artifact.source.date,
            "size": artifact.size,
            "effect": artifact.effect.share if artifact.effect else None,
            **{facet: list(values) for facet, values in artifact.facets.items()},
        }
        for artifact in artifacts
    ]
    return JSONResponse(rows, headers=_HEADERS)


def _style(request: Request) -> Response:
    text = (files("secondary_learners.server.pages") / "templates" / "style.css").read_text()
    headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Response(text, media_type="text/css", headers=headers)


async def _login(request: Request) -> Response:
    """The form, and what is sent from it. The cookie holds which token it was, not the token."""
    hub = hub_of(request)
    if request.method == "GET":
        return _login_form(request, "", 200)
    form = await _form(request)
    if not _is_csrf(hub, request.cookies.get(_FORM, ""), form.get("csrf", "")):
        return _login_form(request, "The form was too old. Try again.", 403)
    token = find_token(hub.database, form.get("token", "").strip())
    if token is None:
        return _login_form(request, "Nobody has this token.", 401)
    session = sign(hub.secret, {"use": "session", "token": token.id}, _SESSION_S)
    response = RedirectResponse("/", status_code=303, headers=_HEADERS)
    _set_cookie(request, response, _SESSION, session)
    response.delete_cookie(_FORM)
    return response


async def _logout(request: Request) -> Response:
    form = await _form(request)
    if not _is_csrf(hub_of(request), request.cookies.get(_SESSION, ""), form.get("csrf", "")):
        raise Refused(403, "This did not come from a page of this server.")
    response = RedirectResponse("/", status_code=303, headers=_HEADERS)
    response.delete_cookie(_SESSION)
    return response


def _login_form(request: Request, problem: str, status: int) -> Response:
    cookie = secrets.token_urlsafe(24)
    page = Page(_HubLinks(), _TITLE, csrf=_csrf(hub_of(request), cookie))
    response = _html(page.render("login.html", problem=problem), status)
    _set_cookie(request, response, _FORM, cookie)
    return response


def _caller(request: Request) -> Caller:
    """By the Authorization header, or else by the cookie of someone who has signed in."""
    if request.headers.get("authorization"):
        return caller_of(request)
    hub = hub_of(request)
    session = verify(hub.secret, request.cookies.get(_SESSION, ""))
    if session is None or session.get("use") != "session":
        return Caller(None)
    return Caller(token_by_id(hub.database, session["token"]))


def _page(request: Request) -> Page:
    token = _caller(request).token
    csrf = _csrf(hub_of(request), request.cookies.get(_SESSION, ""))
    return Page(_HubLinks(), _TITLE, token.user if token else "", csrf)


def _catalogue(request: Request) -> Catalogue:
    catalogue = request.app.state.catalogue
    assert isinstance(catalogue, Catalogue)
    return catalogue


def _scoring(request: Request) -> Scoring | None:
    scoring = request.app.state.scoring
    assert scoring is None or isinstance(scoring, Scoring)
    return scoring


async def _form(request: Request, most: int = 8192) -> dict[str, str]:
    """A form that a page of ours sent: each field once."""
    body = await read_body(request, most)
    try:
        fields = parse_qs(body.decode(), max_num_fields=10)
    except ValueError:
        raise Refused(400, "The body is not a form.") from None
    return {name: values[0] for name, values in fields.items()}


def _csrf(hub: Hub, cookie: str) -> str:
    return hmac.new(hub.secret, b"form\0" + cookie.encode(), hashlib.sha256).hexdigest()


def _is_csrf(hub: Hub, cookie: str, sent: str) -> bool:
    return bool(cookie) and hmac.compare_digest(_csrf(hub, cookie).encode(), sent.encode())


def _set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    secure = request.scope["scheme"] == "https"
    response.set_cookie(
        name, value, max_age=_SESSION_S, httponly=True, samesite="strict", secure=secure
    )


def _html(text: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(text, status_code=status, headers=_HEADERS)
