"""What an artifact's files say of it in figures, read no further than they make sense. Pure.

What has not the expected shape is left out: everything in these files was sent by someone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ComparedArm",
    "Effect",
    "Evaluation",
    "Selector",
    "json_object",
    "read_evaluation",
    "text",
    "texts",
    "within",
]

_LONGEST = 200


@dataclass(frozen=True)
class ComparedArm:
    """One row of a comparison: perplexity with its standard error over seeds."""

    name: str
    kind: str
    value: float
    error: float


@dataclass(frozen=True)
class Effect:
    """How much lower a run ended than random skipping at the filter's rate, as a share."""

    share: float
    error: float
    arm: str


@dataclass(frozen=True)
class Selector:
    """A way to select from a pool; `value`: the perplexity after fine-tuning on what it kept.

    `p`: of the paired test against the learner. `kept`: the share of objective text it kept.
    """

    pool: str
    arm: str
    value: float
    error: float
    p: float | None
    kept: float | None


@dataclass(frozen=True)
class Evaluation:
    """What was measured of an artifact.

    `effect`: of its best filtered run. `baselines`: of what else was run beside it.
    `quantiles`: of its scores on held-out contexts, evenly spaced, in their standard deviations.
    `liked`, `disliked`: tokens by their weight. `staleness`: (updates of its base, rank
    correlation). `keep_rate`, `within`: by domain, of held-out contexts. `figures`: the others.
    """

    runs: Sequence[ComparedArm] = ()
    effect: Effect | None = None
    baselines: Sequence[Effect] = ()
    quantiles: Sequence[float] = ()
    liked: Sequence[str] = ()
    disliked: Sequence[str] = ()
    staleness: Sequence[tuple[float, float]] = ()
    keep_rate: Sequence[tuple[str, float]] = ()
    within: Sequence[tuple[str, float]] = ()
    selectors: Sequence[Selector] = ()
    figures: Sequence[tuple[str, str]] = ()


def read_evaluation(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Evaluation:
    """`config`, `evaluation`: what config.json and evaluation.json hold."""
    runs, selectors = _runs(evaluation), _selectors(evaluation)
    effect = _effect(runs)
    # How the learner itself, not one that it was compared with, did on unseen text.
    held_out = within(evaluation, "held_out", text(config.get("architecture")))
    held_out = held_out if isinstance(held_out, dict) else {}
    return Evaluation(
        runs=runs,
        effect=effect,
        baselines=(*_baselines(runs, effect), *_other_selectors(selectors)),
        quantiles=_quantiles(config),
        liked=texts(within(evaluation, "tokens", "raise")),
        disliked=texts(within(evaluation, "tokens", "lower")),
        staleness=_staleness(evaluation),
        keep_rate=_by_domain(held_out.get("keep_rate")),
        within=_by_domain(held_out.get("within")),
        selectors=selectors,
        figures=tuple(_figures(evaluation, held_out)),
    )


def _runs(evaluation: Mapping[str, Any]) -> tuple[ComparedArm, ...]:
    rows = within(evaluation, "fine_tuning", "rows")
    runs = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict):
            value, error = _number(row.get("perplexity")), _number(row.get("error"))
            if value is not None:
                runs.append(
                    ComparedArm(text(row.get("arm")), text(row.get("kind")), value, error or 0.0)
                )
    return tuple(runs[:20])


def _effect(runs: Sequence[ComparedArm]) -> Effect | None:
    """That of the best filtered run, where random skipping at its rate was measured too."""
    blind = {run.name.removeprefix("random "): run for run in runs if run.kind == "random"}
    effects = []
    for run in runs:
        other = blind.get(run.name)
        if run.kind == "filtered" and other is not None and other.value > 0:
            effects.append(_below(run, other, run.name))
    return max(effects, key=lambda effect: effect.share, default=None)


def _baselines(runs: Sequence[ComparedArm], effect: Effect | None) -> Iterator[Effect]:
    """Of the runs that no learner filtered, against the random run of the best filtered one."""
    for other in runs:
        if effect is not None and other.name == f"random {effect.arm}":
            for run in runs:
                if run.kind not in ("filtered", "random"):
                    yield _below(run, other, run.name)


def _other_selectors(rows: Sequence[Selector]) -> Iterator[Effect]:
    """Of the other ways to select, each against random selection from its pool."""
    blind = {row.pool: row for row in rows if row.arm == "random" and row.value > 0}
    for row in rows:
        if row.arm != "random" and row.pool in blind:
            yield _below(row, blind[row.pool], f"{row.arm} ({row.pool})")


def _below(run: ComparedArm | Selector, other: ComparedArm | Selector, arm: str) -> Effect:
    share = (other.value - run.value) / other.value
    return Effect(share, math.hypot(other.error, run.error) / other.value, arm)


def _quantiles(config: Mapping[str, Any]) -> tuple[float, ...]:
    """Of the scores of held-out contexts: as the threshold has them, in standard deviations."""
    raw = _numbers(within(config, "calibration", "quantiles"))
    mean = _number(within(config, "calibration", "mean"))
    sd = _number(within(config, "calibration", "sd"))
    return tuple((value - (mean or 0.0)) / sd for value in raw) if sd else ()


def _by_domain(value: object) -> tuple[tuple[str, float], ...]:
    rows = list(value.items())[:50] if isinstance(value, dict) else []
    return tuple(
        (name[:_LONGEST], number)
        for name, each in rows
        if (number := _number(each)) is not None and -1 <= number <= 1
    )


def _selectors(evaluation: Mapping[str, Any]) -> tuple[Selector, ...]:
    rows = evaluation.get("selectors")
    selectors = []
    for row in rows[:100] if isinstance(rows, list) else []:
        if isinstance(row, dict) and (value := _number(row.get("perplexity"))) is not None:
            selectors.append(
                Selector(
                    *(text(row.get("pool")), text(row.get("arm")), value),
                    error=_number(row.get("se")) or 0.0,
                    p=_number(row.get("p")),
                    kept=_number(row.get("kept_in_domain")),
                )
            )
    return tuple(selectors)


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


def _figures(
    evaluation: Mapping[str, Any], held_out: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    rank, interval = _number(held_out.get("spearman")), _numbers(held_out.get("interval"))
    if rank is not None:
        limits = f" (95 %: {interval[0]:.3f} to {interval[1]:.3f})" if len(interval) == 2 else ""
        yield "rank correlation on unseen text", f"{rank:.3f}{limits}"
    labels = within(evaluation, "labels")
    rows: tuple[tuple[str, object, str], ...] = (
        ("R² on unseen text", held_out.get("r2"), ".3f"),
        ("variance that the domain explains", held_out.get("domain_variance"), ".1%"),
        ("labels' correlation with exact ones", within(labels, "spearman_with_exact"), ".3f"),
        ("accuracy", within(evaluation, "metrics", "accuracy"), ".3f"),
        ("labels", within(labels, "count"), ",.0f"),
        ("seeds", within(evaluation, "fine_tuning", "seeds"), ",.0f"),
        ("parameters", evaluation.get("parameters"), ",.0f"),
    )
    for name, figure, form in rows:
        value = _number(figure)
        if value is not None:
            yield name, format(value, form)
    for name, key in (("measured on", "device"), ("made with", "command")):
        if words := text(evaluation.get(key)):
            yield name, words


def json_object(data: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def within(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text(value: object) -> str:
    return value.strip()[:_LONGEST] if isinstance(value, str) else ""


def texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(words for item in values[:50] if (words := text(item)))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 else None  # false for what is not a number, too


def _numbers(value: object) -> tuple[float, ...]:
    values = value if isinstance(value, list) else []
    numbers = [_number(item) for item in values[:1001]]
    return () if None in numbers else tuple(number for number in numbers if number is not None)
