"""The pages as HTML. Where a link leads is asked of `Links`: a server and a folder differ in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from secondary_learners.server.pages import charts
from secondary_learners.server.pages.artifacts import FACETS, Artifact
from secondary_learners.server.pages.choosing import SORTS, Choice, Chosen
from secondary_learners.server.pages.markdown import card_html
from secondary_learners.server.pages.snippets import Snippet

__all__ = ["Links", "Page", "artifact_page", "boards_page", "compare_page", "feed", "list_page"]

_ON_A_BOARD, _BOARDS = 20, 50


class Links(Protocol):
    """Where things are, as a page links to them."""

    @property
    def style(self) -> str: ...

    @property
    def home(self) -> str: ...

    @property
    def boards(self) -> str: ...

    @property
    def feed(self) -> str: ...

    @property
    def compare(self) -> str:
        """Empty where a page cannot be asked for what to compare."""

    @property
    def login(self) -> str:
        """Empty where nobody signs in."""

    def artifact(self, name: str) -> str: ...

    def listed(self, choice: Choice) -> str: ...


@dataclass(frozen=True)
class Page:
    """What all pages share: links, what the catalogue is called, and who is signed in."""

    links: Links
    title: str
    user: str = ""
    csrf: str = ""

    def render(self, template: str, **values: Any) -> str:
        return _environment().get_template(template).render(page=self, links=self.links, **values)


def list_page(page: Page, choice: Choice, chosen: Chosen) -> str:
    def toggled(facet: str, value: str) -> str:
        values = choice.facets.get(facet, frozenset()) ^ {value}
        facets = {name: v for name, v in {**choice.facets, facet: values}.items() if v}
        return page.links.listed(Choice(choice.words, facets, choice.sort))

    def sorted_by(sort: str) -> str:
        return page.links.listed(Choice(choice.words, choice.facets, sort))

    def paged(number: int) -> str:
        return page.links.listed(Choice(choice.words, choice.facets, choice.sort, number))

    return page.render(
        "list.html",
        choice=choice,
        chosen=chosen,
        facets=FACETS,
        sorts=list(SORTS),
        toggled=toggled,
        sorted_by=sorted_by,
        paged=paged,
    )


def artifact_page(
    page: Page, artifact: Artifact, snippets: Sequence[Snippet], relatives: Sequence[Artifact]
) -> str:
    """`relatives`: what was derived from it."""
    return page.render(
        "artifact.html",
        artifact=artifact,
        card=card_html(artifact.card),
        effect_chart=charts.runs(artifact.runs, "perplexity, lower is better"),
        scores=charts.histogram(artifact.quantiles),
        stale=charts.line(artifact.staleness, "updates of the base model"),
        snippets=snippets,
        relatives=relatives,
    )


def compare_page(page: Page, artifacts: Sequence[Artifact], missing: Sequence[str]) -> str:
    names = list(dict.fromkeys(name for a in artifacts for name, _ in a.figures))
    figures = [(name, [dict(a.figures).get(name, "") for a in artifacts]) for name in names]
    return page.render(
        "compare.html", artifacts=artifacts, figures=figures, facets=FACETS, missing=missing
    )


def boards_page(page: Page, artifacts: Iterable[Artifact]) -> str:
    """Learners of one objective by measured effect; random skipping is 0 by definition."""
    boards: dict[str, list[Artifact]] = {}
    for artifact in artifacts:
        if artifact.effect is not None:
            objective = ", ".join(artifact.facets.get("objective", ("no objective",)))
            boards.setdefault(objective, []).append(artifact)
    for rows in boards.values():
        rows.sort(key=lambda a: -a.effect.share if a.effect else 0.0)
        del rows[_ON_A_BOARD:]
    largest = sorted(boards, key=lambda objective: (-len(boards[objective]), objective))[:_BOARDS]
    return page.render("boards.html", boards={name: boards[name] for name in sorted(largest)})


def feed(page: Page, base: str, artifacts: Sequence[Artifact]) -> str:
    """The newest as an Atom feed. `base`: the address that the links are relative to."""
    newest = sorted(artifacts, key=lambda a: a.source.date, reverse=True)[:50]
    return page.render("feed.xml", base=base.rstrip("/"), artifacts=newest)


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("secondary_learners.server.pages"),
        autoescape=select_autoescape(("html", "xml")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, Any] = {"bytes": _bytes, "percent": lambda x: f"{100 * x:.1f} %"}
    environment.filters.update(filters)
    return environment
