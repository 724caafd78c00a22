"""What the pages show of an artifact, read from its files and no further. Pure.

Everything in them was sent by someone: whatever has not the expected shape is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from secondary_learners.server.pages.evaluation import (
    Effect,
    Evaluation,
    json_object,
    read_evaluation,
    text,
    texts,
    within,
)

__all__ = ["FACETS", "Artifact", "File", "PageSource", "read_artifact"]

FACETS = ("kind", "base", "objective", "corpus", "architecture", "license", "language")
# By what its config.json has, what an artifact is; the first that fits.
_KINDS = (
    ("calibration", "learner"),
    ("stored", "delta"),
    ("architectures", "base model"),
)
_SUMMARY = 200


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
class Artifact:
    """What the pages know of one artifact. `facets`: by the names in FACETS, "" left out.

    `probe`: a learner's scores of the probe set, or `unscored`: why there are none.
    """

    source: PageSource
    facets: Mapping[str, tuple[str, ...]]
    size: int
    card: str
    measured: Evaluation
    derived_from: Sequence[str] = ()
    probe: Sequence[float] = ()
    unscored: str = ""

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def effect(self) -> Effect | None:
        return self.measured.effect

    @property
    def kind(self) -> str:
        return next(iter(self.facets.get("kind", ())), "")


def read_artifact(source: PageSource, metadata: Mapping[str, Any]) -> Artifact:
    """`metadata`: what is at the head of its card."""
    config = json_object(source.readers.get("config.json"))
    evaluation = json_object(source.readers.get("evaluation.json"))
    kind = source.kind or next((name for key, name in _KINDS if key in config), "")
    facets = {
        "kind": (kind,),
        "base": (source.facts.get("base") or text(within(config, "base_model", "repo")),),
        "objective": (
            source.facts.get("objective") or text(within(config, "objective", "domain")),
        ),
        "corpus": (source.facts.get("corpus") or text(within(config, "corpus", "name")),),
        "architecture": (source.facts.get("architecture") or text(config.get("architecture")),),
        "license": texts(metadata.get("license")) or (source.facts.get("license", ""),),
        "language": texts(metadata.get("language")),
    }
    card = _body(source.readers.get("README.md", b""))
    return Artifact(
        source=replace(source, summary=source.summary or _first_paragraph(card)),
        facets={name: values for name, v in facets.items() if (values := tuple(filter(None, v)))},
        size=sum(file.size or 0 for file in source.files) or int(source.facts.get("size", 0)),
        card=card,
        measured=read_evaluation(config, evaluation),
        derived_from=texts(metadata.get("base_model")),
    )


def _body(readme: bytes) -> str:
    """The card without the metadata at its head."""
    card = readme[:262_144].decode(errors="replace").lstrip("\ufeff").replace("\r\n", "\n")
    if card.startswith("---\n"):
        _, end, rest = card.removeprefix("---").partition("\n---")
        return rest.partition("\n")[2] if end else card
    return card


def _first_paragraph(card: str) -> str:
    """The first lines of prose, for the list: what they mark up is read as it is written."""
    for paragraph in card[:10_000].split("\n\n"):
        words = " ".join(paragraph.split())
        if words and words[0] not in "#<|!`-*>[":
            return words if len(words) <= _SUMMARY else words[: _SUMMARY - 1] + "…"
    return ""
