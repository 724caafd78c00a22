"""No client can make the server wait, hold or do without end: every limit, met."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import logging
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from secondary_learners.server.api import contents as contents_api
from secondary_learners.server.api import uploads as uploads_api
from secondary_learners.server.api import web as web_api
from secondary_learners.server.app import Front
from secondary_learners.server.errors import Refused
from secondary_learners.server.logs import Repeats
from secondary_learners.server.memory import Held, Memory
from secondary_learners.server.protocol import BoundedProtocol, Deadlines
from secondary_learners.server.server import Address
from secondary_learners.server.store import trees
from secondary_learners.server.store.limits import Limits
from secondary_learners.server.store.names import check_new_path, check_path
from server_helpers import InProcess, running, token
from xet_helpers import LZ4, chunk, shard

COMMIT = "/api/models/team/mini/commit/main"
CREATE = {"name": "mini", "organization": "team"}


@pytest.fixture
def writer(hub: InProcess, ann: str) -> str:
    assert hub.ask("POST", "/api/repos/create", CREATE, ann).status == 200
    return ann


class TestSlowClients:
    """The protocol with a transport of its own and a clock in the test's hands."""

    @pytest.fixture
    def loop(self) -> Iterator[asyncio.AbstractEventLoop]:
        loop = asyncio.new_event_loop()
        yield loop
        loop.close()

    @pytest.fixture
    def state(self) -> ServerState:
        return ServerState()

    def connect(
        self, loop: asyncio.AbstractEventLoop, state: ServerState, answer: Any = None
    ) -> tuple[BoundedProtocol, Transport]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if answer is not None:
                await answer(scope, receive, send)
            else:
                await asyncio.Event().wait()

        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
        config.load()
        protocol = BoundedProtocol(config=config, server_state=state, app_state={}, _loop=loop)
        transport = Transport()
        protocol.connection_made(transport)
        protocol._since = 0.0
        return protocol, transport

    def turn(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(5):
            loop.run_until_complete(asyncio.sleep(0))

    def end(self, loop: asyncio.AbstractEventLoop, state: ServerState) -> None:
        for task in list(state.tasks):
            task.cancel()
        self.turn(loop)

    @pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
    def test_a_head_that_does_not_come(
        self, loop: asyncio.AbstractEventLoop, state: ServerState, sent: bytes
    ) -> None:
        protocol, transport = self.connect(loop, state)
        protocol.data_received(sent)
        protocol.hang_up_if_late(1)
        for now in range(2, 21):
            protocol.data_received(b"X: y\r\n" if sent else b"")  # bytes alone are no head
            protocol.hang_up_if_late(now)
        assert not transport.aborted
        protocol.hang_up_if_late(22)
        assert transport.aborted

    @pytest.mark.parametrize(("bytes_a_second", "late"), [(10, True), (2000, False)])
    def test_a_body_that_drips(
        self,
        loop: asyncio.AbstractEventLoop,
        state: ServerState,
        bytes_a_second: int,
        late: bool,
    ) -> None:
        async def take(scope: Any, receive: Any, send: Any) -> None:
            while (await receive())["more_body"]:
                pass

        protocol, transport = self.connect(loop, state, take)
        head = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
        protocol.data_received(head)
        for now in range(1, 200):
            self.turn(loop)
            protocol.hang_up_if_late(now)
            if not transport.aborted:
                protocol.data_received(b"x" * bytes_a_second)
        assert transport.aborted == late
        self.end(loop, state)

    def test_an_answer_that_nobody_reads(
        self, loop: asyncio.AbstractEventLoop, state: ServerState
    ) -> None:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})

        protocol, transport = self.connect(loop, state, answer)
        protocol.pause_writing()
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.turn(loop)
        for now in range(1, 122):
            protocol.hang_up_if_late(now)
        assert not transport.aborted
        protocol.hang_up_if_late(122)
        assert transport.aborted
        self.end(loop, state)

    def test_a_body_after_its_answer(
        self, loop: asyncio.AbstractEventLoop, state: ServerState
    ) -> None:
        async def refuse(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body"})

        protocol, transport = self.connect(loop, state, refuse)
        protocol.data_received(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        for now in range(1, 70):
            self.turn(loop)
            protocol.hang_up_if_late(now)
            assert transport.aborted == (now > 61)
            if not transport.aborted:
                protocol.data_received(b"x" * 100_000)  # however fast
        self.end(loop, state)

    def test_a_server_at_work_is_waited_for(
        self, loop: asyncio.AbstractEventLoop, state: ServerState
    ) -> None:
        protocol, transport = self.connect(loop, state)  # it does not answer
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for now in range(1, 10_000, 100):
            self.turn(loop)
            protocol.hang_up_if_late(now)
        assert not transport.aborted
        self.end(loop, state)

    def test_too_many_connections(
        self,
        loop: asyncio.AbstractEventLoop,
        state: ServerState,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body"})

        monkeypatch.setattr(BoundedProtocol, "most_connections", 2)
        idle, first = self.connect(loop, state, answer)
        idle.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.turn(loop)
        _, second = self.connect(loop, state)
        _, third = self.connect(loop, state)
        assert first.closed and not (second.closed or third.closed)  # who is idle makes room
        _, fourth = self.connect(loop, state)
        assert fourth.closed and fourth.written.startswith(b"HTTP/1.1 503 ")
        head, _, body = fourth.written.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head
        idle._unset_keepalive_if_required()


class Transport(asyncio.Transport):
    """Where a protocol writes to in these tests."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = self.closed = False
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def test_every_deadline_has_a_name_of_what_it_is_for() -> None:
    assert {"head", "body", "answer", "rest"} < set(vars(Deadlines()))


def test_open_files_do_not_grow(tmp_path: Path) -> None:
    """Threads come and go, and with each burst their connections to the database were left."""
    root = tmp_path / "hub"
    ann = token(root, "ann", "write")

    def one(host: str) -> int:
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("GET", "/api/models/ann/r/tree/main?recursive=1")
        status = connection.getresponse().status
        connection.close()
        return status

    with InProcess(root) as hub:
        assert hub.ask("POST", "/api/repos/create", {"name": "r"}, ann).status == 200
        database = hub.app.state.hub.database
        with ThreadPoolExecutor(50) as pool:  # each thread is new to the database
            list(pool.map(lambda _: database.row("SELECT 1"), range(500)))
        assert len(database._idle) <= 8
    with running(root) as server:
        host = server.url.removeprefix("http://")
        with ThreadPoolExecutor(60) as pool:
            statuses = Counter(pool.map(lambda _: one(host), range(300)))
        assert statuses[200] == 300
        links = [os.readlink(path) for path in Path(f"/proc/{server.process.pid}/fd").iterdir()]
        assert sum("hub.sqlite3-wal" in link for link in links) <= 10


@pytest.mark.parametrize(
    "path",
    [
        *("/api/models/%00/pub", "/api/models/a%00b/pub", "/a%7fb/x/resolve/main/f"),
        *("/a%01b/x/resolve/main/f", "/api/models/alice/x%08y/refs", "/api/models/%0bz"),
        *("/api/datasets/a/b%1f/tree/main", "/%0d%0aX-A:b/c/resolve/main/f"),
    ],
)
def test_control_characters_in_names(tmp_path: Path, path: str) -> None:
    with InProcess(tmp_path / "hub") as hub:
        answer = hub.ask("GET", path)
    assert answer.status == 404 and answer.json()["error"]
    assert not re.search(r"[\x00-\x1f\x7f]", answer.headers["x-error-message"])


class TestPathsInfo:
    PATHS = "/api/models/team/mini/paths-info/main"

    def test_the_same_folder_costs_once(
        self, hub: InProcess, writer: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = {f"f/{number % 7}/{number}.txt": b"x" for number in range(200)}
        assert hub.commit(writer, files).status == 200
        read, entries = [0], trees.entries

        def counting(*given: Any) -> Any:
            read[0] += 1
            return entries(*given)

        monkeypatch.setattr(trees, "entries", counting)
        body = "&".join(["paths=f"] * 300 + [f"paths=f/{n}" for n in range(7)] * 40).encode()
        answer = hub.ask("POST", self.PATHS, body)
        assert [row["path"] for row in answer.json()] == ["f", *(f"f/{n}" for n in range(7))]
        assert read[0] == 1

    def test_how_many_are_expanded(
        self, hub: InProcess, writer: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert hub.commit(writer, {f"{n}.txt": b"x" for n in range(4)}).status == 200
        monkeypatch.setattr(contents_api, "_EXPANDED_PATHS", 3)
        asked = [f"paths={n}.txt" for n in range(4)]
        assert hub.ask("POST", self.PATHS, "&".join(asked).encode()).status == 200
        for count, status in ((3, 200), (4, 400)):
            body = "&".join([*asked[:count], "expand=true"]).encode()
            assert hub.ask("POST", self.PATHS, body).status == status


class TestMemory:
    def test_what_is_held_together_has_a_ceiling(self) -> None:
        memory = Memory(10 * 2**20)
        first, second, small = Held(memory), Held(memory), Held(memory)
        first.set(9 * 2**20)
        second.set(2 * 2**20)
        with pytest.raises(Refused) as refused:
            second.set(9 * 2**20)
        assert refused.value.status == 503 and "Retry-After" in refused.value.headers
        small.set(2**20)  # never in the way of those
        first.set(0)
        second.set(9 * 2**20)
        for held in (first, second, small):
            held.release()
        assert memory.used == 0

    def test_a_request_that_finds_no_room(self, tmp_path: Path) -> None:
        ann = token(tmp_path / "hub", "ann", "write", ["team"])
        with InProcess(tmp_path / "hub", Limits(memory=2**20)) as hub:
            assert hub.ask("POST", "/api/repos/create", CREATE, ann).status == 200
            body = {"content": "x" * 3 * 2**20}
            assert hub.ask("POST", "/api/validate-yaml", body).status == 503
            large = {f"{n}.txt": bytes([n]) * 2**19 for n in range(8)}
            assert hub.commit(ann, large).status == 503
            assert list((tmp_path / "hub" / "incoming").iterdir()) == []
            assert hub.commit(ann, {"a.txt": b"small"}).status == 200  # all was given back


@pytest.mark.slow
class TestManyFiles:
    @pytest.mark.skipif(sys.platform != "linux", reason="the call for all at once is Linux's")
    def test_thousands_in_one_commit(
        self, hub: InProcess, writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Their contents come to disk all at once, and the tree is not written twice."""
        waits, fsync = [0], os.fsync

        def counting(descriptor: int) -> None:
            waits[0] += 1
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", counting)
        database = tmp_path / "hub" / "hub.sqlite3"
        files = {f"d{n % 40}/{n}.txt": str(n).encode() for n in range(3_000)}
        assert hub.commit(writer, files).status == 200
        assert waits[0] < 10  # it was one a file, and two minutes
        size = self.size(hub, database)
        for number in range(5):
            assert hub.commit(writer, {"one.txt": str(number).encode()}).status == 200
        assert self.size(hub, database) - size < 100_000  # it was the whole tree a commit
        rows = hub.ask("GET", "/api/models/team/mini").json()["siblings"]
        assert len(rows) == 3_002
        assert hub.ask("GET", "/team/mini/resolve/main/d39/2999.txt").body == b"2999"

    def size(self, hub: InProcess, database: Path) -> int:
        with hub.app.state.hub.database.transaction():
            pass
        hub.app.state.hub.database.row("PRAGMA wal_checkpoint(TRUNCATE)")
        return database.stat().st_size

    def test_a_long_line_of_commits_reads_as_it_was(self, hub: InProcess, writer: str) -> None:
        """Past the commits whose whole tree is stored, with deletions, on two branches."""
        heads = []
        for number in range(125):
            files = {f"{number % 11}.txt": str(number).encode(), "same.txt": b"same"}
            heads.append(hub.commit(writer, files).json()["commitOid"])
        for number in (0, 99, 100, 101, 110, 124):
            url = f"/api/models/team/mini/revision/{heads[number]}"
            names = {row["rfilename"] for row in hub.ask("GET", url).json()["siblings"]}
            count = min(number + 1, 11)
            assert names == {".gitattributes", "same.txt", *(f"{n}.txt" for n in range(count))}
            for n in range(count):
                newest = max(at for at in range(number + 1) if at % 11 == n)
                path = f"/team/mini/resolve/{heads[number]}/{n}.txt"
                assert hub.ask("GET", path).body == str(newest).encode()
        depth = hub.app.state.hub.database.row("SELECT max(depth) FROM commits")[0]
        assert 50 < depth <= 101

    def test_a_refused_commit_stops_nobody(self, hub: InProcess, writer: str) -> None:
        """Small files are in memory until the commit is whole: there is nothing to tidy up."""
        objects = hub.app.state.hub.objects
        contents = objects.contents()
        for number in range(1000):
            contents.add(str(number).encode())
        assert list(objects._incoming.iterdir()) == []
        contents.close()


class TestPortableNames:
    @pytest.mark.parametrize(
        "path",
        [
            *("CON", "con.txt", "a/nul", "lpt1.tar.gz", "COM¹", "aux .txt", "conin$", "a?", "a*b"),
            *('a"', "<a>", "a|b", "c:", "a.", "a/b ", "dir./x", "/".join(["d"] * 33)),
        ],
    )
    def test_what_windows_cannot_hold(self, hub: InProcess, writer: str, path: str) -> None:
        answer = hub.commit(writer, {"good.txt": b"1", path: b"2"})
        assert answer.status == 400
        assert check_path(path) == path  # an old one can still be read and deleted

    @pytest.mark.parametrize("path", ["contents", "console.txt", "a.b", ".x", "com10", "nullable"])
    def test_what_it_can(self, path: str) -> None:
        assert check_new_path(path) == path

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("Readme.txt", "README.TXT"),
            ("é.txt", "e\u0301.txt"),
            ("Straße", "STRASSE"),
            ("A/x", "a"),
            ("a", "A/x"),
            ("É/x", "e\u0301"),
        ],
    )
    def test_names_that_are_one_there(
        self, hub: InProcess, writer: str, first: str, second: str
    ) -> None:
        both = hub.commit(writer, {first: b"1", second: b"2"})
        assert both.status == 400 and "Windows and macOS" in both.json()["error"]
        assert hub.commit(writer, {first: b"1"}).status == 200
        assert hub.commit(writer, {second: b"2"}).status == 400
        assert hub.commit(writer, {first: b"3"}).status == 200


class TestHosts:
    @pytest.mark.parametrize(
        ("host", "status"),
        [
            *((name, 200) for name in ("localhost", "127.0.0.1:8080", "[::1]:8080", "127.9.9.9")),
            *((name, 200) for name in ("LOCALHOST:1", "hub.team.org", "hub.team.org:443")),
            *((name, 421) for name in ("evil.example", "localhost.evil.example", "10.0.0.1")),
            *((name, 421) for name in ("127.0.0.1.evil.example:8080", "[::2]", "")[:2]),
        ],
    )
    def test_on_loopback(self, tmp_path: Path, host: str, status: int) -> None:
        address = Address("127.0.0.1", 8080, ("hub.team.org",))
        with InProcess(tmp_path / "hub", front=Front(address.known_names)) as hub:
            for _ in range(2):  # known by then
                answer = hub.ask("GET", "/api/models", headers={"Host": host})
                assert answer.status == status
            if status == 421:
                assert "--allow-host" in answer.json()["error"]

    def test_elsewhere_any_name_unless_some_are_named(self) -> None:
        assert Address("0.0.0.0", 8080).known_names is None
        assert Address("0.0.0.0", 8080, ("hub",)).known_names == ("0.0.0.0", "hub")
        assert Address("localhost", 8080).known_names == ("localhost",)


class TestLog:
    def record(self, error: Exception | None, message: str = "failed") -> logging.LogRecord:
        info = (type(error), error, error.__traceback__) if error else None
        return logging.LogRecord("x", logging.ERROR, "f", 1, message, (), info)

    def test_a_repeated_failure_is_one_line_a_minute(self) -> None:
        now = [0.0]
        repeats = Repeats(lambda: now[0])

        def fail(name: str) -> Exception:
            try:
                raise OSError(f"no room for {name}")
            except OSError as error:
                return error

        shown = [repeats.filter(self.record(fail(str(n)))) for n in range(1000)]
        assert shown == [True] + [False] * 999
        assert repeats.filter(self.record(None, "another"))
        assert not repeats.filter(self.record(None, "another"))
        now[0] = 61.0
        record = self.record(fail("again"))
        assert repeats.filter(record)
        assert record.getMessage() == "failed (999 more of this since)"

    def test_what_is_remembered_has_a_ceiling(self) -> None:
        repeats = Repeats(lambda: 0.0)
        for number in range(5000):
            repeats.filter(self.record(None, str(number)))
        assert len(repeats._last) <= 1000


class TestXet:
    """A file is made of chunks that were sent: how often each, the shard says."""

    @pytest.mark.parametrize(("times", "status"), [(2, 200), (5, 413), (1490, 413)])
    def test_a_shard_makes_no_gigabytes_of_kilobytes(
        self, hub: InProcess, writer: str, times: int, status: int
    ) -> None:
        zeros = b"\0" * 131072
        body = chunk(zeros, LZ4) * 512
        assert len(body) < 500_000
        answer = hub.ask("GET", "/api/models/team/mini/xet-write-token/main", token=writer).json()
        base, key = answer["casUrl"].removeprefix("http://hub.test"), answer["accessToken"]
        sent = hub.ask("POST", f"{base}/v1/xorbs/default/{'ab' * 32}", body, key)
        assert sent.status == 200
        whole = ("ab" * 32, 512 * len(zeros), 0, 512)
        digest = hashlib.sha256(zeros * 512 * times if times < 5 else b"").hexdigest()
        stored = hub.ask("POST", f"{base}/v1/shards", shard((digest, [whole] * times)), key)
        assert stored.status == status
        if status == 413:
            assert "HF_HUB_DISABLE_XET=1" in stored.json()["error"]


class TestTheLoop:
    """Who asks for much does not make others wait: it is worked out beside the event loop."""

    @pytest.mark.parametrize("what", ["preupload", "batch", "paths-info", "json"])
    def test_large_requests_leave_it(
        self, hub: InProcess, writer: str, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        assert hub.commit(writer, {f"{n}.txt": b"x" for n in range(150)}).status == 200
        loop, inside = threading.get_ident(), list[bool]()

        def noting(call: Any) -> Any:
            def noted(*given: Any, **named: Any) -> Any:
                inside.append(threading.get_ident() == loop)
                return call(*given, **named)

            return noted

        for module, name in (
            (uploads_api, "check_path"),
            (uploads_api, "granted"),
            (contents_api, "select"),
        ):
            monkeypatch.setattr(module, name, noting(getattr(module, name)))
        if what == "preupload":
            files = [{"path": f"{n}.txt", "size": 1, "sample": "eA=="} for n in range(200)]
            answer = hub.ask("POST", f"{MINI}/preupload/main", {"files": files}, writer)
            assert [file["uploadMode"] for file in answer.json()["files"]] == ["regular"] * 200
        elif what == "batch":
            objects = [{"oid": f"{n:064x}", "size": 1} for n in range(200)]
            body = {"operation": "upload", "objects": objects}
            answer = hub.ask("POST", "/team/mini.git/info/lfs/objects/batch", body, writer)
        elif what == "paths-info":
            body = "&".join(f"paths={n}.txt" for n in range(150)).encode()
            answer = hub.ask("POST", f"{MINI}/paths-info/main", body)
            assert len(answer.json()) == 150
        else:
            monkeypatch.setattr(web_api, "_object", noting(web_api._object))
            answer = hub.ask("POST", "/api/validate-yaml", {"content": "x" * 100_000})
        assert answer.status == 200
        assert inside and not any(inside)


MINI = "/api/models/team/mini"
