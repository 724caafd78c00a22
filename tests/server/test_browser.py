"""The pages in a real browser: what is clicked, typed, copied and seen, by whom and how wide."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli_helpers import learners
from secondary_learners.content import content
from server_helpers import InProcess, Server, running, token

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytest.importorskip("playwright", reason="needs playwright: pip install playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt install chromium"),
]

HOSTILE = """---
license: mit
---
# <script>document.title = "owned"</script>

<img src=x onerror="document.title='owned'"> <svg onload="document.title='owned'"></svg>
<iframe src="https://evil.example"></iframe> <style>* { display: none }</style>

[click](javascript:document.title='owned') ![pixel](https://evil.example/p.gif)
<a id=raw href="javascript:document.title='owned'" onclick="document.title='owned'">raw</a>

| a | b |
|---|---|
| a_word_without_any_place_to_break_it_that_is_wider_than_a_narrow_window_by_far | 2 |
"""


@pytest.fixture(scope="module")
def tokens() -> dict[str, str]:
    """By user: filled where the hub is made."""
    return {}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tokens: dict[str, str]) -> Iterator[Server]:
    """A server with two learners, a base model, a data set, a private copy and a hostile card."""
    root = tmp_path_factory.mktemp("browser") / "hub"
    ships = {"books-mini": "books-mini", "docs": "python-docs-mini", "secret": "books-mini"}
    with InProcess(root) as hub:
        tokens["ann"] = ann = token(root, "ann", "write", ["team"])
        for name in (*ships, "mini", "hostile", "texts"):
            body = {"name": name, "organization": "team", "private": name == "secret"}
            body |= {"type": "dataset"} if name == "texts" else {}
            assert hub.ask("POST", "/api/repos/create", body, ann).status == 200
        for name, shipped in {**ships, "mini": "mini"}.items():
            folder = content("learners") / shipped
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            assert hub.commit(ann, files, f"team/{name}").status == 200
        assert hub.commit(ann, {"README.md": HOSTILE.encode()}, "team/hostile").status == 200
    with running(root) as server:
        yield server


@pytest.fixture(scope="module")
def browser(site: Server) -> Iterator[Browser]:
    """One for the module. While it is open, its loop is this thread's: the hub is made before."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, site: Server) -> Iterator[Page]:
    """A page of a visitor of one's own; what its console complains of fails the test."""
    yield from visit(browser, site)


def visit(browser: Browser, site: Server, **options: Any) -> Iterator[Page]:
    context = browser.new_context(base_url=site.url, **options)
    context.set_default_timeout(20_000)
    page, problems = context.new_page(), list[str]()
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    assert [problem for problem in problems if "the server responded with" not in problem] == []


def listed(page: Page, names: list[str]) -> None:
    """The list shows these, or does so soon."""
    from playwright.sync_api import expect

    expect(page.locator(".artifacts h3 a")).to_have_text(names)


def names(page: Page) -> list[str]:
    page.wait_for_load_state()
    return page.locator(".artifacts h3 a").all_inner_texts()


def headed(page: Page, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator("h1")).to_have_text(text)


def open_all(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")


def sign_in(page: Page, text: str) -> None:
    page.goto("/")
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Your token").fill(text)
    page.get_by_role("button", name="Sign in").click()


ALL = ["datasets/team/texts", "team/books-mini", "team/docs", "team/hostile", "team/mini"]


class TestList:
    def test_search(self, page: Page) -> None:
        page.goto("/")
        listed(page, ALL)
        page.get_by_role("searchbox").fill("BOOKS general")
        page.keyboard.press("Enter")
        listed(page, ["team/books-mini"])
        page.get_by_role("searchbox").fill("nothing like it")
        page.get_by_role("button", name="Search").click()
        listed(page, [])
        page.get_by_role("link", name="Show all.").click()
        listed(page, ALL)

    def test_every_facet_shows_as_many_as_it_says(self, page: Page) -> None:
        from playwright.sync_api import expect

        page.goto("/")
        facets = page.locator("aside section")
        headings = facets.locator("h2").all_inner_texts()
        assert [heading.lower() for heading in headings] == [
            *("kind", "base", "objective", "corpus", "architecture", "license", "language")
        ]
        tried = 0
        for heading in range(len(headings)):
            for value in range(facets.nth(heading).locator("a").count()):
                link = facets.nth(heading).locator("a").nth(value)
                count = int(link.locator(".count").inner_text())
                link.click()
                expect(page.locator("aside a.on")).to_have_attribute("aria-current", "true")
                expect(page.locator(".artifacts h3 a")).to_have_count(count)
                page.locator("aside a.on").click()  # the same link takes it back
                listed(page, ALL)
                tried += 1
        assert tried > len(headings)

    def test_sorting(self, page: Page) -> None:
        page.goto("/")
        page.get_by_role("link", name="effect", exact=True).click()
        page.wait_for_url("**/?sort=effect")
        by_effect = names(page)
        effects = page.locator(".artifacts .facts strong").all_inner_texts()
        shares = [float(text.removesuffix(" %")) for text in effects]
        assert by_effect[:2] == ["team/docs", "team/books-mini"]
        assert shares == sorted(shares, reverse=True) and len(shares) == 2

    def test_compare(self, page: Page) -> None:
        page.goto("/")
        for name in ("team/books-mini", "team/docs"):
            page.get_by_role("checkbox", name=f"Compare {name}").check()
        page.get_by_role("button", name="Compare the ticked").click()
        headed(page, "Compare")
        assert page.locator(".compare thead th").all_inner_texts() == [
            "team/books-mini",
            "team/docs",
        ]
        assert "below random skipping" in page.locator("table").first.inner_text()


class TestArtifact:
    def test_a_snippet_copied_and_run(self, page: Page, tmp_path: Path) -> None:
        page.goto("/team/books-mini")
        page.locator("details[open] pre code").click()  # one click selects all of it
        copied = page.evaluate("getSelection().toString()")
        script = f"{copied}\nprint(learner)"
        done = self.run([sys.executable, "-c", script], tmp_path)
        assert "<Learner 'books-mini': linear, for mini>" in done.stdout, done.stderr

    def test_a_command_copied_and_run(self, page: Page, tmp_path: Path) -> None:
        page.goto("/team/books-mini")
        page.get_by_text("Lock", exact=True).click()
        page.locator("pre[data-language=shell] code").last.click()
        copied = page.evaluate("getSelection().toString()")
        (tmp_path / "learners").write_text(
            f'#!/bin/sh\nexec {sys.executable} -m secondary_learners "$@"\n'
        )
        (tmp_path / "learners").chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = self.run(["sh", "-c", copied], tmp_path, PATH=path)
        assert done.returncode == 0, done.stderr
        assert "team/books-mini" in (tmp_path / "learners.lock").read_text()

    def run(
        self, command: list[str], home: Path, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """As someone who has nothing of this hub yet, and no settings."""
        own = {"HF_HOME": str(home / "hf"), "SECONDARY_LEARNERS_HOME": str(home / "own")}
        environment = {**os.environ, **own, **variables}
        for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN"):
            environment.pop(name, None)
        return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)

    def test_a_hostile_card_does_nothing(self, page: Page) -> None:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto("/team/hostile")
        assert page.locator("h1").inner_text() == "team/hostile"
        for link in page.locator(".card a").all():
            assert re.match("https?://", link.get_attribute("href") or "")
        page.wait_for_load_state("networkidle")
        assert page.title() == "team/hostile · Learners"
        assert page.locator(".card script, .card img, .card iframe, .card style").count() == 0
        assert not any("evil.example" in url for url in asked)


class TestTrying:
    def test_a_text(self, page: Page) -> None:
        page.goto("/team/books-mini")
        self.try_it(page, '"Come in," she said.')
        assert page.locator(".tokens").inner_text() == '"Come in," she said.'
        assert page.locator(".tokens .up4").count() >= 1
        assert page.get_by_label("A text to score").input_value() == '"Come in," she said.'
        self.try_it(page, "<script>document.title = 'owned'</script>")
        assert page.title() == "Try team/books-mini · Learners"

    def test_without_javascript(self, browser: Browser, site: Server) -> None:
        for page in visit(browser, site, java_script_enabled=False):
            page.goto("/team/books-mini")
            self.try_it(page, "a text")

    def try_it(self, page: Page, text: str) -> None:
        from playwright.sync_api import expect

        page.get_by_label("A text to score").fill(text)
        page.get_by_role("button", name="Score it").click()
        expect(page.get_by_text("standard deviations from the average")).to_be_visible()
        expect(page.locator(".tokens")).to_have_text(text)

    def test_texts_of_the_probe_set(self, page: Page) -> None:
        self.reload_until(page, "/team/docs", "Likes most")
        assert page.locator(".texts li").count() == 8
        self.reload_until(page, COMPARED, "Rank agreement")
        table = page.get_by_role("region", name="Rank agreement")
        assert table.locator("td").nth(1).inner_text() == "+1.00"

    def reload_until(self, page: Page, path: str, text: str) -> None:
        for _ in range(100):
            page.goto(path)
            if page.get_by_text(text, exact=True).count():
                return
            page.wait_for_timeout(100)
        pytest.fail(f"{text!r} never came")


class TestSigningIn:
    def test_with_a_token(self, page: Page, tokens: dict[str, str]) -> None:
        sign_in(page, "sl_wrong")
        assert page.get_by_role("alert").inner_text() == "Nobody has this token."
        sign_in(page, tokens["ann"])
        listed(page, [*ALL, "team/secret"])
        page.get_by_role("link", name="team/secret").click()
        headed(page, "team/secret")
        assert all(cookie["httpOnly"] for cookie in page.context.cookies())
        page.get_by_role("button", name="Sign out").click()
        listed(page, ALL)
        assert page.goto("/team/secret").status == 404  # type: ignore[union-attr]


PATHS = ("/", "/team/books-mini", "/team/hostile", "/datasets/team/texts", "/boards", "/login")
COMPARED = "/compare?a=team/books-mini&a=team/docs"
EVERY = (*PATHS, COMPARED, "/team/nothing")


def test_without_javascript(browser: Browser, site: Server, tokens: dict[str, str]) -> None:
    for page in visit(browser, site, java_script_enabled=False):
        sign_in(page, tokens["ann"])
        page.get_by_role("searchbox").fill("secret")
        page.keyboard.press("Enter")
        listed(page, ["team/secret"])
        page.get_by_role("link", name="team/secret").click()
        page.get_by_text("Trainer", exact=True).click()
        assert page.get_by_text("FilteredTrainer(").is_visible()
        page.goto(COMPARED)
        assert page.locator(".compare thead th").count() == 2


@pytest.mark.parametrize("path", EVERY)
def test_nothing_is_wider_than_360_pixels(browser: Browser, site: Server, path: str) -> None:
    for page in visit(browser, site, viewport={"width": 360, "height": 740}):
        page.goto(path)
        open_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 360


class TestKeyboard:
    def test_skip_link(self, page: Page) -> None:
        page.goto("/")
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUSED)["text"] == "Skip to the content"
        box = page.locator(".skip").bounding_box()
        assert box is not None and box["x"] >= 0 and box["y"] >= 0
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUSED)["in_main"]

    @pytest.mark.parametrize("path", EVERY)
    def test_all_is_reached_in_its_order_and_seen(self, page: Page, path: str) -> None:
        """Tab goes through all that can be focused, from above to below, each with an outline."""
        page.goto(path)
        count = page.evaluate(FOCUSABLE)
        order = []
        for _ in range(count):
            page.keyboard.press("Tab")
            focused = page.evaluate(FOCUSED)
            assert focused["outline"], focused
            order.append(focused["at"])
        assert order == list(range(count))

    def test_from_the_list_to_a_comparison(self, page: Page) -> None:
        page.goto("/")
        for name in ("team/books-mini", "team/docs"):
            self.tab_to(page, f"Compare {name}")
            page.keyboard.press("Space")
        self.tab_to(page, "Compare the ticked")
        page.keyboard.press("Enter")
        page.wait_for_url("**/compare?**")
        assert page.locator(".compare thead th").count() == 2

    def test_a_snippet_is_opened(self, page: Page) -> None:
        page.goto("/team/books-mini")
        self.tab_to(page, "TRL")
        page.keyboard.press("Enter")
        assert page.get_by_text("FilteredSFTTrainer(").is_visible()

    def tab_to(self, page: Page, name: str) -> None:
        for _ in range(100):
            page.keyboard.press("Tab")
            if page.evaluate(FOCUSED)["text"] == name:
                return
        pytest.fail(f"Tab never came to {name!r}")


_ALL = (
    "[...document.querySelectorAll('a[href], button, input:not([type=hidden]), textarea, select, "
    'summary, [tabindex="0"]\')].filter(e => e.checkVisibility())'
)
FOCUSABLE = f"{_ALL}.length"
FOCUSED = f"""() => {{
  const e = document.activeElement, style = getComputedStyle(e);
  return {{
    at: {_ALL}.indexOf(e),
    text: e.getAttribute('aria-label') || e.textContent.trim(),
    in_main: document.querySelector('main').contains(e),
    outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
  }}
}}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, site: Server, scheme: str) -> None:
    module = pytest.importorskip("axe_playwright_python.sync_playwright")
    for page in visit(browser, site, color_scheme=scheme):
        for path in EVERY:
            page.goto(path)
            open_all(page)
            if page.get_by_label("A text to score").count():
                TestTrying().try_it(page, '"Come in!" she said: economy, code, program.')
                open_all(page)
                check(page, module)
                page.goto(path)
                open_all(page)
            check(page, module)


def check(page: Page, axe: Any) -> None:
    violations = axe.Axe().run(page).response["violations"]
    assert [
        (page.url, each["id"], each["impact"], [node["html"] for node in each["nodes"]][:3])
        for each in violations
    ] == []


class TestStatic:
    """`learners catalogue build`: the same pages, opened from the disk."""

    def test_from_the_list_to_a_learner(self, browser: Browser, tmp_path: Path) -> None:
        folder = tmp_path / "out"
        assert learners("catalogue", "build", folder).code == 0
        context = browser.new_context(viewport={"width": 360, "height": 740})
        page = context.new_page()
        page.goto((folder / "index.html").as_uri())
        page.get_by_role("link", name=re.compile("^learner")).click()
        page.wait_for_url("**/kind/learner.html")
        assert "mini" not in names(page) and "books-mini" in names(page)
        page.get_by_role("link", name="books-mini", exact=True).click()
        headed(page, "books-mini")
        for path in ("index.html", "boards.html", "artifacts/books-mini.html"):
            page.goto((folder / path).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == 360
        context.close()
