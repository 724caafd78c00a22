"""The same pages as a folder of files, for any web server."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from secondary_learners.server.pages.artifacts import FACETS, Artifact
from secondary_learners.server.pages.choosing import SORTS, Choice, choose
from secondary_learners.server.pages.render import (
    Beside,
    Page,
    artifact_page,
    boards_page,
    feed,
    list_page,
)
from secondary_learners.server.pages.snippets import snippets_for

__all__ = ["build_site"]


@dataclass(frozen=True)
class _FileLinks:
    """Relative to a page that lies `up` ("" or "../") below the folder, and shows `facets`."""

    up: str = ""
    facets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    compare: str = ""
    login: str = ""
    try_out: str = ""

    @property
    def style(self) -> str:
        return f"{self.up}style.css"

    @property
    def home(self) -> str:
        return f"{self.up}index.html"

    @property
    def boards(self) -> str:
        return f"{self.up}boards.html"

    @property
    def feed(self) -> str:
        return f"{self.up}feed.atom"

    def artifact(self, name: str) -> str:
        return f"{self.up}artifacts/{_slug(name)}.html"

    def listed(self, choice: Choice) -> str:
        """The list of one facet, that which this page does not show already; or all, sorted."""
        shown = {(facet, v) for facet, values in self.facets.items() for v in values}
        asked = {(facet, v) for facet, values in choice.facets.items() for v in values}
        one = asked if asked == shown else asked - shown
        return self.up + _list_path(Choice(facets=_facets(one), sort=choice.sort, page=choice.page))


def build_site(out: Path, title: str, artifacts: Sequence[Artifact], base: str = "") -> int:
    """Write all pages below `out`, and say how many. `base`: the address the feed names."""
    count, children = 0, defaultdict[str, list[Artifact]](list)
    for artifact in artifacts:
        for name in artifact.derived_from:
            children[name].append(artifact)
    probed = [artifact for artifact in artifacts if artifact.probe]
    for artifact in artifacts:
        page, snippets = Page(_FileLinks("../"), title), snippets_for(artifact.kind, artifact.name)
        beside = Beside(snippets, children[artifact.name][:50], probed)
        path = f"artifacts/{_slug(artifact.name)}.html"
        count += _write(out / path, artifact_page(page, artifact, beside))
    for choice in _choices(artifacts):
        chosen = choose(artifacts, choice)
        for number in range(1, chosen.pages + 1):
            asked = Choice((), choice.facets, choice.sort, number)
            path = _list_path(asked)
            page = Page(_FileLinks("../" if "/" in path else "", choice.facets), title)
            count += _write(out / path, list_page(page, asked, chosen.page(number)))
    page = Page(_FileLinks(), title)
    count += _write(out / "boards.html", boards_page(page, artifacts))
    count += _write(out / "feed.atom", feed(page, base, artifacts))
    rows = [{"name": artifact.name, **_row(artifact)} for artifact in artifacts]
    count += _write(out / "index.json", json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    style = files("secondary_learners.server.pages") / "templates" / "style.css"
    return count + _write(out / "style.css", style.read_text())


def _choices(artifacts: Iterable[Artifact]) -> list[Choice]:
    values = {(f, v) for a in artifacts for f in FACETS for v in a.facets.get(f, ())}
    return [
        *(Choice(sort=sort) for sort in SORTS),
        *(Choice(facets=_facets([pair])) for pair in sorted(values)),
    ]


def _facets(pairs: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    return {facet: frozenset([value]) for facet, value in sorted(pairs)[:1]}


def _list_path(choice: Choice) -> str:
    end = f"-{choice.page}" if choice.page > 1 else ""
    for facet, values in choice.facets.items():
        return f"{facet}/{_slug(min(values))}{end}.html"
    name = "index" if choice.sort == "name" else f"by-{choice.sort}"
    return f"{name}{end}.html"


def _slug(text: str) -> str:
    """A file name for any text: what is changed or long ends in a digest of the whole."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.")[:80]
    return plain if plain == text else f"{plain}-{sha256(text.encode()).hexdigest()[:8]}"


def _row(artifact: Artifact) -> dict[str, object]:
    facets = {facet: list(values) for facet, values in artifact.facets.items()}
    effect = artifact.effect.share if artifact.effect else None
    return {"date": artifact.source.date, "size": artifact.size, "effect": effect, **facets}


def _write(path: Path, text: str) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return 1
