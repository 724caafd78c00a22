"""An upload through hf_xet while the server is killed, and of a file larger than its memory use."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server_helpers import running, token
from xet_helpers import CLIENT, check_storage, client, done, environment, sha256, xorbs

pytestmark = pytest.mark.slow


def test_a_killed_server_leaves_no_half_and_the_upload_succeeds_later(tmp_path: Path) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    secret = token(root, "ann", "write")
    data = tmp_path / "large.bin"
    data.write_bytes(random.Random(1).randbytes(80_000_000))
    create = {"do": "create", "repository": "ann/one"}
    commit = {"do": "commit", "repository": "ann/one", "files": {"large.bin": str(data)}}

    def incoming(size: int = 0) -> bool:
        """Whether something larger than `size` bytes is on its way in."""
        sizes = []
        for path in (root / "incoming").iterdir():
            with suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        return any(found > size for found in sizes)

    moments = (
        incoming,  # while a xorb is written
        lambda: bool(xorbs(root)),  # between two of them
        lambda: incoming(70_000_000),  # more than a xorb: while the file is put together
    )
    port = "0"
    for number, moment in enumerate(moments):
        with running(root, "--port", port) as server:
            port = str(urlsplit(server.url).port)
            assert not list((root / "incoming").iterdir())
            if number == 0:
                done(client(server, secret, home, create))
            arguments = [sys.executable, "-c", CLIENT, server.url, secret, json.dumps([commit])]
            sender = subprocess.Popen(
                arguments, env=environment(home, True), stderr=subprocess.DEVNULL
            )
            while not moment():
                assert sender.poll() is None, f"moment {number} did not come"
            server.kill()
            sender.kill()
            sender.wait()
        check_storage(root)
    with running(root, "--port", port) as server:
        digest = {"do": "digests", "repository": "ann/one"}
        found = done(client(server, secret, home, commit, digest))
        assert found["large.bin"] == sha256(data.read_bytes())
    check_storage(root)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    root = tmp_path / "root"
    secret = token(root, "ann", "write")
    data = tmp_path / "large.bin"
    with data.open("wb") as file:
        for _ in range(15):
            file.write(os.urandom(10_000_000))
    commit = {"do": "commit", "repository": "ann/one", "files": {"large.bin": str(data)}}
    with running(root) as server:
        done(client(server, secret, tmp_path / "h", {"do": "create", "repository": "ann/one"}))
        status = Path(f"/proc/{server.process.pid}/status")

        def resident() -> int:
            (line,) = (line for line in status.read_text().splitlines() if "VmRSS" in line)
            return int(line.split()[1]) * 1024

        before, seen, over = resident(), [0], threading.Event()

        def watch() -> None:
            while not over.is_set():
                seen.append(resident())
                time.sleep(0.01)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            done(client(server, secret, tmp_path / "h", commit))
        finally:
            over.set()
            watcher.join()
    assert len(xorbs(root)) == 3
    assert max(seen) - before < 40_000_000  # less than one xorb
