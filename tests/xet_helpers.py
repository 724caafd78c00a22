"""The real client as a process; and xorbs and shards by hand, as a damaged one would send."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lz4.frame

from secondary_learners.server.store.xet_formats import Term, Xorb
from server_helpers import Server

NONE, LZ4, GROUPED = range(3)
TAG = b"HFRepoMetaData\0" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
BOOKEND = b"\xff" * 32 + bytes(16)


def grouped(data: bytes) -> bytes:
    return data[0::4] + data[1::4] + data[2::4] + data[3::4]


def chunk(data: bytes, scheme: int = NONE, *, size: int | None = None, version: int = 0) -> bytes:
    """One chunk of a xorb. `size`: what it claims to unpack to."""
    packed = {
        NONE: lambda: data,
        LZ4: lambda: lz4.frame.compress(data),
        GROUPED: lambda: lz4.frame.compress(grouped(data)),
    }.get(scheme, lambda: data)()
    claimed = len(data) if size is None else size
    return (
        bytes([version])
        + len(packed).to_bytes(3, "little")
        + bytes([scheme])
        + claimed.to_bytes(3, "little")
        + packed
    )


def raw_hash(text: str) -> bytes:
    """The 32 bytes of a hash that the protocol spells `text`."""
    return struct.pack("<4Q", *(int(text[i : i + 16], 16) for i in range(0, 64, 16)))


Terms = Sequence[tuple[str, int, int, int]]  # xorb, bytes, first chunk, last chunk + 1


def shard(*files: tuple[str | None, Terms], verified: bool = True) -> bytes:
    """A shard of files, each a sha256 (None: left out) and its terms."""
    body = TAG + struct.pack("<QQ", 2, 0)
    for sha256, terms in files:
        flags = (1 << 31 if verified else 0) | (0 if sha256 is None else 1 << 30)
        body += bytes(range(32)) + struct.pack("<IIQ", flags, len(terms), 0)
        for xorb, size, start, end in terms:
            body += raw_hash(xorb) + struct.pack("<IIII", 0, size, start, end)
        if verified:
            body += bytes(48 * len(terms))
        if sha256 is not None:
            body += raw_hash(sha256) + bytes(16)
    return body + BOOKEND + BOOKEND


CLIENT = """
import hashlib, json, sys
from pathlib import Path
from huggingface_hub import CommitOperationAdd, HfApi

url, token, steps = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
api = HfApi(endpoint=url, token=token)
for step in steps:
    repository, kind = step["repository"], step.get("kind", "model")
    if step["do"] == "create":
        api.create_repo(repository, repo_type=kind)
    elif step["do"] == "commit":
        add = [
            CommitOperationAdd(name, Path(path).read_bytes() if step.get("bytes") else path)
            for name, path in step["files"].items()
        ]
        api.create_commit(repository, add, commit_message="add", repo_type=kind)
    elif step["do"] == "folder":
        api.upload_folder(repo_id=repository, folder_path=step["folder"], repo_type=kind)
    elif step["do"] == "digests":
        folder = Path(api.snapshot_download(repository, repo_type=kind))
        files = [path for path in folder.rglob("*") if path.is_file()]
        digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
        print(json.dumps({str(path.relative_to(folder)): digest(path) for path in files}))
"""


def client(
    server: Server, secret: str, home: Path, *steps: dict[str, Any], xet: bool = True
) -> subprocess.CompletedProcess[str]:
    """What the client of a user does, in a process with nothing but the defaults around it."""
    return subprocess.run(
        [sys.executable, "-c", CLIENT, server.url, secret, json.dumps(steps)],
        env=environment(home, xet),
        capture_output=True,
        text=True,
        timeout=60,
    )


def environment(home: Path, xet: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return kept | own | ({} if xet else {"HF_HUB_DISABLE_XET": "1"})


def done(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout) if result.stdout else None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def xorbs(root: Path) -> dict[str, int]:
    """The names of all xorbs, and when each one came."""
    return {path.name: path.stat().st_mtime_ns for path in root.glob("xorbs/*/*/*")}


def check_storage(root: Path) -> None:
    """Every object has the bytes its name says, every xorb is whole."""
    for path in root.glob("objects/*/*"):
        assert sha256(path.read_bytes()) == path.name
    for path in root.glob("xorbs/*/*/*"):
        with path.open("rb") as file:
            xorb = Xorb(file)
            for number in range(xorb.chunks):
                assert list(xorb.read(Term(path.name, 0, number, number + 1)))
