"""The real client with hf_xet left on, as it is by default, against the real server."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from secondary_learners.server.store.database import Database
from secondary_learners.server.store.signing import sign
from server_helpers import Server, running, token
from xet_helpers import (
    GROUPED,
    LZ4,
    check_storage,
    chunk,
    client,
    done,
    sha256,
    shard,
    xorbs,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of every kind the client treats in its own way, by name."""
    folder = tmp_path_factory.mktemp("samples")
    rng = random.Random(0)
    noise = rng.randbytes(2_500_000)
    weights = b"".join(
        bytes((rng.getrandbits(8), rng.getrandbits(8), 120 + rng.getrandbits(2), 60))
        for _ in range(300_000)
    )
    contents = {
        "small.safetensors": b"thirty-three bytes of safetensors",
        "noise.bin": noise,
        "nearly.bin": noise[:2_000_000] + rng.randbytes(500_001),
        "text.txt": b"".join(b"line %d of a text that compresses\n" % n for n in range(340_000)),
        "zeros.bin": bytes(8_000_003),
        "weights.safetensors": weights,  # bytes of numbers: the client groups them by position
    }
    assert len(contents["text.txt"]) > 12_000_000
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: str(folder / name) for name in contents}


def digests(paths: dict[str, str]) -> dict[str, str]:
    return {name: sha256(Path(path).read_bytes()) for name, path in paths.items()}


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "plain"])
def test_files_arrive_byte_for_byte(samples: dict[str, str], tmp_path: Path, xet: bool) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    secret = token(root, "ann", "write", ["team"])
    folder = tmp_path / "folder"
    for number in range(20):
        (folder / str(number % 3)).mkdir(parents=True, exist_ok=True)
        path = folder / str(number % 3) / f"{number}.bin"
        path.write_bytes(random.Random(number).randbytes(1 + 997 * number))
    paths = {str(path.relative_to(folder)): str(path) for path in folder.rglob("*.bin")}
    nearly = {"nearly.bin": samples["nearly.bin"]}
    rest = {name: path for name, path in samples.items() if name not in nearly}
    again = {"copy/again.bin": samples["noise.bin"], "empty.bin": os.devnull}

    with running(root) as server:
        done(
            client(
                server,
                secret,
                home,
                {"do": "create", "repository": "ann/one"},
                {"do": "commit", "repository": "ann/one", "files": rest},
                {"do": "commit", "repository": "ann/one", "files": nearly, "bytes": True},
                {"do": "commit", "repository": "ann/one", "files": again, "bytes": True},
                xet=xet,
            )
        )
        sent = xorbs(root)
        assert bool(sent) == xet  # hf_xet did work here, or did not
        found = done(
            client(  # in a later process, that remembers what the earlier one has sent
                server,
                secret,
                home,
                {"do": "create", "repository": "team/two", "kind": "dataset"},
                {"do": "commit", "repository": "team/two", "kind": "dataset", "files": samples},
                {"do": "digests", "repository": "team/two", "kind": "dataset"},
                xet=xet,
            )
        )
        assert {**found, **digests(samples)} == found
        assert xorbs(root) == sent
        found = done(
            client(
                server,
                secret,
                home,
                {"do": "folder", "repository": "ann/one", "folder": str(folder)},
                {"do": "digests", "repository": "ann/one"},
                xet=xet,
            )
        )
        expected = digests(samples | again | paths)
        assert {**found, **expected} == found
        tree = httpx2.get(f"{server.url}/api/models/ann/one/tree/main").json()
        (noise,) = (entry for entry in tree if entry["path"] == "noise.bin")
        assert noise["lfs"]["oid"] == expected["noise.bin"]
        assert noise["lfs"]["size"] == 2_500_000
    check_storage(root)
    assert not list((root / "incoming").iterdir())


def test_who_may_not_write_is_refused_and_leaves_nothing(
    samples: dict[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    ann, reader = token(root, "ann", "write"), token(root, "ann", "read")
    stranger = token(root, "bob", "write")
    commit = {
        "do": "commit",
        "repository": "ann/one",
        "files": {"noise.bin": samples["noise.bin"]},
    }
    with running(root) as server:
        done(client(server, ann, tmp_path / "ann", {"do": "create", "repository": "ann/one"}))
        before = list(root.glob("objects/*/*"))
        for secret, said in ((reader, "403"), (stranger, "403"), ("sl_wrong", "401")):
            result = client(server, secret, tmp_path / "other", commit)
            assert result.returncode == 1
            assert said in result.stderr
            address = f"{server.url}/api/models/ann/one/xet-write-token/main"
            asked = httpx2.get(address, headers={"Authorization": f"Bearer {secret}"})
            assert str(asked.status_code) == said
        assert httpx2.get(address).status_code == 401
    assert list(root.glob("objects/*/*")) == before
    assert not xorbs(root)


def test_two_users_of_one_machine_do_not_meet(samples: dict[str, str], tmp_path: Path) -> None:
    """The client keeps one memory for all tokens: it must not name the other user's xorbs."""
    root, home = tmp_path / "root", tmp_path / "home"
    files = {"noise.bin": samples["noise.bin"]}
    with running(root) as server:
        for user in ("ann", "bob"):
            done(
                client(
                    server,
                    token(root, user, "write"),
                    home,
                    {"do": "create", "repository": f"{user}/one"},
                    {"do": "commit", "repository": f"{user}/one", "files": files},
                )
            )
    assert len(list(root.glob("xorbs/ann/*/*"))) == len(list(root.glob("xorbs/bob/*/*"))) == 1


def test_uploads_go_on_when_xorbs_are_lost_or_kept(samples: dict[str, str], tmp_path: Path) -> None:
    """The client remembers what it sent to an address. What it remembers is there, or it is given
    another address."""
    root, home = tmp_path / "root", tmp_path / "home"
    secret = token(root, "ann", "write")
    create = {"do": "create", "repository": "ann/one"}

    def upload(name: str) -> dict[str, Any]:
        return {"do": "commit", "repository": "ann/one", "files": {name: samples["noise.bin"]}}

    with running(root) as server:
        done(client(server, secret, home, create, upload("a.bin")))
        port = str(urlsplit(server.url).port)
        assert server.stop() == 0
    kept = xorbs(root)
    with running(root, "--port", port) as server:
        done(client(server, secret, home, upload("b.bin")))
        assert xorbs(root) == kept  # nothing was sent again
        shutil.rmtree(root / "xorbs")
        done(client(server, secret, home, upload("c.bin")))
        assert set(xorbs(root)) == set(kept)


class Raw:
    """A user who speaks the protocol by hand, as a careless or hostile client would."""

    def __init__(self, root: Path, server: Server, user: str) -> None:
        self.root, self.server, self.user = root, server, user
        self.secret = token(root, user, "write")
        self._headers = {"Authorization": f"Bearer {self.secret}"}
        made = httpx2.post(
            f"{server.url}/api/repos/create", json={"name": "one"}, headers=self._headers
        )
        assert made.status_code == 200
        self.renew()

    def renew(self) -> None:
        """Ask for an address and a token."""
        url = f"{self.server.url}/api/models/{self.user}/one/xet-write-token/main"
        answer = httpx2.get(url, headers=self._headers).json()
        assert answer["exp"] > time.time() + 60
        self.address, self.token = answer["casUrl"], answer["accessToken"]

    def post(self, path: str, body: bytes, token: str | None = None) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        return httpx2.post(f"{self.address}/v1/{path}", content=body, headers=headers)

    def xorb(self, name: str, body: bytes) -> httpx2.Response:
        return self.post(f"xorbs/default/{name}", body)


X, Y = "0123456789abcdef" * 4, "f" * 64


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[Raw, Raw]]:
    root = tmp_path / "root"
    with running(root, "--max-file-gb", "0.001") as server:
        yield Raw(root, server, "ann"), Raw(root, server, "bob")


@pytest.fixture
def ann(people: tuple[Raw, Raw]) -> Raw:
    return people[0]


def files_in(root: Path) -> set[str]:
    """All that is stored but the database."""
    folders = ("objects", "incoming", "xorbs")
    return {str(path) for name in folders for path in (root / name).rglob("*") if path.is_file()}


def test_what_a_shard_may_not_say(ann: Raw) -> None:
    content = b"hello " * 100
    assert ann.xorb(X, chunk(content, LZ4) + chunk(b"end", GROUPED)).json() == {
        "was_inserted": True
    }
    right = sha256(content + b"end")
    before = files_in(ann.root)
    for body, said in (
        (b"", "cut short"),
        (os.urandom(500), "not a shard"),
        (shard((right, [(Y, 603, 0, 2)])), f"xorb {Y} has not been uploaded"),
        (shard((right, [(X, 603, 0, 3)])), "which has 2"),
        (shard((right, [(X, 604, 0, 2)])), "603 bytes, not 604"),
        (shard((right, [(X, 3, 1, 2)])), "sha256"),
        (shard((None, [(X, 603, 0, 2)])), "sha256 that a commit needs"),
        (shard((right, [(X, 603, 0, 2)]), (right, [(Y, 1, 0, 1)])), "has not been uploaded"),
        (shard((sha256(b""), [(X, 603, 0, 2)] * 2)), "sha256"),
    ):
        answer = ann.post("shards", body)
        assert answer.status_code == 400
        assert said in answer.json()["error"]
        assert files_in(ann.root) == before
    assert ann.post("shards", shard((right, [(X, 603, 0, 2)]))).json() == {"result": 1}
    assert len(files_in(ann.root) - before) == 1
    assert ann.post("shards", shard((right, [(X, 603, 0, 2)]))).status_code == 200


def test_a_file_may_not_grow_beyond_the_limit(ann: Raw) -> None:
    """A few bytes can name the same chunk again and again."""
    content = bytes(131_072)
    assert ann.xorb(X, chunk(content, LZ4)).status_code == 200
    before = files_in(ann.root)
    answer = ann.post("shards", shard((sha256(content * 10), [(X, 131_072, 0, 1)] * 10)))
    assert answer.status_code == 413
    assert files_in(ann.root) == before


def test_what_a_xorb_may_not_be(ann: Raw) -> None:
    before = files_in(ann.root)
    for name, body, status, said in (
        (X, b"", 400, "no chunks"),
        (X, chunk(b"abc")[:-1], 400, "cut short"),
        (X, os.urandom(1000), 400, "chunk 0"),
        (X, chunk(bytes(30_000_000), LZ4, size=100), 400, "not exactly one LZ4 frame"),
        (X, chunk(bytes(131_072), LZ4) * 513, 400, "unpacks to more"),
        (X, bytes(80_000_000), 413, "larger than"),
        (X.upper(), chunk(b"abc"), 400, "64 hexadecimal digits"),
        ("..%2F..%2Fx", chunk(b"abc"), 400, "64 hexadecimal digits"),
    ):
        answer = ann.xorb(name, body)
        assert answer.status_code == status
        assert said in answer.json()["error"]
        assert files_in(ann.root) == before
    for path in (f"xorbs/other/{X}", "telemetry", f"xorb-grants/default/{X}"):
        assert ann.post(path, b"").status_code == 404
    assert httpx2.get(f"{ann.address}/v1/chunks/default/{X}").status_code == 404


def test_nobody_reaches_what_another_user_has_sent(people: tuple[Raw, Raw]) -> None:
    ann, bob = people
    secret = b"only ann knows"
    assert ann.xorb(X, chunk(secret)).status_code == 200
    named = shard((sha256(secret), [(X, len(secret), 0, 1)]))
    assert bob.post("shards", named).status_code == 400
    bob.address = ann.address  # her folder, his token
    answer = bob.post("shards", named)
    assert answer.status_code == 400
    assert "Start the upload again" in answer.json()["error"]
    assert bob.xorb(X, chunk(b"not what ann sent")).status_code == 400
    assert ann.post("shards", named).status_code == 200
    assert ann.post("shards", named).status_code == 200
    # The content is there now; bob's repository still has to send it.
    bob.renew()
    assert bob.post("shards", named).status_code == 400


def test_only_a_live_xet_token_uploads(ann: Raw) -> None:
    database = Database(ann.root / "hub.sqlite3")
    key = database.secret()
    identifier, revoked = (
        database.row("SELECT id FROM tokens WHERE user = ?", user)["id"] for user in ("ann", "bob")
    )
    with database.transaction() as connection:
        connection.execute("UPDATE tokens SET revoked = 'now' WHERE id = ?", (revoked,))
    database.close()
    payload = {"use": "xet", "user": "ann", "token": identifier, "repository": 1}
    good = chunk(b"abc")
    assert ann.post(f"xorbs/default/{X}", good, sign(key, payload, 60)).status_code == 200
    head, dot, tail = ann.token.partition(".")
    for wrong in (
        "nonsense",
        "a.b",
        ann.secret,  # the Hub's own token
        sign(key, payload, -1),
        sign(key, {**payload, "use": "upload"}, 60),
        sign(key, {**payload, "token": revoked}, 60),
        sign(b"another key", payload, 60),
        head[:-1] + ("A" if head[-1] != "A" else "B") + dot + tail,
    ):
        answer = ann.post(f"xorbs/default/{Y}", good, wrong)
        assert answer.status_code == 401, wrong
        assert ann.post("shards", shard(), wrong).status_code == 401
    assert set(xorbs(ann.root)) == {X}
