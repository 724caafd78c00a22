"""Ranges, caching headers and errors of a file, as HTTP has them."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.server.api.sending import Sending
from server_helpers import InProcess, Server, token

DATA = bytes(range(256)) * 5
FILE = "/team/mini/resolve/main/data.txt"


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    root = tmp_path_factory.mktemp("stocked")
    ann = token(root, "ann", "write", ["team"])
    with InProcess(root) as hub:
        body = {"name": "mini", "organization": "team"}
        assert hub.ask("POST", "/api/repos/create", body, ann).status == 200
        assert hub.commit(ann, {"data.txt": DATA, "empty.txt": b""}).status == 200
        yield hub


def test_head_says_what_get_sends(stocked: InProcess) -> None:
    head, get = stocked.ask("HEAD", FILE), stocked.ask("GET", FILE)
    assert head.headers == get.headers
    assert (head.body, get.body) == (b"", DATA)
    blob = b"blob %d\0" % len(DATA) + DATA
    assert head.headers["etag"] == f'"{hashlib.sha1(blob).hexdigest()}"'
    assert head.headers["content-length"] == str(len(DATA))
    assert len(head.headers["x-repo-commit"]) == 40
    assert "x-xet-hash" not in head.headers


@settings(deadline=None)
@given(st.integers(0, 2000), st.one_of(st.none(), st.integers(0, 2000)))
def test_a_range_is_what_it_says(stocked: InProcess, first: int, last: int | None) -> None:
    asked = f"bytes={first}-{'' if last is None else last}"
    answer = stocked.ask("GET", FILE, headers={"Range": asked})
    if last is not None and last < first:
        assert (answer.status, answer.body) == (200, DATA)
    elif first >= len(DATA):
        assert answer.status == 416
        assert answer.headers["content-range"] == f"bytes */{len(DATA)}"
    else:
        assert answer.status == 206
        assert answer.body == DATA[first : None if last is None else last + 1]
        end = first + len(answer.body) - 1
        assert answer.headers["content-range"] == f"bytes {first}-{end}/{len(DATA)}"


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ("bytes=-3", 206, DATA[-3:]),
        ("bytes=-99999", 206, DATA),
        ("bytes=-0", 416, None),
        ("bytes=0-1,3-4", 200, DATA),  # several at once may be ignored
        ("bytes=-", 200, DATA),
        ("bites=0-1", 200, DATA),
        ("bytes=0-" + "9" * 400, 200, DATA),
        ("bytes=\u0660-\u0661".encode().decode("latin-1"), 200, DATA),
    ],
)
def test_other_ranges(stocked: InProcess, asked: str, status: int, body: bytes | None) -> None:
    answer = stocked.ask("GET", FILE, headers={"Range": asked})
    assert answer.status == status
    assert body is None or answer.body == body


def test_conditions(stocked: InProcess) -> None:
    etag = stocked.ask("HEAD", FILE).headers["etag"]
    for same in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = stocked.ask("GET", FILE, headers={"If-None-Match": same})
        assert (answer.status, answer.body) == (304, b"")
    assert stocked.ask("GET", FILE, headers={"If-None-Match": '"x"'}).status == 200
    part = {"Range": "bytes=0-0", "If-Range": etag}
    assert stocked.ask("GET", FILE, headers=part).status == 206
    changed = {"Range": "bytes=0-0", "If-Range": '"x"'}  # then the whole file is right
    assert stocked.ask("GET", FILE, headers=changed).status == 200
    assert stocked.ask("HEAD", FILE, headers={"Range": "bytes=0-0"}).status == 200


def test_an_empty_file(stocked: InProcess) -> None:
    path = "/team/mini/resolve/main/empty.txt"
    assert stocked.ask("GET", path).body == b""
    assert stocked.ask("GET", path, headers={"Range": "bytes=0-"}).status == 416


def test_a_browser_does_not_run_it(stocked: InProcess) -> None:
    headers = stocked.ask("GET", FILE).headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/team/mini/resolve/main/no.txt", "EntryNotFound"),
        ("/team/mini/resolve/main/..%2f..%2fhub.sqlite3", "EntryNotFound"),
        ("/team/mini/resolve/v9/data.txt", "RevisionNotFound"),
        ("/Team/mini/resolve/main/data.txt", "RepoNotFound"),
        ("/team/other/resolve/main/data.txt", "RepoNotFound"),
        ("/datasets/team/mini/resolve/main/data.txt", "RepoNotFound"),
        ("/gpt2/resolve/main/data.txt", "RepoNotFound"),
    ],
)
def test_what_is_missing_has_a_code(stocked: InProcess, path: str, code: str) -> None:
    answer = stocked.ask("GET", path)
    assert answer.status == 404
    assert answer.headers["x-error-code"] == code
    assert answer.json()["error"]
    if code == "EntryNotFound":  # the client remembers for this commit that there is no such file
        assert len(answer.headers["x-repo-commit"]) == 40


def test_a_large_file_streams_at_the_same_memory(served: tuple[Server, Path]) -> None:
    server, root = served
    ann = token(root, "ann", "write", ["team"])
    size = 200 * 2**20
    upload(server, ann, "small", 2**20)
    before = memory(server)
    upload(server, ann, "big", size)
    found = [0] * 4
    threads = [threading.Thread(target=fetch, args=(server, found, n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [size] * 4
    assert memory(server) - before < 24 * 2**20


def upload(server: Server, token: str, name: str, size: int) -> None:
    """A new repository team/`name` with the file big.bin: `size` zeros."""
    piece, digest = bytes(2**20), hashlib.sha256()
    for _ in range(size // len(piece)):
        digest.update(piece)
    call(server, token, "/api/repos/create", {"name": name, "organization": "team"})
    batch = {"operation": "upload", "objects": [{"oid": digest.hexdigest(), "size": size}]}
    answered = call(server, token, f"/team/{name}.git/info/lfs/objects/batch", batch)
    request = urllib.request.Request(
        answered["objects"][0]["actions"]["upload"]["href"],
        (piece for _ in range(size // len(piece))),  # type: ignore[arg-type]
        {"Content-Length": str(size)},
        method="PUT",
    )
    urllib.request.urlopen(request, timeout=60).close()
    value = {"path": "big.bin", "algo": "sha256", "oid": digest.hexdigest()}
    lines = [{"key": "header", "value": {"summary": "big"}}, {"key": "lfsFile", "value": value}]
    body = "\n".join(map(json.dumps, lines)).encode()
    call(server, token, f"/api/models/team/{name}/commit/main", body)


def fetch(server: Server, found: list[int], number: int) -> None:
    with urllib.request.urlopen(f"{server.url}/team/big/resolve/main/big.bin") as answer:
        while piece := answer.read(2**20):
            found[number] += len(piece)


def test_a_client_that_leaves_stops_the_sending(served: tuple[Server, Path]) -> None:
    """The file is larger than what sockets hold, so that its sending cannot have ended."""
    server, root = served
    ann = token(root, "ann", "write", ["team"])
    upload(server, ann, "left", 50 * 2**20)
    url = f"{server.url}/team/left/resolve/main/big.bin"
    for _ in range(5):
        with urllib.request.urlopen(url) as answer:
            answer.read(1000)
            assert being_sent(server)
    deadline = time.monotonic() + 30
    while being_sent(server):
        assert time.monotonic() < deadline, "it goes on sending"
        time.sleep(0.05)


def being_sent(server: Server) -> list[Path]:
    """The objects that the server has open."""
    found = []
    for path in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(path.readlink())
    return [path for path in found if "objects" in path.parts]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_object_that_vanishes_is_said(
    stocked: InProcess, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """At any moment: before it is looked for, and between that and its opening."""
    stored = stocked.app.state.hub.objects.path(hashlib.sha256(DATA).hexdigest())
    is_sound = Sending.is_sound
    for moment in range(3):
        for _ in range(2):  # hashed, and from now on remembered
            assert stocked.ask("GET", FILE).status == 200
        looks = 0

        def look(self: Sending, moment: int = moment) -> bool:
            nonlocal looks
            looks += 1
            found = is_sound(self)
            if looks == moment:
                stored.unlink()
            return found

        monkeypatch.setattr(Sending, "is_sound", look)
        try:
            if moment == 0:
                stored.unlink()
            answer = stocked.ask(method, FILE)
        finally:
            stored.write_bytes(DATA)
        if method == "GET":
            assert answer.status == 500
            assert "missing or damaged" in answer.json()["error"]
            assert "missing or damaged" in answer.headers["x-error-message"]
        else:
            assert answer.status == 200  # not checked


def memory(server: Server) -> int:
    """The most memory the server has held so far, in bytes."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def call(server: Server, token: str, path: str, body: object) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(server.url + path, data, headers)) as answer:
        return json.loads(answer.read())
