"""The parts below the endpoints: signing, objects, identifiers, metadata, tokens."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.limits import Limits
from secondary_learners.server.store.metadata import MetadataError, labels, metadata_json
from secondary_learners.server.store.names import check_ref_name, check_repository_name
from secondary_learners.server.store.objects import Objects
from secondary_learners.server.store.oids import blob_oid, folder_oids, pointer_oid, pointer_size
from secondary_learners.server.store.signing import sign, verify
from secondary_learners.server.store.tokens import create_token, list_tokens, revoke_token

JSON = st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5)))


@given(st.binary(min_size=1, max_size=32), JSON)
def test_what_is_signed_is_verified(secret: bytes, payload: dict[str, object]) -> None:
    text = sign(secret, payload, 60)
    assert verify(secret, text) == payload
    assert verify(secret + b"x", text) is None
    assert verify(secret, sign(secret, payload, 0)) is None


@given(JSON, st.integers(0, 200), st.characters())
def test_a_changed_letter_is_noticed(payload: dict[str, object], at: int, letter: str) -> None:
    text = sign(b"secret", payload, 60)
    at %= len(text)
    changed = text[:at] + letter + text[at + 1 :]
    found = verify(b"secret", changed)
    assert found is None or changed == text


def test_another_spelling_of_the_same_bytes_is_refused() -> None:
    texts = (sign(b"secret", {"n": number}, 60) for number in range(1000))
    text = next(text for text in texts if "_" in text and "-" in text)
    assert verify(b"secret", text) is not None
    for other in (text.replace("_", "/"), text.replace("-", "+"), text + "=", text + "."):
        assert verify(b"secret", other) is None


@given(st.text())
def test_no_text_is_a_token_by_chance(text: str) -> None:
    assert verify(b"secret", text) is None


def test_an_object_is_whole_or_absent(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    with objects.incoming() as incoming:
        incoming.write(b"hello ")
        incoming.write(b"world")
        stored = incoming.keep()
    assert stored.size == 11
    assert objects.path(stored.sha256).read_bytes() == b"hello world"
    with pytest.raises(Refused, match="not " + "0" * 64), objects.incoming() as incoming:
        incoming.write(b"other")
        incoming.keep("0" * 64)
    with pytest.raises(ZeroDivisionError), objects.incoming() as incoming:
        incoming.write(b"third")
        raise ZeroDivisionError
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [objects.path(stored.sha256)]


def test_identifiers_are_those_of_git(tmp_path: Path) -> None:
    files = {"a.b/c": b"1", "a/b/c": b"2", "a/x": b"", "a-b": b"3", "z": b"\0\1", "é/f": b"4"}
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)

    def git(*arguments: str) -> str:
        none = dict.fromkeys(("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"), os.devnull)
        command = ["git", "-C", str(tmp_path), *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | none
        ).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    oids = folder_oids((path, blob_oid(data)) for path, data in files.items())
    assert oids[""] == git("write-tree")
    assert oids["a/b"] == git("write-tree", "--prefix=a/b/")
    assert blob_oid(files["z"]) == git("hash-object", "z")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12\n"
    (tmp_path / "pointer").write_text(pointer)
    assert pointer_oid("0" * 64, 12) == git("hash-object", "pointer")
    assert pointer_size("0" * 64, 12) == len(pointer)


def test_metadata_of_a_card() -> None:
    card = metadata_json(
        b"---\r\nlibrary_name: ours\r\ntags: [a, b, 3]\r\nlicense: mit\r\nlanguage: en\r\n"
        b"datasets: team/corpus\r\nbase_model:\r\n- team/mini\r\ndate: 2026-01-01\r\n---\r\nbody"
    )
    assert labels(card) == [
        "ours", "a", "b", "en", "license:mit", "dataset:team/corpus", "base_model:team/mini",
    ]  # fmt: skip
    assert metadata_json(b"# no metadata") == metadata_json(b"---\n---\n") == ""
    assert labels("") == []
    bomb = "\n".join(["a0: &a0 x"] + [f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]" for n in range(1, 30)])
    for bad in (f"---\n{bomb}\n---\n", "---\na: [\n---\n", "---\n- a\n---\n", "---\na: .nan\n---\n",
                "---\n? [a]\n: b\n---\n", "---\na: !!python/object:os.x {}\n---\n", "---\nopen",
                "---\n" + "[" * 5000 + "\n---\n"):  # fmt: skip
        with pytest.raises(MetadataError):
            metadata_json(bad.encode())


DEEP, WIDE = "is nested more", "too many parts"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 60_000, "no closing"),
        ("[" * 15_000, DEEP),
        ("{a: " * 4_000, DEEP),
        ("? " * 7_000, DEEP),
        ("- " * 7_000, DEEP),
        ("a:\n" + "- \n" * 5_000, WIDE),
        ("a: [" + "x," * 7_000 + "]", WIDE),
        ("a: 1" + ":1" * 120_000, "no closing"),
        (f"a: {'9' * 15_000}", "cannot be read"),
        (f"a: {'*b ' * 4_000}", "not YAML|aliases"),
    ],
    ids=lambda value: value[:8],
)
def test_metadata_that_costs_too_much_is_left_unread(
    text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many events of it are ever looked at, and it is loaded only when all were."""
    events, loaded, parse, load = 0, [], yaml.parse, yaml.load

    def counting(*given: Any, **named: Any) -> Iterator[yaml.Event]:
        nonlocal events
        for event in parse(*given, **named):
            events += 1
            yield event

    def loading(text: str, **named: Any) -> Any:
        loaded.append(events)
        return load(text, **named)

    monkeypatch.setattr(yaml, "parse", counting)
    monkeypatch.setattr(yaml, "load", loading)
    with pytest.raises(MetadataError, match=why):
        metadata_json(f"---\n{text}\n---\n".encode())
    assert events <= 5_001
    assert not loaded or (why == "cannot be read" and events < 20)


def test_numbers_to_the_base_of_60_stay_text() -> None:
    """Reading one as a number takes the square of its length."""
    long = "1" + ":1" * 7_000
    given = f"---\ntime: 10:30\npart: 1:2.5\nlong: {long}\nn: 7\nx: 0.5\n---\n"
    read = {"time": "10:30", "part": "1:2.5", "long": long, "n": 7, "x": 0.5}
    assert json.loads(metadata_json(given.encode())) == read


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_only_the_owner_reads_what_is_stored(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir(mode=0o755)
    create_token(old, "ann", "read")
    (old / "hub.sqlite3").chmod(0o644)  # as an earlier version left it
    before = os.umask(0)
    try:
        for root in (tmp_path / "new" / "hub", old):
            hub = Hub.open(root, Limits())
            create_token(root, "eve", "read")
            files = list(root.glob("hub.sqlite3*"))
            modes = {path.name: path.stat().st_mode & 0o777 for path in files}
            hub.close()
            assert modes == dict.fromkeys(
                ("hub.sqlite3", "hub.sqlite3-shm", "hub.sqlite3-wal"), 0o600
            )
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "hub").stat().st_mode & 0o777 == 0o700


def test_tokens(tmp_path: Path) -> None:
    text = create_token(tmp_path, "ann", "write", ["team", "team"])
    assert text.startswith("sl_") and len(text) > 40
    create_token(tmp_path, "ann", "read")
    first, second = list_tokens(tmp_path)
    assert (first.user, first.role, first.namespaces) == ("ann", "write", ("ann", "team"))
    assert second.namespaces == ("ann",)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("hub.sqlite3*"))
    assert text.removeprefix("sl_").encode() not in stored
    revoke_token(tmp_path, first.id)
    revoked = list_tokens(tmp_path)[0].revoked
    revoke_token(tmp_path, first.id)
    assert revoked and list_tokens(tmp_path)[0].revoked == revoked
    with pytest.raises(SecondaryLearnersError, match="learners serve-token list"):
        revoke_token(tmp_path, "nope")


@pytest.mark.parametrize(
    ("user", "organizations"),
    [("team", []), ("bob", ["ann"]), ("ANN", []), ("api", []), ("a/b", []), ("", []), ("..", [])],
)
def test_names_that_would_open_what_is_not_theirs(
    tmp_path: Path, user: str, organizations: list[str]
) -> None:
    create_token(tmp_path, "ann", "write", ["team"])
    with pytest.raises(SecondaryLearnersError):
        create_token(tmp_path, user, "write", organizations)
    assert len(list_tokens(tmp_path)) == 1


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    create_token(tmp_path, "ann", "read")
    connection = sqlite3.connect(tmp_path / "hub.sqlite3")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SecondaryLearnersError, match="format 99"):
        list_tokens(tmp_path)


@given(st.text(max_size=120))
def test_the_client_takes_every_name_that_the_server_takes(text: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        check_repository_name(text)
    except Refused:
        return
    try:
        validate_repo_id(f"t/{text}")
    except HFValidationError:
        assert len(text) > 93  # its limit is on owner and name together


@given(st.text(max_size=40))
def test_git_takes_every_branch_that_the_server_takes(text: str) -> None:
    try:
        check_ref_name(text)
    except Refused:
        return
    forbidden = set(" ~^:?*[\\\x7f") | {chr(code) for code in range(32)}
    assert not forbidden & set(text) and ".." not in text and "@{" not in text
    assert not text.startswith(("-", "/", ".")) and not text.endswith(("/", ".", ".lock"))
