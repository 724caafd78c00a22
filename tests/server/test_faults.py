"""The server is killed at any moment, and many write at once: nothing is lost, nothing is half."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import random
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError

from secondary_learners.server.store.tokens import list_tokens
from server_helpers import InProcess, Server, running, token

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(autouse=True)
def plain_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


class Writer:
    """Commits again and again, each time a large and a small file that say the same number.

    It speaks HTTP without retries, so that it stops where the server was killed. A step is a piece
    that was sent or an answer that came: a commit has 15 of them, 12 of them pieces.
    """

    def __init__(self, server: Server, token: str, start: int) -> None:
        self._host = server.url.removeprefix("http://")
        self._token, self._next = token, start
        self.answered: list[int] = []
        self.cut = False
        self._steps, self._stepped = 0, threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while True:
                self._commit(self._next)
                self.answered.append(self._next)
                self._next += 1
        except (OSError, http.client.HTTPException):
            self.cut = True

    def wait_for(self, steps: int) -> None:
        with self._stepped:
            assert self._stepped.wait_for(lambda: self._steps >= steps, timeout=120)

    def _step(self) -> None:
        with self._stepped:
            self._steps += 1
            self._stepped.notify_all()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), 2**18):
            yield data[at : at + 2**18]
            self._step()

    def _commit(self, number: int) -> None:
        data = large(number)
        sha256 = hashlib.sha256(data).hexdigest()
        objects = {"operation": "upload", "objects": [{"oid": sha256, "size": len(data)}]}
        batch = self._send("POST", "/team/mini.git/info/lfs/objects/batch", json.dumps(objects))
        actions = json.loads(batch)["objects"][0].get("actions")
        if actions:
            self._send("PUT", actions["upload"]["href"].split(self._host, 1)[1], self.pieces(data))
        small = base64.b64encode(str(number).encode()).decode()
        lines = [
            {"key": "header", "value": {"summary": f"number {number}"}},
            {
                "key": "lfsFile",
                "value": {"path": f"{number}/large.bin", "algo": "sha256", "oid": sha256},
            },
            {
                "key": "file",
                "value": {"path": f"{number}/small.txt", "content": small, "encoding": "base64"},
            },
        ]
        body = "".join(json.dumps(line) + "\n" for line in lines)
        self._send("POST", "/api/models/team/mini/commit/main", body)

    def _send(self, method: str, path: str, body: Any) -> bytes:
        length = str(len(body) if isinstance(body, str) else LARGE)
        headers = {"authorization": f"Bearer {self._token}", "content-length": length}
        with closing(http.client.HTTPConnection(self._host, timeout=20)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        assert answer.status == 200, data
        self._step()
        return data


LARGE = 3 * 2**20


def large(number: int) -> bytes:
    return random.Random(number).randbytes(LARGE)


def check_whole(api: HfApi, cache: Path) -> set[int]:
    """Every commit holds both files of its number, right to the byte. Returns the numbers."""
    numbers = set()
    for commit in api.list_repo_commits("team/mini"):
        if not commit.title.startswith("number "):
            continue
        number = int(commit.title.split()[1])
        numbers.add(number)
        for name, data in (("large.bin", large(number)), ("small.txt", str(number).encode())):
            path = f"{number}/{name}"
            found = api.hf_hub_download(
                "team/mini", path, revision=commit.commit_id, cache_dir=cache
            )
            assert Path(found).read_bytes() == data
    files = {path for path in api.list_repo_files("team/mini") if "/" in path}
    both = {f"{number}/{name}" for number in numbers for name in ("large.bin", "small.txt")}
    assert files == both
    return numbers


def test_killed_at_any_moment(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    secret = token(root, "ann", "write", ["team"])
    start, answered = 0, set[int]()
    # Steps until the kill: amid a file, before and after its answer, and around a commit's.
    for round_, steps in enumerate((20, 3, 13, 14, 37, 1, 15, 29)):
        with running(root) as server:
            api = HfApi(server.url, token=secret)
            if round_ == 0:
                api.create_repo("team/mini")
            assert list((root / "incoming").iterdir()) == []  # what the kill left is swept up
            writer = Writer(server, secret, start)  # it begins with the number it was killed at
            writer.thread.start()
            writer.wait_for(steps)
            assert server.process.poll() is None
            server.kill()
            assert server.process.returncode == -signal.SIGKILL
            writer.thread.join(timeout=60)
            assert writer.cut and not writer.thread.is_alive()
            answered |= set(writer.answered)
            start = max(answered, default=-1) + 1
    with running(root) as server:
        api = HfApi(server.url, token=secret)
        numbers = check_whole(api, tmp_path / "cache")
        assert answered <= numbers  # what was answered is there
        assert numbers <= set(range(start + 1))
        retried = api.create_commit(
            "team/mini",
            [
                CommitOperationAdd(f"{start}/large.bin", large(start)),
                CommitOperationAdd(f"{start}/small.txt", str(start).encode()),
            ],
            commit_message=f"number {start}",
        )
        assert api.repo_info("team/mini").sha == retried.oid
        assert start in check_whole(api, tmp_path / "again")
    assert len(answered) >= 3  # one in the first round, two in the fifth


def test_an_upload_link_survives_a_restart(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    secret = token(root, "ann", "write", ["team"])
    data = large(1)
    sha256 = hashlib.sha256(data).hexdigest()
    with running(root) as server:
        HfApi(server.url, token=secret).create_repo("team/mini")
        writer = Writer(server, secret, 0)
        body = {"operation": "upload", "objects": [{"oid": sha256, "size": LARGE}]}
        batch = writer._send("POST", "/team/mini.git/info/lfs/objects/batch", json.dumps(body))
        href = json.loads(batch)["objects"][0]["actions"]["upload"]["href"]
        path = href.removeprefix(server.url)
        server.kill()
    with running(root) as server:
        again = Writer(server, secret, 0)
        again._send("PUT", path, again.pieces(data))
        assert (root / "objects" / sha256[:2] / sha256).read_bytes() == data
        assert server.stop() == 0


def test_sixteen_commits_on_one_parent(served: tuple[Server, Path]) -> None:
    server, root = served
    api = HfApi(server.url, token=token(root, "ann", "write", ["team"]))
    api.create_repo("team/race")
    head = api.repo_info("team/race").sha
    gate = threading.Barrier(16)

    def commit(number: int) -> str:
        gate.wait()
        operations = [CommitOperationAdd(f"{number}.txt", str(number).encode())]
        try:
            return api.create_commit(
                "team/race", operations, commit_message=f"{number}", parent_commit=head
            ).oid
        except HfHubHTTPError as error:
            return str(error.response.status_code)

    objects = set((root / "objects").rglob("*"))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(commit, range(16)))
    assert answers.count("412") == 15
    (oid,) = set(answers) - {"412"}
    assert api.repo_info("team/race").sha == oid
    winner = answers.index(oid)
    assert set(api.list_repo_files("team/race")) == {".gitattributes", f"{winner}.txt"}
    stored = [path for path in set((root / "objects").rglob("*")) - objects if path.is_file()]
    assert len(stored) == 1  # of the losers nothing stays


def test_sixteen_commits_without_a_parent_all_stay(served: tuple[Server, Path]) -> None:
    server, root = served
    api = HfApi(server.url, token=token(root, "ann", "write", ["team"]))
    api.create_repo("team/queue")

    def commit(number: int) -> str:
        data = str(number).encode()
        return api.upload_file(
            repo_id="team/queue", path_or_fileobj=data, path_in_repo=f"{number}.txt"
        ).oid

    with ThreadPoolExecutor(16) as pool:
        oids = set(pool.map(commit, range(16)))
    assert len(oids) == 16
    assert len(api.list_repo_files("team/queue")) == 17
    assert oids < {row.commit_id for row in api.list_repo_commits("team/queue")}


def test_one_root_has_one_server(served: tuple[Server, Path]) -> None:
    _, root = served
    with pytest.raises(AssertionError, match="did not start"), running(root):
        pass


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_a_full_disk_is_said_and_survived(served: tuple[Server, Path]) -> None:
    """A limit on the size of files stands for the disk: writing fails in the same place."""
    server, root = served
    api = HfApi(server.url, token=token(root, "ann", "write", ["team"]))
    api.create_repo("team/full")
    data = large(1)
    unlimited = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (2**20, unlimited[1]))
    with pytest.raises(RuntimeError) as error:
        api.upload_file(repo_id="team/full", path_or_fileobj=data, path_in_repo="w.bin")
    assert "disk is full" in str(error.value.__cause__)
    assert list((root / "incoming").iterdir()) == []
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, unlimited)
    api.upload_file(repo_id="team/full", path_or_fileobj=data, path_in_repo="w.bin")
    assert api.file_exists("team/full", "w.bin")


def test_a_full_database_is_said_and_survived(hub: InProcess, ann: str) -> None:
    with hub.app.state.hub.database.transaction() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(1000):
        answer = hub.ask("POST", "/api/repos/create", {"name": f"r{number}"}, ann)
        if answer.status != 200:
            break
    assert answer.status == 507 and "disk is full" in answer.json()["error"]
    assert hub.ask("GET", f"/api/models/ann/r{number}").status == 404  # no half of it
    with hub.app.state.hub.database.transaction() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert hub.ask("POST", "/api/repos/create", {"name": f"r{number}"}, ann).status == 200


def test_a_busy_database_is_said_and_survived(hub: InProcess, ann: str, tmp_path: Path) -> None:
    with hub.app.state.hub.database.transaction() as connection:
        connection.execute("PRAGMA busy_timeout = 0")  # rather than half a minute
    with closing(sqlite3.connect(tmp_path / "hub" / "hub.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = hub.ask("POST", "/api/repos/create", {"name": "busy"}, ann)
    assert answer.status == 503 and "Try again" in answer.json()["error"]
    assert hub.ask("POST", "/api/repos/create", {"name": "busy"}, ann).status == 200


def test_a_new_root_is_made_by_many_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; "
        "from secondary_learners.server.store.tokens import create_token; "
    )
    script += "create_token(Path(sys.argv[1]), sys.argv[2], 'write', ['team'])"
    command = [sys.executable, "-c", script, str(tmp_path / "hub")]
    many = [subprocess.Popen([*command, f"user{number}"]) for number in range(6)]
    assert [process.wait() for process in many] == [0] * 6
    assert len(list_tokens(tmp_path / "hub")) == 6


@pytest.mark.parametrize(
    "opening",
    [
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: ",
        "GET /",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: ",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["header", "path", "trailer", "extension"],
)
def test_a_head_without_end_is_hung_up_on(served: tuple[Server, Path], opening: str) -> None:
    server, _ = served
    host, _, port = server.url.removeprefix("http://").partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as connection,
        pytest.raises(ConnectionError),
    ):
        connection.sendall(opening.encode())
        for _ in range(1000):
            connection.sendall(b"a" * 65536)
    assert list(HfApi(server.url, token=False).list_models())
