"""Who may do what: every endpoint against every kind of caller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secondary_learners.server.store.tokens import list_tokens, revoke_token
from server_helpers import InProcess, token

READS = [
    "GET /api/models/team/mini",
    "GET /api/models/team/mini/revision/main",
    "GET /api/models/team/mini/refs",
    "GET /api/models/team/mini/commits/main",
    "GET /api/models/team/mini/tree/main",
    "GET /api/models/team/mini/auth-check",
    "POST /api/models/team/mini/paths-info/main",
    "GET /team/mini/resolve/main/.gitattributes",
    "HEAD /team/mini/resolve/main/.gitattributes",
]
WRITES = [
    "GET /api/models/team/mini/auth-check/write",
    "PUT /api/models/team/mini/settings",
    "POST /api/models/team/mini/preupload/main",
    "POST /api/models/team/mini/commit/main",
    "POST /api/models/team/mini/tag/main",
    "DELETE /api/models/team/mini/tag/v1",
    "POST /api/models/team/mini/branch/b",
    "DELETE /api/models/team/mini/branch/b",
    "POST /team/mini.git/info/lfs/objects/batch",
    "POST /team/mini.git/info/lfs/objects/verify",
    "GET /api/models/team/mini/xet-write-token/main",
    "POST /api/repos/create",
    "DELETE /api/repos/delete",
]
NAMED = {"name": "mini", "organization": "team"}


def ask(hub: InProcess, what: str, token: str = "") -> int:
    method, _, target = what.partition(" ")
    return hub.ask(method, target, NAMED if "/repos/" in target else b"", token).status


@pytest.fixture
def tokens(hub: InProcess, ann: str, tmp_path: Path) -> dict[str, str]:
    root = tmp_path / "hub"
    assert hub.ask("POST", "/api/repos/create", NAMED, ann).status == 200
    return {
        "writer": ann,
        "reader": token(root, "bob", "read", ["team"]),
        "stranger": token(root, "eve", "write"),
    }


@pytest.mark.parametrize("what", READS)
def test_public_is_for_all_and_private_for_members(
    hub: InProcess, tokens: dict[str, str], what: str
) -> None:
    for caller in ("", *tokens.values()):
        assert ask(hub, what, caller) == 200
    change = {"visibility": "private"}
    assert hub.ask("PUT", "/api/models/team/mini/settings", change, tokens["writer"]).status == 200
    for caller in (tokens["writer"], tokens["reader"]):
        assert ask(hub, what, caller) == 200
    for caller in ("", tokens["stranger"]):
        assert ask(hub, what, caller) == 404
        missing = what.replace("mini", "nowhere")
        method, _, target = what.partition(" ")
        hidden = hub.ask(method, target, token=caller)
        unknown = hub.ask(method, missing.partition(" ")[2], token=caller)
        assert hidden.body.replace(b"mini", b"nowhere") == unknown.body  # no difference to see
        assert hidden.headers["x-error-code"] == unknown.headers["x-error-code"] == "RepoNotFound"


@pytest.mark.parametrize("what", WRITES)
def test_writing_is_for_writers_of_the_namespace(
    hub: InProcess, tokens: dict[str, str], what: str
) -> None:
    assert ask(hub, what) == 401
    assert ask(hub, what, tokens["reader"]) == 403
    assert ask(hub, what, tokens["stranger"]) == 403
    assert ask(hub, what, "sl_unknown") == 401
    assert ask(hub, what, tokens["writer"]) not in (401, 403)


def test_a_bad_token_is_refused_even_where_none_is_needed(
    hub: InProcess, tokens: dict[str, str], tmp_path: Path
) -> None:
    for what in READS:
        assert ask(hub, what, "sl_unknown") == 401
    answer = hub.ask("GET", "/api/whoami-v2", token="sl_unknown")
    assert answer.headers["x-error-message"] == "Invalid credentials in Authorization header"
    bob = next(token for token in list_tokens(tmp_path / "hub") if token.user == "bob")
    assert ask(hub, READS[0], tokens["reader"]) == 200
    revoke_token(tmp_path / "hub", bob.id)
    assert ask(hub, READS[0], tokens["reader"]) == 401  # at once, without a restart


def test_an_upload_link_ends_with_its_token(
    hub: InProcess, tokens: dict[str, str], tmp_path: Path
) -> None:
    sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    body = {"operation": "upload", "objects": [{"oid": sha256, "size": 5}]}
    batch = hub.ask("POST", "/team/mini.git/info/lfs/objects/batch", body, tokens["writer"])
    href = batch.json()["objects"][0]["actions"]["upload"]["href"].removeprefix("http://hub.test")
    other = href.replace(sha256, "0" * 64)
    assert hub.ask("PUT", other, b"hello").status == 403
    ann = next(token for token in list_tokens(tmp_path / "hub") if token.user == "ann")
    revoke_token(tmp_path / "hub", ann.id)
    assert hub.ask("PUT", href, b"hello").status == 403


def test_gated_shows_itself_but_not_its_files(hub: InProcess, tokens: dict[str, str]) -> None:
    change = {"gated": "manual"}
    assert hub.ask("PUT", "/api/models/team/mini/settings", change, tokens["writer"]).status == 200
    for caller, status in (("", 401), (tokens["stranger"], 403)):
        assert ask(hub, "GET /api/models/team/mini", caller) == 200
        for what in ("resolve/main/.gitattributes", "resolve/main/no.txt"):
            answer = hub.ask("GET", f"/team/mini/{what}", token=caller)
            assert (answer.status, answer.headers["x-error-code"]) == (status, "GatedRepo")
    assert ask(hub, READS[7], tokens["reader"]) == 200


def test_without_any_token_writing_says_how_to_make_one(tmp_path: Path) -> None:
    with InProcess(tmp_path) as hub:
        answer = hub.ask("POST", "/api/repos/create", NAMED)
        assert answer.status == 401
        assert "learners serve-token create USER" in answer.json()["error"]
        assert "none yet" in answer.json()["error"]
        assert str(tmp_path) not in answer.json()["error"]


def test_a_name_that_differs_in_case_alone_is_taken(hub: InProcess, tokens: dict[str, str]) -> None:
    body = json.dumps({"name": "MINI", "organization": "team"}).encode()
    assert hub.ask("POST", "/api/repos/create", body, tokens["writer"]).status == 409


def test_what_was_just_sent_is_not_sent_to_another(
    hub: InProcess, tokens: dict[str, str], tmp_path: Path
) -> None:
    """The same question is answered from memory: only while nothing has changed."""
    file, change = READS[7], {"visibility": "private"}
    for _ in range(3):
        assert ask(hub, file) == 200
    assert hub.ask("PUT", "/api/models/team/mini/settings", change, tokens["writer"]).status == 200
    for _ in range(3):
        assert ask(hub, file) == 404
        assert ask(hub, file, tokens["reader"]) == 200
        assert ask(hub, file, tokens["stranger"]) == 404
        assert ask(hub, file, "sl_unknown") == 401
    path = file.partition(" ")[2]
    for text in (b"one", b"two"):
        assert hub.commit(tokens["writer"], {".gitattributes": text}).status == 200
        for _ in range(2):
            assert hub.ask("GET", path, token=tokens["reader"]).body == text
    bob = next(token for token in list_tokens(tmp_path / "hub") if token.user == "bob")
    revoke_token(tmp_path / "hub", bob.id)
    assert ask(hub, file, tokens["reader"]) == 401


def test_two_tokens_at_once_open_nothing_for_one_of_them(
    hub: InProcess, tokens: dict[str, str]
) -> None:
    change, path = {"visibility": "private"}, READS[7].partition(" ")[2]
    assert hub.ask("PUT", "/api/models/team/mini/settings", change, tokens["writer"]).status == 200
    good, bad = (f"Bearer {text}".encode() for text in (tokens["reader"], "sl_unknown"))
    for pair in ((good, bad), (bad, good)):
        hub.ask("GET", path, headers=[(b"authorization", value) for value in pair])
    assert ask(hub, READS[7], "sl_unknown") == 401
    assert ask(hub, READS[7]) == 404
