"""Fetching files: whole or one range, straight from disk."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from secondary_learners.server.api.access import check_files_readable
from secondary_learners.server.api.sending import Part, Sending
from secondary_learners.server.api.web import caller_of, commit_of, hub_of, parameter, repository_of
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.objects import Objects, Stored
from secondary_learners.server.store.trees import find_entry

__all__ = ["CONDITIONS", "Answers", "Shortcut", "resolve"]

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII | re.IGNORECASE)
CONDITIONS = {b"range", b"if-range", b"if-none-match"}
_REMEMBERED = 4096
_SMALL, _REMEMBERED_SMALL = 16 * 1024, 1024  # bytes of a file; files: 16 MB at most


@dataclass(frozen=True)
class _File:
    """What a path leads to: the content, and the headers that describe it."""

    objects: Objects
    content: Stored
    etag: str
    headers: dict[str, str]

    def part(self, start: int, stop: int, status: int) -> Sending:
        headers = self.headers | {"Content-Length": str(stop - start)}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{self.content.size}"
        return Sending(self.objects, Part(self.content, start, stop), status, headers)

    def whole(self) -> Sending:
        return self.part(0, self.content.size, 200)


async def resolve(request: Request) -> ASGIApp:
    """GET and HEAD /{id}/resolve/{revision}/{path}."""
    hub = hub_of(request)
    version = hub.database.version()  # before the look-ups: what changes meanwhile is noticed
    file = _find(hub, request)
    request.app.state.answers.add(request.scope, version, file.whole())
    if _matches(request.headers.get("if-none-match"), file.etag):
        return Response(status_code=304, headers=file.headers)
    wanted = request.headers.get("range")
    if wanted and request.method == "GET" and request.headers.get("if-range") in (None, file.etag):
        asked = _range(wanted, file.content.size)
        if asked is not None:
            return file.part(*asked, 206)
    return file.whole()


def _find(hub: Hub, request: Request) -> _File:
    repository = repository_of(request)
    check_files_readable(caller_of(request), repository)
    commit = commit_of(request, repository)
    path = parameter(request, "path")
    entry = find_entry(hub.database, commit.id, path)
    headers = {"X-Repo-Commit": commit.oid}
    if entry is None:
        message = f"{repository.full_name} has no file {path!r} at {commit.oid}."
        raise Refused(404, message, "EntryNotFound", headers)
    etag = f'"{entry.etag}"'
    headers |= {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
    }
    return _File(hub.objects, Stored(entry.sha256, entry.size), etag, headers)


@dataclass(frozen=True)
class Small:
    """A whole answer to a GET, from its first header on. `sender`: as in a request's scope."""

    answer: bytes
    size: int
    sender: dict[str, str]


class Answers:
    """What was just answered, for the same question, until anything is written.

    Whoever writes, in whichever process, changes the database's version: a moved branch and a
    revoked token are noticed by the next request. The sender's token is part of the question.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._version = -1
        self._answers: dict[tuple[bytes, bytes], tuple[Sending, dict[str, str]]] = {}
        self._small: dict[tuple[bytes, bytes], Small] = {}

    def add(self, scope: Scope, version: int, answer: Sending) -> None:
        """Remember what `scope` is answered; it was looked up after `version` was read."""
        if version != self._version or len(self._answers) >= _REMEMBERED:
            self._version = version
            self._answers.clear()
            self._small.clear()
        self._answers[_question(scope)] = answer, scope["sender"]

    def find(self, scope: Scope) -> Sending | None:
        """The answer to a plain request for a whole file that is still right."""
        if not self._answers or scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return None
        if any(name in CONDITIONS for name, _ in scope["headers"]):
            return None
        known = self._answers.get(_question(scope))
        if known is None or self._hub.database.version() != self._version:
            return None
        answer, sender = known
        scope["sender"].update(sender)
        if not answer.is_sound():
            return None
        if answer.size <= _SMALL:
            self._remember_small(scope, answer, sender)
        return answer

    def find_small(self, path: bytes, sender: bytes) -> Small | None:
        """The whole answer to a GET, where the file is small and was asked for before."""
        small = self._small.get((path, sender))
        if small is None or self._hub.database.version() != self._version:
            return None
        return small

    def _remember_small(self, scope: Scope, answer: Sending, sender: dict[str, str]) -> None:
        if not scope["query_string"] and len(self._small) < _REMEMBERED_SMALL:
            whole = answer.whole()
            if whole is not None:
                self._small[_question(scope)] = Small(whole, answer.size, sender)


class Shortcut:
    """Middleware: what is known is answered at once, all else goes to the application."""

    def __init__(self, app: ASGIApp, answers: Answers) -> None:
        self._app, self._answers = app, answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = self._answers.find(scope)
            if answer is not None:
                await answer(scope, receive, send)
                return
        except (Refused, sqlite3.OperationalError):
            pass  # nothing has been sent yet, and the application says what is wrong
        await self._app(scope, receive, send)


def _question(scope: Scope) -> tuple[bytes, bytes]:
    senders = [value for name, value in scope["headers"] if name == b"authorization"]
    return scope["raw_path"], b"\n".join(senders)  # no header holds a line break


def _matches(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags


def _range(text: str, size: int) -> tuple[int, int] | None:
    """(start, stop) of one range of bytes; None for anything else, which is to be ignored.

    Raises Refused 416 for a range that holds none of the `size` bytes.
    """
    match = _RANGE.fullmatch(text)
    if match is None or not any(match.groups()) or any(len(part) > 18 for part in match.groups()):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= stop:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Refused(416, f"The file has {size:,} bytes, none of them in {text!r}.", "", headers)
    return start, stop
