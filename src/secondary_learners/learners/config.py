"""`config.json`: what a learner is, and everything it depends on. Pure data, checked when made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from secondary_learners.artifacts.checks import ConfigChecks
from secondary_learners.errors import ArtifactError
from secondary_learners.learners.architectures import (
    ARCHITECTURES,
    TEXT_ARCHITECTURES,
    sizes_of,
)

__all__ = [
    "FORMAT_VERSION",
    "Calibration",
    "LearnerConfig",
    "Reference",
    "Score",
    "check_buckets",
    "check_counts",
    "check_kernel",
    "check_sizes",
    "check_vocabulary",
    "check_width",
    "check_word_buckets",
]

FORMAT_VERSION = 1
_CHECKS = ConfigChecks(
    "artifact",
    FORMAT_VERSION,
    "Rebuild the learner with `learners run RECIPE`, or load another (`learners list`).",
)
_fail = _CHECKS.failure


def _text(field: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise _fail(field, "a non-empty string", value)


def _finite(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _fail(field, "a finite number", value)


def _positive(field: str, value: object) -> None:
    _finite(field, value)
    if not value > 0:  # type: ignore[operator]
        raise _fail(field, "above 0", value)


def _integer(low: int, high: int) -> Callable[[str, object], None]:
    def check(field: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _fail(field, f"an integer from {low:,} to {high:,}", value)

    return check


def check_buckets(field: str, value: object) -> None:
    _integer(0, 2**24)(field, value)
    assert isinstance(value, int)
    if value & (value - 1):
        raise _fail(field, "0 or a power of two", value)


def check_word_buckets(field: str, value: object) -> None:
    _integer(2, 2**24)(field, value)
    check_buckets(field, value)


def check_kernel(field: str, value: object) -> None:
    _integer(1, 31)(field, value)
    assert isinstance(value, int)
    if value % 2 == 0:
        raise _fail(field, "odd", value)


def check_counts(field: str, value: object) -> None:
    if value not in ("frequency", "sqrt"):
        raise _fail(field, "'frequency' or 'sqrt'", value)


# The bounds keep a hostile config from asking for more memory than any vocabulary needs.
check_vocabulary, check_width = _integer(1, 2**24), _integer(1, 2**14)


def check_sizes(architecture: object, sizes: object) -> None:
    """Raise ArtifactError, naming the field, unless `sizes` fit `architecture`."""
    known = [*ARCHITECTURES, *TEXT_ARCHITECTURES]
    if not isinstance(architecture, str) or architecture not in known:
        raise _fail("architecture", " or ".join(map(repr, known)), architecture)
    checks = sizes_of(architecture)
    if not isinstance(sizes, dict) or set(sizes) != set(checks):
        raise _fail("sizes", f"an object with exactly {', '.join(checks)}", sizes)
    for name, check in checks.items():
        check(f"sizes.{name}", sizes[name])


@dataclass(frozen=True)
class Reference:
    """A base model or tokenizer: where it is, which commit, and the digest of what is used of it.

    revision is None for what has no commits (a folder, or a model bundled with the package).
    """

    repo: str
    revision: str | None
    fingerprint: str


@dataclass(frozen=True)
class Score:
    """Mean and standard deviation of the labels, in `unit` (such as "nats per token")."""

    mean: float
    sd: float
    unit: str

    def __post_init__(self) -> None:
        _finite("score.mean", self.mean)
        _positive("score.sd", self.sd)
        _text("score.unit", self.unit)


@dataclass(frozen=True)
class Calibration:
    """How raw predictions spread over held-out contexts, in standard deviations of the labels.

    quantiles: 101 numbers that never fall, the 0 % to the 100 % quantile.
    """

    mean: float
    sd: float
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        _finite("calibration.mean", self.mean)
        _positive("calibration.sd", self.sd)
        if not isinstance(self.quantiles, tuple) or len(self.quantiles) != 101:
            raise _fail("calibration.quantiles", "a list of 101 numbers", self.quantiles)
        for value in self.quantiles:
            _finite("calibration.quantiles", value)
        if any(a > b for a, b in zip(self.quantiles, self.quantiles[1:], strict=False)):
            raise _fail("calibration.quantiles", "in rising order", "not")


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """Everything `config.json` says. Raises ArtifactError naming the field that is wrong.

    sizes: for "linear", vocabulary, bigrams (hash buckets: 0 or a power of two) and counts
        ("frequency" or "sqrt"); for "conv", vocabulary, embedding, channels, kernel and hidden; for
        "hashed-text", words and grams (hash buckets).
    score: of the labels. calibration: of the raw predictions on held-out contexts.
    context_length: tokens a context, as in the labels; of what reads text, words. Other lengths can
        be scored.
    tokenizer: None of what reads text.
    labels: how the labels were made: count, method, rank correlation with exact ones, and the
    precision of the passes where it was not float32.
    """

    format_version: int = FORMAT_VERSION
    name: str
    architecture: str
    sizes: dict[str, int | str]
    score: Score
    calibration: Calibration
    context_length: int
    base_model: Reference
    tokenizer: Reference | None
    objective: dict[str, Any]
    corpus: dict[str, Any]
    optimizer: dict[str, Any]
    labels: dict[str, Any]
    versions: dict[str, Any]

    def __post_init__(self) -> None:
        _CHECKS.version(self.format_version)
        _text("name", self.name)
        check_sizes(self.architecture, self.sizes)
        _integer(1, 2**20)("context_length", self.context_length)
        if (self.tokenizer is None) != self.reads_text:
            need = "null" if self.reads_text else "an object"
            raise _fail("tokenizer", f"{need} for {self.architecture!r}", self.tokenizer)
        for field, reference in self._references():
            _text(f"{field}.repo", reference.repo)
            if reference.revision is not None:
                _text(f"{field}.revision", reference.revision)
            _text(f"{field}.fingerprint", reference.fingerprint)
        for field in ("objective", "corpus", "optimizer", "labels", "versions"):
            if not isinstance(getattr(self, field), dict):
                raise _fail(field, "an object", getattr(self, field))

    @property
    def reads_text(self) -> bool:
        """Whether it scores texts, without a tokenizer, and not token ids."""
        return self.architecture in TEXT_ARCHITECTURES

    def _references(self) -> list[tuple[str, Reference]]:
        given = (("base_model", self.base_model), ("tokenizer", self.tokenizer))
        return [(name, reference) for name, reference in given if reference is not None]

    def to_dict(self) -> dict[str, Any]:
        """The value of `config.json`; `from_dict` gives an equal config back."""
        data = dataclasses.asdict(self)
        data["calibration"]["quantiles"] = list(self.calibration.quantiles)
        return data

    @classmethod
    def from_dict(cls, data: object) -> LearnerConfig:
        """Raises IncompatibleError for a newer format and ArtifactError for a wrong field."""
        if not isinstance(data, dict):
            raise ArtifactError(f"config.json holds no JSON object. {_CHECKS.way_out}")
        # First of all: a newer format may well have other fields.
        _CHECKS.version(data.get("format_version"))
        values = _CHECKS.fields("", cls, data)
        values["score"] = Score(**_CHECKS.fields("score.", Score, data["score"]))
        calibration = _CHECKS.fields("calibration.", Calibration, data["calibration"])
        if isinstance(calibration["quantiles"], list):
            calibration["quantiles"] = tuple(calibration["quantiles"])
        values["calibration"] = Calibration(**calibration)
        for name in ("base_model", "tokenizer"):
            if name == "tokenizer" and data[name] is None:
                continue
            values[name] = Reference(**_CHECKS.fields(f"{name}.", Reference, data[name]))
        return cls(**values)
