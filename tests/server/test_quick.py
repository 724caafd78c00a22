"""Small files from memory: the same answer, and every change noticed at once."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from secondary_learners.server.store.tokens import list_tokens, revoke_token
from server_helpers import Server, running, token

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
PATH = "/team/mini/resolve/main/a.txt"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, HfApi]]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    root = tmp_path / "hub"
    ann = token(root, "ann", "write", ["team"])
    log = str(tmp_path / "access.jsonl")
    with running(root, "--access-log", log, "--requests-per-minute", "1000") as server:
        api = HfApi(server.url, token=ann)
        api.create_repo("team/mini")
        api.upload_file(repo_id="team/mini", path_or_fileobj=b"old", path_in_repo="a.txt")
        yield server, api


def ask(server: Server, *requests: str) -> list[tuple[str, str, str]]:
    """(status line, headers without the date, body) of each, sent at once on one connection."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    text = "".join(f"{request}\r\nHost: 127.0.0.1\r\n\r\n" for request in requests[:-1])
    text += f"{requests[-1]}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(text.encode())
        received = b""
        while piece := connection.recv(65536):
            received += piece
    answers = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        status, _, headers = head.decode().partition("\r\n")
        headers = re.sub(r"date: [^\r]*\r\n", "", headers + "\r\n")
        headers = headers.replace("connection: close\r\n", "")
        length = re.search(r"content-length: (\d+)", headers)
        size = int(length[1]) if length and not requests[len(answers)].startswith("HEAD") else 0
        answers.append((status, headers, received[:size].decode()))
        received = received[size:]
    return answers


def get(token: str = "", path: str = PATH, method: str = "GET") -> str:
    return f"{method} {path} HTTP/1.1" + (f"\r\nAuthorization: Bearer {token}" if token else "")


def test_the_same_answer_from_memory(served: tuple[Server, HfApi], tmp_path: Path) -> None:
    server, _ = served
    answers = ask(server, *[get()] * 6, get())
    assert len(answers) == 7 and len(set(answers)) == 1
    assert answers[0][0] == "HTTP/1.1 200 OK" and answers[0][2] == "old"
    mixed = ask(server, get(), get(method="HEAD"), get(), get(path="/api/models"), get(), get())
    assert [answer[2] for answer in mixed[:3]] == ["old", "", "old"]
    assert [answer[0] for answer in mixed] == ["HTTP/1.1 200 OK"] * 6
    ranged = ask(server, get() + "\r\nRange: bytes=1-1", get())
    assert [answer[2] for answer in ranged] == ["l", "old"]
    logged = (tmp_path / "access.jsonl").read_text()
    assert logged.count(f'"path": "{PATH}"') == 7 + 5 + 2


def test_a_change_is_noticed_at_once(served: tuple[Server, HfApi]) -> None:
    server, api = served
    for text in ("1", "2", "3"):
        api.upload_file(repo_id="team/mini", path_or_fileobj=text.encode(), path_in_repo="a.txt")
        assert [answer[2] for answer in ask(server, *[get()] * 4)] == [text] * 4


def test_who_may_no_longer_read(served: tuple[Server, HfApi]) -> None:
    server, api = served
    api.update_repo_settings("team/mini", private=True)
    ann = str(api.token)
    assert [answer[2] for answer in ask(server, *[get(ann)] * 4)] == ["old"] * 4
    assert ask(server, get())[0][0].startswith("HTTP/1.1 404")
    assert ask(server, get("sl_wrong"))[0][0].startswith("HTTP/1.1 401")
    revoke_token(server.root, list_tokens(server.root)[0].id)
    assert ask(server, get(ann))[0][0].startswith("HTTP/1.1 401")


def test_gates_stay_shut(served: tuple[Server, HfApi]) -> None:
    server, _ = served
    ask(server, *[get()] * 4)
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        text = f"GET {PATH} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        connection.sendall(text.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 421 ")
    statuses = {answer[0] for answer in ask(server, *[get()] * 1100)}
    assert statuses == {"HTTP/1.1 200 OK", "HTTP/1.1 429 Too Many Requests"}
