"""The documentation site builds, every link in it leads somewhere, and it needs no network."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import secondary_learners
from secondary_learners.content import content
from secondary_learners.recipes.kinds import ROWS
from secondary_learners.recipes.parsing import recipe_names

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "secondary_learners"


class Page(HTMLParser):
    """The anchors of a page, where it links to, and what a browser fetches for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.fetched.append(values["src"])
        if tag == "link" and values.get("rel") not in ("prev", "next", "canonical"):
            self.fetched.append(values["href"])


def broken(site: Path) -> Iterator[str]:
    """Links that lead nowhere, anchors that are not there, and what comes from elsewhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    for path, page in pages.items():
        where = path.relative_to(site).as_posix()
        if where == "404.html":
            continue
        for address in page.fetched:
            if urlsplit(address).scheme not in ("", "data") or address.startswith("//"):
                yield f"{where} loads {address}"
        for address in (*page.links, *page.fetched):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{where}: {address} does not exist"
            elif (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].anchors
            ):
                yield f"{where}: {address} has no such anchor"


def test_a_broken_site_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a id="x" href="b.html#y"><a href="c.html"><a href="#x"><a href="https://example.org">'
        '<img src="https://example.org/a.png"><link rel="icon" href="d.png">',
        encoding="utf-8",
    )
    (tmp_path / "b.html").write_text("<p>", encoding="utf-8")
    assert list(broken(tmp_path)) == [
        "a.html loads https://example.org/a.png",
        "a.html: b.html#y has no such anchor",
        "a.html: c.html does not exist",
        "a.html: d.png does not exist",
    ]


@pytest.mark.slow
def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    site = tmp_path / "site"
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert list(broken(site)) == []
    scripts = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    assert not re.search(r"(unpkg|jsdelivr|googleapis|gstatic)\.", scripts)
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert "The learner that" in python  # docstrings came along
    commands = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    assert "Sentinel" not in commands and "\b" not in commands
    for kind in ROWS:
        assert json.loads((site / "schemas" / f"{kind}.json").read_text(encoding="utf-8"))["$defs"]


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    names = re.findall(r"^::: secondary_learners\.(\w+)$", page, re.M)
    assert sorted(names) == sorted(set(secondary_learners.__all__) - {"__version__"})


def test_every_environment_variable_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    source = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    read = set(re.findall(r'"((?:SECONDARY_LEARNERS|HF)_[A-Z_]+)"', source))
    read |= set(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', source))
    quiet = {"HF_HUB_CACHE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_XET"}
    assert {name for name in read - quiet if f"`{name}`" not in page} == set()
    assert "SECONDARY_LEARNERS_HOME" in read


def recipe_fields() -> ModuleType:
    pytest.importorskip("mkdocs")
    path = ROOT / "docs" / "hooks" / "recipe_fields.py"
    spec = importlib.util.spec_from_file_location("recipe_fields", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_schemas_accept_every_bundled_recipe_and_no_misspelled_field() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schemas = {kind: recipe_fields().schema(kind) for kind in ROWS}
    for name in recipe_names():
        values = tomllib.loads((content("recipes") / f"{name}.toml").read_text(encoding="utf-8"))
        check = jsonschema.Draft202012Validator(schemas[values.get("kind", "learner")])
        assert [error.message for error in check.iter_errors(values)] == []
        assert list(check.iter_errors({**values, "licens": "mit"}))
        assert list(check.iter_errors({**values, "seed": "one"}))


def test_a_field_of_a_recipe_has_its_type_its_default_and_its_meaning() -> None:
    tables = recipe_fields().tables()
    assert "| `max_length` | whole number | `128` | in tokens. |" in tables
    assert "| `files` | text | none | a file, folder or glob below the corpus folder" in tables
    assert '| `kind` | `"full"` or `"layers"` or `"mask"` | `"mask"` |' in tables
    assert tables.count("exactly one of files, dataset and builtin") == 1
