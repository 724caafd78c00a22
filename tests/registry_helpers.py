"""A small learner, its registry entry, and a machine that has never loaded anything."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import torch
from huggingface_hub import CommitOperationAdd, HfApi

from secondary_learners.learners.artifact import Learner, save_learner
from secondary_learners.learners.config import Reference
from secondary_learners.learners.nets import LinearNet
from secondary_learners.registry.index import Entry
from tiny_models import tiny_config

__all__ = ["Machine", "Proxy", "Team", "entry", "proxy", "save"]


def entry(name: str, kind: str, files: dict[str, str]) -> Entry:
    return Entry(
        name=name,
        kind=kind,
        summary="small",
        base="mini",
        tokenizer="mini",
        corpus="books",
        objective="books",
        architecture="linear",
        optimizer="AdamW",
        license="MIT",
        location="bundled",
        added=date(2026, 11, 21),
        size=1,
        files=files,
    )


def save(folder: Path, name: str, *, scale: float = 1.0) -> dict[str, str]:
    """Write a learner that scores a context of tokens n by n * scale; returns its digests."""
    net = LinearNet(8, 0, "sqrt")
    net.weight.data.copy_(torch.arange(8.0) * scale)
    reference = Reference("mini", None, "0" * 64)
    config = tiny_config(
        name=name,
        sizes={"vocabulary": 8, "bigrams": 0, "counts": "sqrt"},
        context_length=4,
        base_model=reference,
        tokenizer=reference,
    )
    return save_learner(Learner(config, net), folder, recipe_toml="", evaluation={}, readme="")


@dataclass(frozen=True)
class Team:
    """The team's Hub and one who may publish there; `root` is the server's folder."""

    url: str
    token: str
    root: Path

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.url, token=self.token)

    def publish(
        self, repository: str, folder: Path, *, tag: str | None = None, private: bool = False
    ) -> str:
        """Upload all files of `folder` in one commit; returns the commit."""
        api = self.api
        api.create_repo(repository, private=private, exist_ok=True)
        operations = [
            CommitOperationAdd(path.relative_to(folder).as_posix(), path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        commit = api.create_commit(repository, operations, commit_message="publish").oid
        assert commit is not None
        if tag is not None:
            api.create_tag(repository, tag=tag, revision=commit)
        return commit


@dataclass(frozen=True)
class Machine:
    """A user's machine: an empty cache, an empty home and a working folder."""

    place: Path

    @property
    def cache(self) -> Path:
        return self.place / "cache"

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def work(self) -> Path:
        return self.place / "work"

    def environment(self, url: str, **variables: str) -> dict[str, str]:
        return os.environ | {
            "HF_ENDPOINT": url,
            "HF_HUB_CACHE": str(self.cache),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1",
            "SECONDARY_LEARNERS_HOME": str(self.home),
            **variables,
        }

    def start(self, code: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code],
            cwd=self.work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def python(self, code: str, environment: Mapping[str, str]) -> tuple[str, str]:
        """What `code` prints, on stdout and stderr, in a process of its own."""
        return self.start(code, environment).communicate(timeout=100)


@dataclass
class Seen:
    """One request that went through a `proxy`."""

    method: str
    path: str
    headers: Mapping[str, str]


class Proxy(ThreadingHTTPServer):
    """Stands before a Hub, remembers what is asked, and changes answers as it is told to.

    cut: file names whose body is cut in the middle, once each. stall: file names whose body stops
    in the middle for good. claim, claim_files: a commit that all is said to be of, or all files.
    """

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.hub = urlsplit(url)
        self.seen: list[Seen] = []
        self.cut: set[str] = set()
        self.stall: set[str] = set()
        self.stalled = threading.Event()
        self.claim = self.claim_files = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self) -> list[str]:
        return sorted(
            seen.path.rsplit("/", 1)[1]
            for seen in self.seen
            if seen.method == "GET" and "/resolve/" in seen.path
        )


class _Forward(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        proxy = self.server
        headers = {key.lower(): value for key, value in self.headers.items()}
        proxy.seen.append(Seen(self.command, self.path, headers))
        assert proxy.hub.hostname
        upstream = http.client.HTTPConnection(proxy.hub.hostname, proxy.hub.port)
        with closing(upstream):
            upstream.request(self.command, self.path, headers=headers)
            answer = upstream.getresponse()
            body = answer.read()
        if proxy.claim and "/api/" in self.path:
            body = re.sub(rb'"sha": ?"[0-9a-f]{40}"', b'"sha":"%s"' % proxy.claim.encode(), body)
        name = self.path.rsplit("/", 1)[1]
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() == "x-repo-commit":
                value = proxy.claim or proxy.claim_files or value
            if key.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(key, value)
        self.end_headers()
        broken = self.command == "GET" and name in proxy.cut | proxy.stall
        self.wfile.write(body[: len(body) // 2] if broken else body)
        if broken and name in proxy.stall:
            proxy.stalled.set()
            threading.Event().wait()
        if broken:
            proxy.cut.discard(name)
        self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def proxy(url: str) -> Iterator[Proxy]:
    with Proxy(url) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
