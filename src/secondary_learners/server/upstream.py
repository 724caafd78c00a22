"""A pull-through cache: what is not here is fetched from another hub, kept, and served from here.

Only public repositories, without a token, and none whose owner has the name of a user or an
organization of this hub: nobody can put files under a name that this hub gives out.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import httpx2
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from secondary_learners.server.api.downloads import CONDITIONS
from secondary_learners.server.arriving import Arriving
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.clock import now
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.metadata import MetadataError, metadata_json
from secondary_learners.server.store.mirror import (
    ForeignCommit,
    is_local_namespace,
    keep_commit,
    mirrored,
)
from secondary_learners.server.store.names import check_path, is_repository_name, is_sha256
from secondary_learners.server.store.objects import Contents
from secondary_learners.server.store.oids import blob_oid
from secondary_learners.server.store.repositories import find_commit
from secondary_learners.server.store.trees import TreeEntry, find_entry

__all__ = ["PullThrough", "Upstream"]

log = logging.getLogger(__name__)
_FRESH_S = 60.0  # for so long a branch is taken to be where it was
_TIMEOUT = httpx2.Timeout(30.0, connect=5.0)
_AT_ONCE = 8
_FAILURES = (httpx2.HTTPError, ValueError, KeyError, TypeError)
_API = re.compile(
    r"/api/(?P<kind>model|dataset)s/(?P<owner>[^/]+)/(?P<name>[^/]+)"
    r"(?:/(?:revision|tree|paths-info|commits|refs)(?:/(?P<revision>[^/]+)(?:/.*)?)?)?"
)
_FILE = re.compile(
    r"(?P<data>/datasets)?/(?P<owner>[^/]+)/(?P<name>[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)


@dataclass(frozen=True)
class Wanted:
    """What a request needs: a commit, and for a download one of its files."""

    kind: str
    owner: str
    name: str
    revision: str
    path: str | None

    @classmethod
    def of(cls, scope: Scope) -> Wanted | None:
        """None for a request that reads no repository."""
        path = scope["raw_path"].decode("latin-1")
        if scope["method"] not in ("GET", "HEAD") and "/paths-info/" not in path:
            return None
        match = _API.fullmatch(path) or _FILE.fullmatch(path)
        if match is None:
            return None
        parts = match.groupdict()
        kind = parts.get("kind") or ("dataset" if parts.get("data") else "model")
        owner, name = unquote(parts["owner"]), unquote(parts["name"])
        if not (is_repository_name(owner) and is_repository_name(name)):
            return None
        file = unquote(parts["path"]) if parts.get("path") else None
        return cls(kind, owner, name, unquote(parts["revision"] or "main"), file)


class Upstream:
    """The other hub."""

    def __init__(
        self,
        hub: Hub,
        url: str,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub, self._url, self._clock = hub, url.rstrip("/"), clock
        self._client = httpx2.AsyncClient(
            timeout=_TIMEOUT, follow_redirects=True, transport=transport
        )
        self._arriving: dict[str, tuple[Arriving, asyncio.Task[None]]] = {}
        self._asked: dict[tuple[str, str, str, str], float] = {}
        self._locks: dict[object, asyncio.Lock] = {}

    async def bring(self, wanted: Wanted) -> None:
        """Bring here the commit that a request needs, as far as the other hub has it and answers.

        Its small files come with it, its large ones when they are read.
        """
        if is_local_namespace(self._hub.database, wanted.owner):
            return
        async with self._turn((wanted.kind, wanted.owner, wanted.name)):
            try:
                await self._bring_commit(wanted)
            except _FAILURES as error:  # what is here already is served
                log.warning("%s does not serve %s: %r", self._url, wanted, error)

    @asynccontextmanager
    async def _turn(self, key: object) -> AsyncIterator[None]:
        """One request at a time fetches the same."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    async def _bring_commit(self, wanted: Wanted) -> None:
        key = (wanted.kind, wanted.owner, wanted.name, wanted.revision)
        if self._clock() < self._asked.get(key, 0.0) or await run_in_threadpool(
            self._is_settled, wanted
        ):
            return
        if len(self._asked) > 10_000:
            self._asked.clear()
        self._asked[key] = self._clock() + _FRESH_S
        quoted = quote(wanted.revision, safe="")
        address = f"{self._url}/api/{wanted.kind}s/{wanted.owner}/{wanted.name}/revision/{quoted}"
        answer = await self._client.get(address, params={"blobs": "true"})
        if answer.status_code in (401, 403, 404):
            return
        answer.raise_for_status()
        described = answer.json()
        with closing(self._hub.objects.contents()) as contents:
            files = await self._files(wanted, described, contents)
            commit = ForeignCommit(
                str(described["sha"]),
                wanted.revision,
                str(described.get("lastModified") or now()),
                [file for file, _ in files],
                next((card for file, card in files if file.path == "README.md"), ""),
                contents,
            )
            await run_in_threadpool(
                keep_commit, self._hub, wanted.kind, wanted.owner, wanted.name, commit
            )

    def _is_settled(self, wanted: Wanted) -> bool:
        """A commit by its oid never changes."""
        if len(wanted.revision) != 40:
            return False
        repository = mirrored(self._hub.database, wanted.kind, wanted.owner, wanted.name)
        if repository is None:
            return False
        with suppress(Exception):
            find_commit(self._hub.database, repository, wanted.revision)
            return True
        return False

    async def _files(
        self, wanted: Wanted, described: dict[str, Any], contents: Contents
    ) -> list[tuple[TreeEntry, str]]:
        """Each file with its card. Small ones are fetched: only so is their sha256 known."""
        limit = asyncio.Semaphore(_AT_ONCE)
        siblings = described["siblings"]
        if len(siblings) > self._hub.limits.files_per_repository:
            raise ValueError("it has too many files")

        async def one(row: dict[str, Any]) -> tuple[TreeEntry, str]:
            path = check_path(row["rfilename"])
            if lfs := row.get("lfs"):
                sha256, size = str(lfs["sha256"]), int(lfs["size"])
                if not is_sha256(sha256):
                    raise ValueError(f"{path} has no sha256")
                return TreeEntry(path, sha256, size, str(row["blobId"]), True, 0), ""
            async with limit:
                answer = await self._client.get(self._address(wanted, described["sha"], path))
            answer.raise_for_status()
            data = answer.content
            if blob_oid(data) != row["blobId"]:
                raise ValueError(f"{path} is not what its oid says")
            stored = await run_in_threadpool(contents.add, data)
            return TreeEntry(path, stored.sha256, stored.size, row["blobId"], False, 0), _card(
                path, data
            )

        return list(await asyncio.gather(*(one(row) for row in siblings)))

    async def arriving(self, wanted: Wanted) -> Arriving | None:
        """A large file that is read and not here yet: it is on its way from now on."""
        missing = await run_in_threadpool(self._missing, wanted)
        if missing is None:
            return None
        repository, commit, entry = missing
        if entry.sha256 not in self._arriving:
            file = Arriving(entry.size)
            address = self._address(wanted, commit, entry.path)
            task = asyncio.create_task(self._fetch(file, repository, entry, address))
            self._arriving[entry.sha256] = (file, task)
        return self._arriving[entry.sha256][0]

    def _missing(self, wanted: Wanted) -> tuple[int, str, TreeEntry] | None:
        """The repository, the commit and the entry of a file whose bytes are not here."""
        repository = mirrored(self._hub.database, wanted.kind, wanted.owner, wanted.name)
        if repository is None or wanted.path is None:
            return None
        try:
            commit = find_commit(self._hub.database, repository, wanted.revision)
        except Refused:
            return None  # the application says so
        entry = find_entry(self._hub.database, commit.id, wanted.path)
        if entry is None or self._hub.objects.has(entry.sha256, entry.size):
            return None
        return repository.id, commit.oid, entry

    async def _fetch(self, file: Arriving, repository: int, entry: TreeEntry, address: str) -> None:
        """All of it, also where whoever asked for it has gone."""
        whole = False
        try:
            with self._hub.objects.incoming() as incoming:
                file.begin(incoming)
                async with self._client.stream("GET", address) as answer:
                    answer.raise_for_status()
                    async for piece in answer.aiter_bytes(2**20):
                        if incoming.size + len(piece) > entry.size:
                            raise ValueError(f"{entry.path} is larger than it should be")
                        await file.write(incoming, piece)
                await run_in_threadpool(self._hub.keep, repository, incoming, entry.sha256)
            whole = True
        except (*_FAILURES, Refused, OSError) as error:
            log.warning("%s did not come: %r", address, error)
        finally:
            file.end(whole)
            self._arriving.pop(entry.sha256, None)

    def _address(self, wanted: Wanted, commit: str, path: str) -> str:
        prefix = "/datasets" if wanted.kind == "dataset" else ""
        where = f"{wanted.owner}/{wanted.name}/resolve/{commit}/{quote(path)}"
        return f"{self._url}{prefix}/{where}"


class PullThrough:
    """Middleware: what a request needs is brought here before it is answered.

    A large file is sent on while it comes; but where a part of it was asked for, when it is here.
    """

    def __init__(self, app: ASGIApp, upstream: Upstream) -> None:
        self._app, self._upstream = app, upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = Wanted.of(scope)
        if wanted is not None:
            await self._upstream.bring(wanted)
            file = await self._upstream.arriving(wanted) if scope["method"] == "GET" else None
            if file is not None:
                with file.reading():
                    if await self._is_sent_on(file, scope, send):
                        return
        await self._app(scope, receive, send)

    async def _is_sent_on(self, file: Arriving, scope: Scope, send: Send) -> bool:
        """Whether the answer was given; else the application gives it, from what is here then."""
        if any(name in CONDITIONS for name, _ in scope["headers"]):
            await file.has_ended()
            return False
        if not await file.has_begun():
            return False
        opening = await self._opening(scope)
        if opening.get("status") != 200:
            return False
        await send(opening)
        await file.send_to(send)
        return True

    async def _opening(self, scope: Scope) -> Message:
        """How the application answers, without a body: its bytes are not looked for."""
        opening: Message = {}

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                opening.update(message)

        await self._app({**scope, "method": "HEAD"}, receive, send)
        return opening


def _card(path: str, data: bytes) -> str:
    if path != "README.md":
        return ""
    try:
        return metadata_json(data)
    except MetadataError:
        return ""
