"""What the pages show of an artifact, read from its files and no further. Pure.

Everything in them was sent by someone: whatever has not the expected shape is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["FACETS", "Artifact", "ComparedArm", "Effect", "File", "PageSource", "read_artifact"]

FACETS = ("kind", "base", "objective", "corpus", "architecture", "license", "language")
# By what its config.json has, what an artifact is; the first that fits.
_KINDS = (
    ("calibration", "learner"),
    ("stored", "delta"),
    ("architectures", "base model"),
)
_LONGEST = 200


@dataclass(frozen=True)
class File:
    """A file of an artifact. `digest`: its sha256, or git's sha1 where that is all there is."""

    path: str
    size: int | None
    digest: str


@dataclass(frozen=True)
class PageSource:
    """Where an artifact is: its name, what its page is called, its dates and files.

    `readers`: the files that are read, by name. `private`: shown to members alone.
    """

    name: str
    kind: str
    summary: str
    date: str
    files: Sequence[File]
    readers: Mapping[str, bytes]
    history: Sequence[tuple[str, str, str]] = ()
    private: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparedArm:
    """One row of a comparison: perplexity with its standard error over seeds."""

    name: str
    kind: str
    value: float
    error: float


@dataclass(frozen=True)
class Effect:
    """How much lower a filtered run ended than random skipping at the same rate, as a share."""

    share: float
    error: float
    arm: str


@dataclass(frozen=True)
class Artifact:
    """What the pages know of one artifact. `facets`: by the names in FACETS, "" left out."""

    source: PageSource
    facets: Mapping[str, tuple[str, ...]]
    size: int
    card: str
    runs: Sequence[ComparedArm] = ()
    effect: Effect | None = None
    quantiles: Sequence[float] = ()
    liked: Sequence[str] = ()
    disliked: Sequence[str] = ()
    staleness: Sequence[tuple[float, float]] = ()
    figures: Sequence[tuple[str, str]] = ()
    derived_from: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def kind(self) -> str:
        return next(iter(self.facets.get("kind", ())), "")


def read_artifact(source: PageSource, metadata: Mapping[str, Any]) -> Artifact:
    """`metadata`: what is at the head of its card."""
    config = _object(source.readers.get("config.json"))
    evaluation = _object(source.readers.get("evaluation.json"))
    kind = source.kind or next((name for key, name in _KINDS if key in config), "")
    facets = {
        "kind": (kind,),
        "base": (source.facts.get("base") or _text(_within(config, "base_model", "repo")),),
        "objective": (
            source.facts.get("objective") or _text(_within(config, "objective", "domain")),
        ),
        "corpus": (source.facts.get("corpus") or _text(_within(config, "corpus", "name")),),
        "architecture": (source.facts.get("architecture") or _text(config.get("architecture")),),
        "license": _texts(metadata.get("license")) or (source.facts.get("license", ""),),
        "language": _texts(metadata.get("language")),
    }
    runs = _runs(evaluation)
    card = _body(source.readers.get("README.md", b""))
    return Artifact(
        source=replace(source, summary=source.summary or _first_paragraph(card)),
        facets={name: values for name, v in facets.items() if (values := tuple(filter(None, v)))},
        size=sum(file.size or 0 for file in source.files) or int(source.facts.get("size", 0)),
        card=card,
        runs=runs,
        effect=_effect(runs),
        quantiles=_numbers(_within(config, "calibration", "quantiles")),
        liked=_texts(_within(evaluation, "tokens", "raise")),
        disliked=_texts(_within(evaluation, "tokens", "lower")),
        staleness=_staleness(evaluation),
        figures=tuple(_figures(config, evaluation)),
        derived_from=_texts(metadata.get("base_model")),
    )


def _runs(evaluation: Mapping[str, Any]) -> tuple[ComparedArm, ...]:
    rows = _within(evaluation, "fine_tuning", "rows")
    runs = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict):
            value, error = _number(row.get("perplexity")), _number(row.get("error"))
            if value is not None:
                runs.append(
                    ComparedArm(_text(row.get("arm")), _text(row.get("kind")), value, error or 0.0)
                )
    return tuple(runs[:20])


def _effect(runs: Sequence[ComparedArm]) -> Effect | None:
    """That of the best filtered run, where random skipping at its rate was measured too."""
    blind = {run.name.removeprefix("random "): run for run in runs if run.kind == "random"}
    effects = []
    for run in runs:
        other = blind.get(run.name)
        if run.kind == "filtered" and other is not None and other.value > 0:
            share = (other.value - run.value) / other.value
            error = math.hypot(other.error, run.error) / other.value
            effects.append(Effect(share, error, run.name))
    return max(effects, key=lambda effect: effect.share, default=None)


def _staleness(evaluation: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    """(updates, rank correlation) where it was measured on later weights of its own base."""
    rows = evaluation.get("transfer")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    points = []
    for row in rows:
        if row.get("base") == rows[0].get("base"):
            at, value = _number(row.get("updates")), _number(row.get("spearman"))
            if at is not None and value is not None:
                points.append((at, value))
    return tuple(sorted(points))


def _figures(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    architecture = _text(config.get("architecture"))
    shares: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("rank correlation on unseen text", ("held_out", architecture, "spearman")),
        ("R² on unseen text", ("held_out", architecture, "r2")),
        ("rank correlation of the labels with exact ones", ("labels", "spearman_with_exact")),
        ("accuracy", ("metrics", "accuracy")),
    )
    counts: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("labels", ("labels", "count")),
        ("seeds", ("fine_tuning", "seeds")),
        ("parameters", ("parameters",)),
    )
    for rows, form in ((shares, ".3f"), (counts, ",.0f")):
        for name, keys in rows:
            value = _number(_within(evaluation, *keys))
            if value is not None:
                yield name, format(value, form)
    for name, key in (("measured on", "device"), ("made with", "command")):
        if text := _text(evaluation.get(key)):
            yield name, text


def _object(data: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _within(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: object) -> str:
    return value.strip()[:_LONGEST] if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(text for item in values[:50] if (text := _text(item)))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 1e15 else None


def _numbers(value: object) -> tuple[float, ...]:
    values = value if isinstance(value, list) else []
    numbers = [_number(item) for item in values[:1001]]
    return () if None in numbers else tuple(number for number in numbers if number is not None)


def _body(readme: bytes) -> str:
    """The card without the metadata at its head."""
    text = readme[:262_144].decode(errors="replace").lstrip("\ufeff").replace("\r\n", "\n")
    if text.startswith("---\n"):
        _, end, rest = text.removeprefix("---").partition("\n---")
        return rest.partition("\n")[2] if end else text
    return text


def _first_paragraph(card: str) -> str:
    """The first lines of prose, for the list: what they mark up is read as it is written."""
    for paragraph in card[:10_000].split("\n\n"):
        text = " ".join(paragraph.split())
        if text and text[0] not in "#<|!`-*>[":
            return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return ""
