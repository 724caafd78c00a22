"""Whatever is sent: an answer below 500 that the client can read, and nothing outside the root."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from server_helpers import Answer, InProcess, token

SECRET = b"not in any repository"
EVERYTHING = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NASTY = st.sampled_from(
    [
        *("..", ".", "...", "%2e%2e", "..%2f..%2f", "..%5c", "%00", "%0d%0aX-Evil:1", "%", "%zz"),
        *("main", "refs/heads/main", "refs%2Ftags%2Fv1", "feat%2Fx", "HEAD", "0" * 40, "0" * 39),
        *("team", "mini", "corpus", "api", "datasets", "models", "resolve", "a b", "%ff%fe", "é"),
        *("README.md", "outside.txt", "%2fetc%2fpasswd", "objects", "hub.sqlite3", "' OR 1=1 --"),
        *("mini.git", "tree", "commit", "x" * 300, "\\", ";", "&", "=", "#", "[", "{}", "~", ""),
    ]
)
ANYTHING = st.one_of(
    NASTY, st.text(max_size=12).map(lambda text: quote(text.encode(errors="replace"), safe="/%"))
)
PATHS = st.one_of(
    st.lists(ANYTHING, max_size=7).map("/".join),
    st.tuples(
        st.sampled_from(["api/models/team/mini", "api/datasets/team/corpus", "api/models", "v1"]),
        st.sampled_from(
            [
                *("tree", "revision", "commits", "refs", "tag", "branch", "paths-info", "settings"),
                *("preupload", "commit", "auth-check", "xet-write-token", "xorbs", "shards"),
                *("chunks", ""),
            ]
        ),
        ANYTHING,
        ANYTHING,
    ).map("/".join),
    st.tuples(
        st.sampled_from(["team/mini/resolve", "datasets/team/corpus/resolve"]), ANYTHING, ANYTHING
    ).map("/".join),
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(b"range", b"if-range", b"if-none-match", b"authorization", b"content-type"),
                *(b"host", b"content-length", b"accept-encoding", b"x-forwarded-proto", b"cookie"),
            ]
        ),
        st.one_of(
            st.binary(max_size=30).map(lambda data: bytes(b for b in data if b not in b"\r\n\0")),
            st.from_regex(rb"bytes ?= ?[0-9]{0,20} ?- ?[0-9]{0,20}", fullmatch=True),
            st.sampled_from([b"Bearer", b"Bearer ", b"Basic eDp5", b"bytes=0-1,3-4", b"W/*", b"*"]),
        ),
    ),
    max_size=4,
)
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(["../../x", "README.md", "a/b", "main", "\ud800", "0" * 64, "team", "v1"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                [
                    *("name", "organization", "type", "visibility", "private", "gated", "tag"),
                    *("startingPoint", "files", "path", "size", "sample", "objects", "oid"),
                    *("operation", "content", "key", "value", "summary", "parentCommit", "algo"),
                ]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)
BODIES = st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode()))
LINES = st.lists(
    st.one_of(
        st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")),
        st.fixed_dictionaries(
            {
                "key": st.sampled_from(
                    ["header", "file", "lfsFile", "deletedFile", "deletedFolder", "x"]
                ),
                "value": st.dictionaries(
                    st.sampled_from(
                        [
                            *("path", "content", "encoding", "oid", "algo", "size", "summary"),
                            *("description", "parentCommit"),
                        ]
                    ),
                    st.one_of(
                        st.sampled_from(["base64", "utf-8", "sha256", "aGk=", "README.md", "a/b"]),
                        st.sampled_from(["0" * 64, "0" * 40, "../x", "a", "a/b/c", ".git/config"]),
                        JSON,
                    ),
                    max_size=5,
                ),
            }
        ).map(lambda item: json.dumps(item).encode()),
    ),
    max_size=5,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[InProcess, str, Path]]:
    """A Hub with two repositories, a token that may write to them, and a file beside the root."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "outside.txt").write_bytes(SECRET)
    writer = token(folder / "hub", "ann", "write", ["team"])
    with InProcess(folder / "hub") as hub:
        for kind, name in (("model", "mini"), ("dataset", "corpus")):
            body = {"type": kind, "name": name, "organization": "team"}
            assert hub.ask("POST", "/api/repos/create", body, writer).status == 200
        yield hub, writer, folder


def check(answer: Answer, folder: Path) -> None:
    assert 200 <= answer.status < 500
    assert SECRET not in answer.body
    if answer.status >= 400:
        answer.headers["x-error-message"].encode("ascii")
        if answer.body:
            assert isinstance(answer.json()["error"], str)
    assert {path.name for path in folder.iterdir()} == {"outside.txt", "hub"}
    assert (folder / "outside.txt").read_bytes() == SECRET


@EVERYTHING
@given(METHODS, PATHS, st.text(max_size=20), HEADERS, BODIES, st.booleans())
def test_any_request(
    world: tuple[InProcess, str, Path],
    method: str,
    path: str,
    query: str,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    signed_in: bool,
) -> None:
    hub, writer, folder = world
    target = f"/{path}?{quote(query.encode(errors='replace'), safe='=&%')}".encode()
    check(hub.ask(method, target, body, writer if signed_in else "", headers), folder)


@EVERYTHING
@given(ANYTHING, LINES, st.booleans())
def test_any_commit(
    world: tuple[InProcess, str, Path], revision: str, lines: list[bytes], opened: bool
) -> None:
    hub, writer, folder = world
    header = [b'{"key": "header", "value": {"summary": "any"}}'] if opened else []
    target = f"/api/models/team/mini/commit/{revision if not opened else 'main'}"
    check(hub.ask("POST", target, b"\n".join(header + lines), writer), folder)


@EVERYTHING
@given(
    st.sampled_from(
        [
            *("POST /api/repos/create", "DELETE /api/repos/delete", "POST /api/validate-yaml"),
            *("POST /api/models/team/mini/preupload/main", "PUT /api/models/team/mini/settings"),
            *("POST /api/models/team/mini/tag/main", "POST /api/models/team/mini/branch/x%2Fy"),
            *(
                "POST /team/mini.git/info/lfs/objects/batch",
                "PUT /api/datasets/team/corpus/settings",
            ),
            *("POST /team/mini.git/info/lfs/objects/verify", "POST /api/models/team/mini/branch/b"),
        ]
    ),
    st.one_of(JSON, st.dictionaries(st.text(max_size=5), JSON)),
)
@example("POST /api/models/team/mini/branch/b", {"startingPoint": "\ud800"})
def test_any_json(world: tuple[InProcess, str, Path], where: str, body: object) -> None:
    hub, writer, folder = world
    method, _, target = where.partition(" ")
    check(hub.ask(method, target, json.dumps(body).encode(), writer), folder)


@EVERYTHING
@given(st.text(max_size=60).map(lambda text: "---\n" + text + "\n---\n"))
def test_any_metadata(world: tuple[InProcess, str, Path], text: str) -> None:
    hub, _, folder = world
    answer = hub.ask("POST", "/api/validate-yaml", {"content": text})
    assert answer.status in (200, 400)
    check(answer, folder) if answer.status == 200 else answer.json()["errors"][0]["message"]


@EVERYTHING
@given(
    st.sampled_from(["models", "datasets"]),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["search", "filter", "author", "limit", "sort", "cursor", "full", "gated"]
            ),
            st.one_of(
                st.text(max_size=10),
                st.sampled_from(["0", "-1", "9" * 30, "createdAt", "W10=", "%"]),
            ),
        ),
        max_size=5,
    ),
)
def test_any_listing(
    world: tuple[InProcess, str, Path], kind: str, query: list[tuple[str, str]]
) -> None:
    hub, writer, folder = world
    text = "&".join(f"{name}={quote(value.encode(errors='replace'))}" for name, value in query)
    check(hub.ask("GET", f"/api/{kind}?{text}", token=writer), folder)
