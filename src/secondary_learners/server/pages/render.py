"""The pages as HTML. Where a link leads is asked of `Links`: a server and a folder differ in it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from secondary_learners.server.pages import charts
from secondary_learners.server.pages.artifacts import FACETS, Artifact
from secondary_learners.server.pages.choosing import SORTS, Choice, Chosen
from secondary_learners.server.pages.markdown import card_html
from secondary_learners.server.pages.probe import agreement, by_score, probe_texts
from secondary_learners.server.pages.snippets import Snippet

__all__ = [
    "Beside",
    "Links",
    "Page",
    "Tried",
    "artifact_page",
    "boards_page",
    "compare_page",
    "feed",
    "list_page",
    "tried_page",
]

_ON_A_BOARD, _BOARDS = 20, 50
_EXTREMES, _ALIKE, _SHADES, _STRONGEST = 4, 5, 4, 50


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

    @property
    def try_out(self) -> str:
        """Where a text is sent to be scored; empty where none is."""

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


@dataclass(frozen=True)
class Beside:
    """What an artifact's page shows besides itself.

    `snippets`: how it is used. `relatives`: what was derived from it. `probed`: learners to compare
    its scores of the probe set with. `longest`: of a text that may be tried, 0 for none.
    """

    snippets: Sequence[Snippet]
    relatives: Sequence[Artifact] = ()
    probed: Sequence[Artifact] = ()
    longest: int = 0


def artifact_page(page: Page, artifact: Artifact, beside: Beside) -> str:
    measured = artifact.measured
    texts = by_score(artifact.probe) if artifact.probe else []
    alike = [
        (agreement(artifact.probe, other.probe), other)
        for other in beside.probed
        if artifact.probe and other.name != artifact.name
    ]
    alike.sort(key=lambda pair: (-pair[0], pair[1].name))
    return page.render(
        "artifact.html",
        artifact=artifact,
        measured=measured,
        card=card_html(artifact.card),
        effect_chart=charts.runs(measured.runs, "perplexity, lower is better"),
        scores=charts.histogram(measured.quantiles),
        stale=charts.line(measured.staleness, "updates of the base model"),
        kept=charts.shares(measured.keep_rate),
        most=texts[:_EXTREMES],
        least=texts[: -_EXTREMES - 1 : -1],
        probe_count=len(texts),
        alike=alike[:_ALIKE],
        beside=beside,
    )


@dataclass(frozen=True)
class Tried:
    """`problem`: why there is no score. `tokens`: each with its share. `most`: characters taken."""

    most: int
    score: float = 0.0
    tokens: Sequence[tuple[str, float]] = ()
    problem: str = ""

    @property
    def shaded(self) -> list[tuple[str, float, str]]:
        """Each token, its share, and the class of the style sheet that it is shown in."""
        strongest = max((abs(share) for _, share in self.tokens), default=0.0) or 1.0
        return [
            (token, share, _shade(round(_SHADES * share / strongest)))
            for token, share in self.tokens
        ]

    @property
    def strongest(self) -> list[tuple[str, float]]:
        """The tokens that add or take most."""
        return sorted(self.tokens, key=lambda pair: -abs(pair[1]))[:_STRONGEST]


def tried_page(page: Page, artifact: Artifact, text: str, tried: Tried) -> str:
    """A text with what its learner says of it."""
    quantiles = artifact.measured.quantiles
    higher = bisect_left(quantiles, tried.score) / len(quantiles) if quantiles else None
    return page.render(
        "tried.html",
        artifact=artifact,
        text=text,
        tried=tried,
        longest=tried.most,
        higher=higher,
    )


def _shade(level: int) -> str:
    return f"up{level}" if level > 0 else f"down{-level}" if level < 0 else ""


def compare_page(page: Page, artifacts: Sequence[Artifact], missing: Sequence[str]) -> str:
    names = list(dict.fromkeys(name for a in artifacts for name, _ in a.measured.figures))
    figures = [
        (name, [dict(a.measured.figures).get(name, "") for a in artifacts]) for name in names
    ]
    probed = [artifact for artifact in artifacts if artifact.probe]
    return page.render(
        "compare.html",
        artifacts=artifacts,
        figures=figures,
        facets=FACETS,
        missing=missing,
        probed=probed,
        agreement=lambda a, b: agreement(a.probe, b.probe),
        texts=_disputed(probed),
    )


def _disputed(probed: Sequence[Artifact]) -> list[tuple[str, list[float]]]:
    """The texts of the probe set whose scores differ most, with each learner's score."""
    if len(probed) < 2:
        return []
    columns = zip(*(artifact.probe for artifact in probed), strict=True)
    rows = [(each.name, list(scores)) for each, scores in zip(probe_texts(), columns, strict=True)]
    rows.sort(key=lambda row: min(row[1]) - max(row[1]))
    return rows[: 2 * _EXTREMES]


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
    filters: Mapping[str, Any] = {
        "bytes": _bytes,
        "percent": lambda x: f"{100 * x:.1f} %",
        "score": lambda x: f"{x:+.2f}".replace("-", "−"),
    }
    environment.filters.update(filters)
    return environment
