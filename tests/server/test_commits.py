"""What a commit may say, what it leaves, and every ceiling, met with a 4xx that says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secondary_learners.server.store.limits import Limits
from server_helpers import Answer, InProcess, token

COMMIT = "/api/models/team/mini/commit"
CREATE = {"name": "mini", "organization": "team"}


@pytest.fixture
def writer(hub: InProcess, ann: str) -> str:
    assert hub.ask("POST", "/api/repos/create", CREATE, ann).status == 200
    return ann


def send(
    hub: InProcess, token: str, lines: Sequence[tuple[str, object]], head: object = None
) -> Answer:
    header = {"summary": "s", "parentCommit": head} if head else {"summary": "s"}
    items = [("header", header), *lines]
    body = "\n".join(json.dumps({"key": key, "value": value}) for key, value in items)
    return hub.ask("POST", f"{COMMIT}/main", body.encode(), token)


def file(path: object, content: object = "") -> tuple[str, object]:
    return "file", {"path": path, "content": content, "encoding": "utf-8"}


def names(hub: InProcess) -> set[str]:
    rows = hub.ask("GET", "/api/models/team/mini").json()["siblings"]
    return {row["rfilename"] for row in rows} - {".gitattributes"}


def contents(root: Path) -> set[str]:
    return {path.name for path in (root / "objects").rglob("*") if path.is_file()}


def test_in_the_order_they_come(hub: InProcess, writer: str) -> None:
    lines = [file("a/x"), file("a/y"), ("deletedFolder", {"path": "a/"}), file("a/z"), file("b")]
    assert send(hub, writer, [*lines, ("deletedFile", {"path": "b"})]).status == 200
    assert names(hub) == {"a/z"}


def test_nothing_changed_is_no_commit(hub: InProcess, writer: str) -> None:
    first = send(hub, writer, [file("a", "1")]).json()["commitOid"]
    assert send(hub, writer, [file("a", "1")]).json()["commitOid"] == first
    assert send(hub, writer, []).json()["commitOid"] == first
    assert send(hub, writer, [file("a", "2")]).json()["commitOid"] != first


@pytest.mark.parametrize(
    "path",
    [
        *("", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\\b", "a\0b", "a\nb"),
        *(".git", ".git/config", "a/.GIT/hooks", "x" * 256, "/".join(["x" * 200] * 6), "\ud800"),
        *(None, 1, ["a"], {}),
    ],
    ids=lambda path: repr(path)[:20],
)
def test_paths_that_are_refused(hub: InProcess, writer: str, path: object) -> None:
    answer = send(hub, writer, [file("good"), file(path)])
    assert answer.status == 400 and names(hub) == set()


@pytest.mark.parametrize(
    "path", ["a b", "é/ü", ".gitignore", "a.git", "x" * 255, "a/b/c/d", "~", "…"]
)
def test_paths_that_are_taken(hub: InProcess, writer: str, path: str) -> None:
    assert send(hub, writer, [file(path)]).status == 200
    assert names(hub) == {path}


@pytest.mark.parametrize(
    "lines",
    [
        [file("a"), file("a/b")],
        [file("a/b"), file("a")],
        [file("a/b/c"), file("a/b/c/d/e")],
    ],
)
def test_a_file_is_not_a_folder(
    hub: InProcess, writer: str, lines: list[tuple[str, object]]
) -> None:
    assert "cannot both be" in send(hub, writer, lines).json()["error"]
    assert names(hub) == set()
    assert send(hub, writer, lines[:1]).status == 200
    assert send(hub, writer, lines[1:]).status == 400
    (path,) = names(hub)
    swap = [("deletedFile", {"path": path}), *lines[1:]]
    assert send(hub, writer, swap).status == 200


def test_a_refused_commit_stores_nothing(hub: InProcess, writer: str, tmp_path: Path) -> None:
    before = contents(tmp_path / "hub")
    refused = [
        send(hub, writer, [file("a", "1"), ("deletedFile", {"path": "no"})]),
        send(hub, writer, [file("a", "1"), ("lfsFile", {"path": "b", "oid": "0" * 64})]),
        send(hub, writer, [file("a", "1"), ("mystery", {"path": "b"})]),
        send(hub, writer, [file("a", "1")], "0" * 40),
        hub.ask(
            "POST", "/api/models/team/mini/commit/nope", b'{"key":"header","value":{}}', writer
        ),
        hub.ask("POST", "/api/models/team/mini/commit/main", b"", writer),
        hub.ask("POST", "/api/models/team/mini/commit/main", b'{"key":"file","value":{}}', writer),
        hub.commit(writer, {"a": b"1", "README.md": b"---\na: &x 1\nb: *x\n---\n"}),
        hub.commit(writer, {"a": b"1", "README.md": b"---\n[\n---\n"}),
    ]
    assert [answer.status for answer in refused] == [404, 400, 400, 412, 404, 400, 400, 400, 400]
    assert names(hub) == set()
    assert contents(tmp_path / "hub") == before
    assert list((tmp_path / "hub/incoming").iterdir()) == []


def test_a_parent_may_be_short(hub: InProcess, writer: str) -> None:
    head = hub.ask("GET", "/api/models/team/mini").json()["sha"]
    assert send(hub, writer, [file("a")], head[:8]).status == 200
    assert send(hub, writer, [file("b")], head).status == 412
    assert send(hub, writer, [file("b")], "zz").status == 400


def test_a_large_file_and_its_unchanged_copy(hub: InProcess, writer: str) -> None:
    data = b"\0" * 2_000_000
    sha256 = hub.upload(writer, data)
    line = ("lfsFile", {"path": "w.bin", "algo": "sha256", "oid": sha256, "size": len(data)})
    wrong = ("lfsFile", {"path": "w.bin", "algo": "sha256", "oid": sha256, "size": 1})
    assert send(hub, writer, [wrong]).status == 400
    assert send(hub, writer, [line]).status == 200
    answer = hub.ask("GET", "/team/mini/resolve/main/w.bin")
    assert answer.body == data and answer.headers["etag"] == f'"{sha256}"'
    asked = {"files": [{"path": "w.bin", "size": len(data), "sample": "AAAA"}]}
    (found,) = hub.ask("POST", "/api/models/team/mini/preupload/main", asked, writer).json()[
        "files"
    ]
    assert (found["uploadMode"], found["oid"]) == ("lfs", sha256)


@pytest.mark.parametrize(
    ("path", "size", "sample", "mode"),
    [
        ("README.md", 500, "IyBIaQ==", "regular"),
        ("big.json", 2**20, "e30=", "lfs"),
        ("tiny.safetensors", 10, "e30=", "lfs"),
        ("x.PARQUET", 10, "e30=", "lfs"),
        ("noext", 10, "AAE=", "lfs"),
        ("latin1.txt", 10, "6eg=", "lfs"),
        ("utf8.txt", 3, "w6nD", "regular"),  # cut within a letter
        ("empty.safetensors", 0, "", "regular"),
    ],
)
def test_how_a_file_is_sent(
    hub: InProcess, writer: str, path: str, size: int, sample: str, mode: str
) -> None:
    body = {"files": [{"path": path, "size": size, "sample": sample}]}
    answer = hub.ask("POST", "/api/models/team/mini/preupload/main", body, writer)
    assert answer.json()["files"][0]["uploadMode"] == mode


def test_ceilings(tmp_path: Path) -> None:
    ann = token(tmp_path, "ann", "write", ["team"])
    limits = Limits(
        json_body=2000, regular_file=1000, file=5000, files_per_commit=4, files_per_repository=6
    )
    with InProcess(tmp_path, limits) as hub:
        assert hub.ask("POST", "/api/repos/create", CREATE, ann).status == 200
        many = {f"{number}": b"" for number in range(5)}
        too_much = [
            hub.ask("POST", "/api/repos/create", {"name": "x" * 3000}, ann),
            hub.commit(ann, {"large.txt": b"x" * 1001}),
            hub.commit(ann, {"line.txt": b"x" * 100_000}),
            hub.commit(ann, many),
            hub.ask(
                "POST",
                "/team/mini.git/info/lfs/objects/batch",
                {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 5001}]},
                ann,
            ),
            hub.ask(
                "POST",
                "/api/models/team/mini/preupload/main",
                {"files": [{"path": "a", "size": 5001, "sample": ""}]},
                ann,
            ),
        ]
        assert [answer.status for answer in too_much] == [413] * 6
        assert hub.commit(ann, {"a": b"x" * 1000, "b": b"", "c": b"", "d": b""}).status == 200
        answer = hub.commit(ann, {"e": b"", "f": b""})
        assert (answer.status, "at most 6 files" in answer.json()["error"]) == (413, True)
        assert hub.commit(ann, {"e": b""}).status == 200


def test_contents_go_with_the_last_repository_that_holds_them(
    hub: InProcess, ann: str, tmp_path: Path
) -> None:
    for name in ("mini", "twin"):
        hub.ask("POST", "/api/repos/create", {"name": name, "organization": "team"}, ann)
        hub.commit(ann, {"same": b"shared", name: name.encode()}, f"team/{name}")
    before = contents(tmp_path / "hub")
    assert hub.ask("DELETE", "/api/repos/delete", CREATE, ann).status == 200
    after = contents(tmp_path / "hub")
    assert len(before - after) == 1  # what only mini held
    assert hub.ask("GET", "/team/twin/resolve/main/same").body == b"shared"
    assert hub.ask("POST", "/api/repos/create", CREATE, ann).status == 200  # from nothing again
    assert hub.ask("GET", "/team/mini/resolve/main/same").status == 404


FILES = st.dictionaries(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
    st.binary(max_size=5),
    max_size=4,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(FILES, st.booleans()), min_size=1, max_size=5))
def test_every_commit_keeps_what_it_was(
    hub: InProcess, ann: str, history: list[tuple[dict[str, bytes], bool]]
) -> None:
    """Against a dictionary: after any history, each commit still has exactly its files."""
    hub.ask("DELETE", "/api/repos/delete", CREATE, ann)
    assert hub.ask("POST", "/api/repos/create", CREATE, ann).status == 200
    model: dict[str, bytes] = {}
    seen: list[tuple[str, dict[str, bytes]]] = []
    for files, clear in history:
        lines = [("deletedFile", {"path": path}) for path in model] if clear else []
        wanted = files if clear else model | files
        body = [file(path, data.hex()) for path, data in files.items()]
        answer = send(hub, ann, [*lines, *body])
        clash = any(
            other.startswith(f"{path}/") and (path in files or other in files)
            for path in wanted
            for other in wanted
        )
        assert answer.status == (400 if clash else 200)
        if not clash:
            model = wanted
            seen.append((answer.json()["commitOid"], dict(model)))
    for oid, expected in seen:
        tree = hub.ask("GET", f"/api/models/team/mini/tree/{oid}?recursive=true").json()
        paths = {row["path"] for row in tree if row["type"] == "file"} - {".gitattributes"}
        assert paths == set(expected)
        for path, data in expected.items():
            answer = hub.ask("GET", f"/team/mini/resolve/{oid}/{path}")
            assert (answer.body, answer.headers["x-repo-commit"]) == (data.hex().encode(), oid)


def test_every_page_of_a_large_tree_and_a_long_history(hub: InProcess, writer: str) -> None:
    files = {f"d{number % 7}/{number:04}.txt": b"" for number in range(1100)}
    assert hub.commit(writer, files).status == 200
    for number in range(110):
        assert hub.commit(writer, {"n": str(number).encode()}).status == 200
    tree = pages(hub, "/api/models/team/mini/tree/main?recursive=true")
    assert [len(page) for page in tree] == [1000, 109]
    paths = [row["path"] for page in tree for row in page]
    assert paths == sorted({*files, *(f"d{number}" for number in range(7)), "n", ".gitattributes"})
    history = pages(hub, "/api/models/team/mini/commits/main")
    assert [len(page) for page in history] == [100, 12]
    assert len({row["id"] for page in history for row in page}) == 112


def pages(hub: InProcess, target: str) -> list[list[dict[str, Any]]]:
    found = []
    while target:
        answer = hub.ask("GET", target)
        found.append(answer.json())
        link = answer.headers.get("link", "").partition(">")[0]
        target = link.removeprefix("<http://hub.test")
    return found
