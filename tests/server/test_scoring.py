"""Texts scored for the pages: by a process beside the server, which may do whatever it likes."""

from __future__ import annotations

import html
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from secondary_learners.content import content
from secondary_learners.engines.answering import COMMAND
from secondary_learners.files import sha256_file
from secondary_learners.server.app import Front
from secondary_learners.server.errors import Refused
from secondary_learners.server.judge import Judge, Material, NotScored
from secondary_learners.server.pages.probe import agreement, by_score, probe_texts
from secondary_learners.server.pages.scoring import LONGEST_TEXT
from server_helpers import Answer, InProcess, token

LEARNER = content("learners") / "books-mini"
FILES = ("README.md", "config.json", "evaluation.json", "model.safetensors", "recipe.toml")
# Scores by the number of letters; does what some texts say.
STAND_IN = """\
import json, os, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    if "sleep" in asked["texts"]: time.sleep(600)
    if "die" in asked["texts"]: os._exit(1)
    if "refuse" in asked["texts"]: print(json.dumps({"error": "it <b>refuses</b>."}), flush=True)
    else:
        each = [{"score": len(t) / 100, "tokens": [[t[:1], 1.0], [t[1:], -0.25]]} if t.strip()
                else None for t in asked["texts"]]
        print(json.dumps({"explained": each}), flush=True)
"""


def material(folder: Path = LEARNER) -> Material:
    paths = {name: folder / name for name in FILES}
    return Material(paths, {name: sha256_file(path) for name, path in paths.items()})


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    return (sys.executable, str(script))


@pytest.fixture
def hub(tmp_path: Path, command: tuple[str, ...]) -> Iterator[InProcess]:
    """team/a and team/b, the same learner but for a config; team/secret for members."""
    with InProcess(tmp_path / "hub", front=Front(scorer=command)) as hub:
        ann = token(tmp_path / "hub", "ann", "write", ["team"])
        files = {name: (LEARNER / name).read_bytes() for name in FILES}
        for name in ("a", "b", "secret"):
            body = {"name": name, "organization": "team", "private": name == "secret"}
            assert hub.ask("POST", "/api/repos/create", body, ann).status == 200
            files["README.md"] = name.encode()
            assert hub.commit(ann, files, f"team/{name}").status == 200
        yield hub


def send(hub: InProcess, text: str, name: str = "team/a", **headers: str) -> Answer:
    body = urlencode({"a": name, "text": text}).encode()
    return hub.ask("POST", "/try", body, headers={"Accept": "text/html", **headers})


def soon(text: Callable[[], str], words: str) -> str:
    """The text as soon as it has the words."""
    for _ in range(300):
        if words in (shown := text()):
            return shown
        time.sleep(0.05)
    raise AssertionError(f"{words!r} never came")


def shown(hub: InProcess, path: str) -> Callable[[], str]:
    return lambda: hub.ask("GET", path, headers={"Accept": "text/html"}).body.decode()


class TestTrying:
    def test_a_score_and_colored_tokens(self, hub: InProcess) -> None:
        answer = send(hub, "<i>hello</i>\r\n& more")
        shown = answer.body.decode()
        assert answer.status == 200 and "+0.19" in shown
        assert '<span class="up4" title="+1.00">&lt;</span>' in shown
        assert '<span class="down1" title="−0.25">i&gt;hello&lt;/i&gt;\n&amp; more</span>' in shown
        assert "default-src 'none'" in answer.headers["content-security-policy"]

    def test_what_cannot_be_scored_is_said(self, hub: InProcess) -> None:
        assert "There is no text to score." in send(hub, "  ").body.decode()
        assert "it &lt;b&gt;refuses&lt;/b&gt;." in send(hub, "refuse").body.decode()
        assert "took too long, or more memory" in send(hub, "die").body.decode()
        assert "+0.02" in send(hub, "so").body.decode()  # a new process goes on

    def test_limits(self, hub: InProcess) -> None:
        assert send(hub, "x" * (LONGEST_TEXT + 1)).status == 413
        assert send(hub, "é" * LONGEST_TEXT).status == 200
        assert send(hub, "x" * 500_000).status == 413
        statuses = [send(hub, "x").status for _ in range(40)]
        assert 429 in statuses and "too often" in send(hub, "x").body.decode()
        body = urlencode({"a": "team/a", "text": "x"}).encode()
        assert hub.ask("POST", "/try", body, client="10.0.0.9").status == 200  # another sender

    def test_only_what_may_be_seen(self, hub: InProcess) -> None:
        assert send(hub, "x", "team/secret").status == 404
        assert send(hub, "x", "team/none").status == send(hub, "x", "\0").status == 404
        assert send(hub, "x", **{"Sec-Fetch-Site": "cross-site"}).status == 403

    def test_off_unless_asked(self, tmp_path: Path) -> None:
        with InProcess(tmp_path / "other") as plain:
            assert plain.ask("POST", "/try", b"a=team/a&text=x").status == 404
            assert b"/try" not in plain.ask("GET", "/", headers={"Accept": "text/html"}).body


class TestProbeSet:
    def test_texts_and_agreement(self, hub: InProcess) -> None:
        assert "The probe set is being scored" in shown(hub, "/team/a")()
        text = html.unescape(soon(shown(hub, "/team/a"), "texts of the probe set"))
        longest, _ = by_score([len(each.text) for each in probe_texts()])[0]
        assert text.index(longest.name) < text.index("Likes least")
        soon(shown(hub, "/team/b"), '<a href="/team/a">team/a</a> (+1.00)')
        compared = soon(shown(hub, "/compare?a=team/a&a=team/b"), "Rank agreement")
        assert compared.count("<td>+1.00</td>") == 4

    def test_files_that_are_missing_are_said(self, hub: InProcess, tmp_path: Path) -> None:
        ann = token(tmp_path / "hub", "ann", "write", ["team"])
        body = {"name": "part", "organization": "team"}
        assert hub.ask("POST", "/api/repos/create", body, ann).status == 200
        config = {"config.json": (LEARNER / "config.json").read_bytes()}
        assert hub.commit(ann, config, "team/part").status == 200
        soon(shown(hub, "/team/part"), "its files are not all here")

    def test_the_texts(self) -> None:
        names = [each.name for each in probe_texts()]
        assert len(set(names)) == len(names) >= 40
        assert all(100 < len(each.text) < 400 for each in probe_texts())

    @pytest.mark.parametrize(
        ("one", "other", "expected"),
        [
            ([1, 2, 3], [10, 20, 30], 1.0),
            ([1, 2, 3], [3, 2, 1], -1.0),
            ([1, 1, 2], [1, 2, 3], 0.8660254),  # as scipy.stats.spearmanr
            ([1, 1, 1], [1, 2, 3], 0.0),
        ],
    )
    def test_rank_agreement(self, one: list[float], other: list[float], expected: float) -> None:
        assert agreement(one, other) == pytest.approx(expected)


class TestJudge:
    def test_one_that_does_not_end_is_ended(self, command: tuple[str, ...]) -> None:
        judge = Judge(command, deadline_s=0.5)
        with pytest.raises(NotScored, match="too long"):
            judge.explain(material(), ["sleep"])
        judge = Judge(command)
        assert judge.explain(material(), ["abcde"])[0].score == 0.05  # type: ignore[union-attr]
        judge.close()
        with pytest.raises(NotScored, match="ending"):
            judge.explain(material(), ["x"])

    def test_too_many_who_wait_are_refused(self, command: tuple[str, ...]) -> None:
        judge = Judge(command)
        for _ in range(8):
            assert judge._places.acquire(blocking=False)
        with pytest.raises(Refused, match="Too many") as refused:
            judge.explain(material(), ["x"])
        assert refused.value.status == 503

    @pytest.mark.slow
    def test_the_real_one(self, tmp_path: Path) -> None:
        """A learner that ships, then one with a changed file, then the first again."""
        judge = Judge(COMMAND)
        changed = tmp_path / "changed"
        changed.mkdir()
        for name in FILES:
            (changed / name).write_bytes((LEARNER / name).read_bytes())
        wrong = Material(
            {name: changed / name for name in FILES}, {**material().digests, "config.json": "0"}
        )
        story = '"Come in," she said, looking round at me.'
        first, empty = judge.explain(material(), [story, " "])
        assert empty is None and first is not None and first.score > 1
        assert "".join(token for token, _ in first.tokens) == story
        with pytest.raises(NotScored, match="its sha256 should be"):
            judge.explain(wrong, [story])
        other = json.loads((LEARNER / "config.json").read_text())
        other["tokenizer"]["repo"] = "nobody/nothing"
        (changed / "config.json").write_text(json.dumps(other))
        with pytest.raises(NotScored, match="tokenizer of nobody/nothing is not on this machine"):
            judge.explain(material(changed), [story])
        assert judge.explain(material(), [story]) == [first]
        judge.close()
