"""A large file of another hub is sent on while it comes, in the order that the test decides."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from secondary_learners.server.api.sending import BrokenOff
from secondary_learners.server.app import close_app, create_app
from secondary_learners.server.upstream import PullThrough, Upstream

DATA = bytes(range(256)) * 4096 * 3
SHA256 = hashlib.sha256(DATA).hexdigest()
COMMIT = "c" * 40
FILE = f"/team/mini/resolve/{COMMIT}/w.bin"


@dataclass
class Far(httpx2.AsyncBaseTransport):
    """Another hub with one file, whose bytes come when the test puts them into the queue."""

    pieces: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    fetched: int = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.startswith("/api/"):
            row = {"rfilename": "w.bin", "blobId": "b" * 40}
            row |= {"lfs": {"sha256": SHA256, "size": len(DATA)}}
            return httpx2.Response(200, json={"sha": COMMIT, "siblings": [row]})
        self.fetched += 1
        return httpx2.Response(200, content=self._sent())

    async def _sent(self) -> AsyncIterator[bytes]:
        while (piece := await self.pieces.get()) is not None:
            yield piece

    def send(self, *pieces: bytes | None) -> None:
        for piece in pieces:
            self.pieces.put_nowait(piece)


@dataclass
class Client:
    """One request: what came of its answer so far."""

    answer: asyncio.Task[None]
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    async def has(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.body) < count:
                await asyncio.sleep(0.001)


@dataclass
class Near:
    app: PullThrough
    far: Far
    stored: Path

    def ask(self, **headers: str) -> Client:
        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": FILE, "raw_path": FILE.encode(), "query_string": b"", "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                client.status, client.headers = message["status"], dict(message["headers"])
            else:
                client.body += message.get("body", b"")

        client = Client(asyncio.ensure_future(self.app(scope, receive, send)))
        return client


@asynccontextmanager
async def hubs(root: Path) -> AsyncIterator[Near]:
    app, far = create_app(root), Far()
    upstream = Upstream(app.state.hub, "http://far", transport=far)
    yield Near(PullThrough(app, upstream), far, root / "objects" / SHA256[:2] / SHA256)
    close_app(app)


def play(scenario: Callable[[Near], Awaitable[None]], root: Path) -> None:
    async def run() -> None:
        async with hubs(root) as near, asyncio.timeout(60):
            await scenario(near)

    asyncio.run(run())


def test_it_is_sent_on_while_it_comes(tmp_path: Path) -> None:
    async def scenario(near: Near) -> None:
        first = near.ask()
        near.far.send(DATA[:1_500_000])
        await first.has(1_000_000)
        assert not near.stored.exists() and first.status == 200
        assert first.headers[b"content-length"] == str(len(DATA)).encode()
        assert first.headers[b"x-repo-commit"] == COMMIT.encode()
        second = near.ask()  # it comes once for both
        await second.has(1_000_000)
        gone = near.ask()
        await gone.has(1)
        gone.answer.cancel()
        near.far.send(DATA[1_500_000:])
        await first.has(len(DATA) - 1)
        assert len(first.body) == len(DATA) - 1  # no last byte before all are known to be right
        near.far.send(None)
        await asyncio.gather(first.answer, second.answer)
        assert bytes(first.body) == bytes(second.body) == DATA
        assert near.stored.read_bytes() == DATA and near.far.fetched == 1
        later = near.ask()
        await later.answer
        assert bytes(later.body) == DATA and near.far.fetched == 1

    play(scenario, tmp_path / "near")


def test_it_comes_also_where_who_asked_has_gone(tmp_path: Path) -> None:
    async def scenario(near: Near) -> None:
        client = near.ask()
        near.far.send(DATA[:1_500_000])
        await client.has(1)
        client.answer.cancel()
        near.far.send(DATA[1_500_000:], None)
        while not near.stored.exists():
            await asyncio.sleep(0.001)
        assert near.stored.read_bytes() == DATA

    play(scenario, tmp_path / "near")


@pytest.mark.parametrize(
    "sent", [DATA[:-1], DATA[:-1] + b"x", DATA + b"x"], ids=["short", "changed", "long"]
)
def test_what_is_not_right_is_broken_off_and_not_kept(sent: bytes, tmp_path: Path) -> None:
    async def scenario(near: Near) -> None:
        client = near.ask()
        near.far.send(sent[:1_500_000])
        await client.has(1)
        near.far.send(sent[1_500_000:], None)
        with pytest.raises(BrokenOff):
            await client.answer
        assert len(client.body) < len(DATA) and not near.stored.exists()
        again = near.ask()
        near.far.send(DATA, None)
        await again.answer
        assert bytes(again.body) == DATA

    play(scenario, tmp_path / "near")


def test_a_part_is_sent_when_all_is_here(tmp_path: Path) -> None:
    async def scenario(near: Near) -> None:
        client = near.ask(range="bytes=5-9")
        near.far.send(DATA[:1_500_000], DATA[1_500_000:], None)
        await client.answer
        assert (client.status, bytes(client.body)) == (206, DATA[5:10])

    play(scenario, tmp_path / "near")


def test_nothing_is_promised_before_anything_came(tmp_path: Path) -> None:
    async def scenario(near: Near) -> None:
        client = near.ask()
        near.far.send(None)
        await client.answer
        assert client.status == 500 and b"missing or damaged" in client.body

    play(scenario, tmp_path / "near")
