"""The real server as a process of its own, tokens for it, and the application in process."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from starlette.types import ASGIApp

from secondary_learners.server.app import Front, close_app, create_app
from secondary_learners.server.store.limits import Limits
from secondary_learners.server.store.tokens import create_token

__all__ = ["Answer", "InProcess", "Server", "running", "token"]


@dataclass(frozen=True)
class Server:
    """A running server: its folder, where it is reached, and its process."""

    root: Path
    url: str
    process: subprocess.Popen[str]

    def kill(self) -> None:
        """SIGKILL: it has no chance to tidy up."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=40)


@contextmanager
def running(root: Path, *arguments: str) -> Iterator[Server]:
    """`learners serve ROOT` on a free port, accepting connections. It ends with the block."""
    command = [sys.executable, "-m", "secondary_learners", "serve", str(root), "--port", "0"]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith(f"Serving {root} on http://"), line or "the server did not start"
        yield Server(root, line.rsplit(" ", 1)[1].strip(), process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def token(root: Path, user: str, role: str, orgs: Sequence[str] = ()) -> str:
    return create_token(root, user, role, orgs)


@dataclass(frozen=True)
class Answer:
    """What the application answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    cookies: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)


class InProcess:
    """The application without a socket: it takes any bytes, thousands of requests a second."""

    def __init__(
        self, root: Path, limits: Limits | None = None, front: Front | None = None
    ) -> None:
        self.app = create_app(root, limits, front)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()
        close_app(self.app)

    def ask(
        self,
        method: str,
        target: str | bytes,
        body: object = b"",
        token: str = "",
        headers: Mapping[str, str] | Sequence[tuple[bytes, bytes]] = (),
        client: str = "127.0.0.1",
    ) -> Answer:
        """`target`: path and query as sent. `body`: bytes, or anything else as JSON."""
        raw = target if isinstance(target, bytes) else target.encode()
        path, _, query = raw.partition(b"?")
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        sent = [(_bytes(name).lower(), _bytes(value)) for name, value in pairs]
        if not any(name == b"host" for name, _ in sent):
            sent.append((b"host", b"hub.test"))
        if token:
            sent.append((b"authorization", f"Bearer {token}".encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": sent,
            "client": (client, 1),
            "server": ("127.0.0.1", 80),
        }
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._runner.run(_exchange(self.app, scope, data))

    def commit(
        self, token: str, files: Mapping[str, bytes], repository: str = "team/mini"
    ) -> Answer:
        """One commit on main with `files` sent inside it."""
        lines: list[object] = [{"key": "header", "value": {"summary": "files"}}]
        for path, data in files.items():
            content = base64.b64encode(data).decode()
            value = {"path": path, "content": content, "encoding": "base64"}
            lines.append({"key": "file", "value": value})
        body = "\n".join(map(json.dumps, lines)).encode()
        return self.ask("POST", f"/api/models/{repository}/commit/main", body, token)

    def upload(self, token: str, data: bytes, repository: str = "team/mini") -> str:
        """Send `data` ahead of a commit. Returns its sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        body = {"operation": "upload", "objects": [{"oid": sha256, "size": len(data)}]}
        batch = self.ask("POST", f"/{repository}.git/info/lfs/objects/batch", body, token)
        actions = batch.json()["objects"][0].get("actions")
        if actions:
            href = actions["upload"]["href"].removeprefix("http://hub.test")
            assert self.ask("PUT", href, data).status == 200
        return sha256


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


async def _exchange(app: ASGIApp, scope: dict[str, Any], body: bytes) -> Answer:
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)] or [b""]
    status, headers, answer = 0, {}, bytearray()
    cookies: dict[str, str] = {}

    async def receive() -> dict[str, Any]:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            for name, value in message["headers"]:
                assert b"\n" not in value and b"\r" not in value
                headers[name.decode("latin-1")] = value.decode("latin-1")
                if name == b"set-cookie":
                    cookie, _, _ = value.decode("latin-1").partition(";")
                    cookies.update([cookie.split("=", 1)])
        else:
            answer.extend(message.get("body", b""))

    await app(scope, receive, send)
    if scope["method"] != "HEAD" and "content-length" in headers and status != 304:
        assert int(headers["content-length"]) == len(answer)
    return Answer(status, headers, bytes(answer), cookies)
