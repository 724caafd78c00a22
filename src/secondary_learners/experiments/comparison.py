"""What a comparison in fine-tuning is: its settings, arms and runs, and the figures of each arm."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.experiments.statistics import (
    mean,
    paired_interval,
    permutation_test,
    standard_error,
    updates_to_reach,
)
from secondary_learners.filtering.thresholds import Threshold, parse_threshold
from secondary_learners.gains.precision import check_precision
from secondary_learners.gains.subsets import check_trainable

__all__ = ["FORMAT", "Arm", "Comparison", "Point", "Row", "Run", "Settings"]

FORMAT = 1
_HEAD = (
    "arm",
    "perplexity",
    "drawn per kept",
    "p (standard)",
    "p (random)",
    "p (filter)",
    "updates to standard",
    "seconds",
)
_AGAINST = _HEAD.index("p (filter)")  # shown where there are other ways to select


@dataclass(frozen=True)
class Settings:
    """One fine-tuning run: AdamW without weight decay, its learning rate falling to 0.

    trainable: which parameters are tuned, see `information_gain`; None for all that require
        gradients. precision: of the passes, "float32", "tf32" or "bfloat16" (by autocast).
    """

    updates: int = 60
    batch_size: int = 16
    learning_rate: float = 2e-4
    evaluate_every: int = 10
    max_grad_norm: float = 3.0
    trainable: str | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_trainable(self.trainable)
        check_precision(self.precision)
        for name in ("updates", "batch_size", "learning_rate", "evaluate_every", "max_grad_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SecondaryLearnersError(
                    f"the setting {name} is {value!r}, and must be above 0. "
                    "Try `learners finetune --help`."
                )


@dataclass(frozen=True)
class Arm:
    """One way of choosing what to train on.

    kind: "standard" takes every candidate; "filtered" those whose score reaches `threshold`;
        "random" skips as many as the filtered arm of that threshold and seed, but blindly;
        "in-domain" takes every candidate of one domain; "selector" keeps as many of the very
        candidates that the filtered arm drew, those that another way to select puts first;
        "everything" trains on all of them, in as many more updates.
    """

    name: str
    kind: str
    threshold: Threshold | None = None


@dataclass(frozen=True)
class Point:
    """One evaluation: after `update` updates, which drew so many candidates.

    seconds: training and filtering so far, without evaluation. perplexity: on the test contexts.
    """

    update: int
    drawn_contexts: int
    drawn_tokens: int
    seconds: float
    perplexity: float


@dataclass(frozen=True)
class Run:
    """One arm with one seed.

    forced: contexts taken under the threshold, see `max_skips`. in_domain: the share of the
        objective's domain in what was trained on. losses: of each test context in the end, in
        nats, where they were kept.
    """

    arm: str
    seed: int
    forced: int
    points: tuple[Point, ...]
    in_domain: float | None = None
    losses: npt.NDArray[np.float64] | None = field(default=None, compare=False)

    @property
    def perplexity(self) -> float:
        return self.points[-1].perplexity

    def to_dict(self) -> dict[str, Any]:
        """All but the losses, in JSON's types."""
        figures = {"arm": self.arm, "seed": self.seed, "forced": self.forced}
        points = [asdict(point) for point in self.points]
        return {**figures, "points": points, "in_domain": self.in_domain}

    @classmethod
    def from_dict(cls, data: dict[str, Any], losses: npt.NDArray[np.float64] | None = None) -> Run:
        points = tuple(Point(**point) for point in data["points"])
        own = data["arm"], data["seed"], data["forced"]
        return cls(*own, points, data.get("in_domain"), losses)


@dataclass(frozen=True)
class Row:
    """One arm over all seeds.

    perplexity, error: final test perplexity, mean and standard error (None with one seed).
    drawn_per_kept: candidates drawn from the pool for each one trained on.
    p_standard, p_random, p_filter: two-sided p of a paired permutation test over the seeds, against
        the standard arm, (filtered arms only) random skipping at the same rate, and (all others)
        the first filtered arm.
    updates_to_standard: updates after which the mean curve is at the standard arm's final one.
    seconds: training and filtering, mean of the seeds.
    in_domain: the share of the objective's domain in what was trained on.
    change, change_interval: how far the perplexity is above that of the first filtered arm, as a
        share of that, and where 95 % of resamples of seeds and of test documents have it.
    """

    arm: str
    kind: str
    perplexity: float
    error: float | None
    drawn_per_kept: float
    p_standard: float | None
    p_random: float | None
    updates_to_standard: float | None
    seconds: float
    p_filter: float | None = None
    in_domain: float | None = None
    change: float | None = None
    change_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """All runs of a comparison, by arm in order and then by seed.

    documents: of the test contexts, a number each, where they are known.
    """

    settings: Settings
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    documents: npt.NDArray[np.int64] | None = field(default=None, compare=False)

    def of(self, arm: Arm) -> list[Run]:
        """The runs of one arm, in the order of `seeds`."""
        return [run for run in self.runs if run.arm == arm.name]

    def curves(self, arm: Arm) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The updates [points] and the test perplexities [seeds, points] of one arm."""
        runs = self.of(arm)
        updates = np.array([point.update for point in runs[0].points], dtype=np.int64)
        values = [[point.perplexity for point in run.points] for run in runs]
        return updates, np.array(values, dtype=np.float64)

    def rows(self) -> list[Row]:
        """The arms' figures, as `table` shows them."""
        return list(self._rows)

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        """Made once: their tests and intervals draw thousands of resamples."""
        standard = self._finals(self.arms[0])
        first = next((arm for arm in self.arms if arm.kind == "filtered"), None)
        return tuple(self._row(arm, standard, first) for arm in self.arms)

    def _finals(self, arm: Arm) -> list[float]:
        return [run.perplexity for run in self.of(arm)]

    def _row(self, arm: Arm, standard: list[float], first: Arm | None) -> Row:
        finals, last = self._finals(arm), [run.points[-1] for run in self.of(arm)]
        random = [
            other
            for other in self.arms
            if arm.kind == "filtered" and (other.kind, other.threshold) == ("random", arm.threshold)
        ]
        updates, values = self.curves(arm)
        kept = [point.update * self.settings.batch_size for point in last]
        shares = [run.in_domain for run in self.of(arm) if run.in_domain is not None]
        other = first if first is not None and arm is not first else None
        return Row(
            arm=arm.name,
            kind=arm.kind,
            perplexity=mean(finals),
            error=standard_error(finals),
            drawn_per_kept=mean([point.drawn_contexts for point in last]) / mean(kept),
            p_standard=None if arm.kind == "standard" else permutation_test(finals, standard),
            p_random=permutation_test(finals, self._finals(random[0])) if random else None,
            updates_to_standard=updates_to_reach(
                updates.tolist(), values.mean(axis=0).tolist(), mean(standard)
            ),
            seconds=mean([point.seconds for point in last]),
            p_filter=permutation_test(finals, self._finals(other)) if other else None,
            in_domain=mean(shares) if shares else None,
            change=mean(finals) / mean(self._finals(other)) - 1 if other else None,
            change_interval=self._interval(arm, other) if other else None,
        )

    def _interval(self, arm: Arm, other: Arm) -> tuple[float, float] | None:
        """Of perplexity over that of `other` less 1, over seeds and test documents."""
        pairs = list(zip(self.of(arm), self.of(other), strict=True))
        if self.documents is None or any(a.losses is None or b.losses is None for a, b in pairs):
            return None
        differences = np.array([a.losses - b.losses for a, b in pairs])  # type: ignore[operator]
        low, high = paired_interval(differences, self.documents)
        return math.expm1(low), math.expm1(high)

    def table(self) -> str:
        """The arms as aligned text, with a line above that says what was measured."""
        settings, before = self.settings, self.runs[0].points[0].perplexity
        title = (
            f"Test perplexity after {settings.updates} updates of {settings.batch_size} contexts, "
            f"{len(self.seeds)} {'seed' if len(self.seeds) == 1 else 'seeds'} "
            f"(mean ± standard error; {before:.2f} before)"
        )
        lines = [_HEAD, *map(_cells, self.rows())]
        if not {"selector", "everything"} & {arm.kind for arm in self.arms}:
            lines = [(*line[:_AGAINST], *line[_AGAINST + 1 :]) for line in lines]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        text = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([title, "", text[0], rule, *text[1:]])

    def to_dict(self) -> dict[str, Any]:
        """The comparison in JSON's types; `from_dict` reads it back."""
        return {
            "format_version": FORMAT,
            "settings": asdict(self.settings),
            "arms": [
                {"name": arm.name, "kind": arm.kind, "threshold": _text(arm.threshold)}
                for arm in self.arms
            ],
            "seeds": list(self.seeds),
            "runs": [run.to_dict() for run in self.runs],
            "rows": [asdict(row) for row in self.rows()],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Comparison:
        if data["format_version"] > FORMAT:
            raise SecondaryLearnersError(
                f"this comparison has format {data['format_version']}, newer than {FORMAT}. "
                "Try `pip install --upgrade secondary-learners`."
            )
        arms = tuple(
            Arm(
                arm["name"],
                arm["kind"],
                parse_threshold(arm["threshold"]) if arm["threshold"] else None,
            )
            for arm in data["arms"]
        )
        runs = tuple(map(Run.from_dict, data["runs"]))
        return cls(Settings(**data["settings"]), arms, tuple(data["seeds"]), runs)


def _text(threshold: Threshold | None) -> str | None:
    return None if threshold is None else str(threshold)


def _cells(row: Row) -> tuple[str, ...]:
    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    error = "" if row.error is None else f" ± {row.error:.2f}"
    return (
        row.arm,
        f"{row.perplexity:.2f}{error}",
        shown(row.drawn_per_kept, ".2f"),
        shown(row.p_standard, ".3g"),
        shown(row.p_random, ".3g"),
        shown(row.p_filter, ".3g"),
        shown(row.updates_to_standard, ".1f"),
        shown(row.seconds, ".1f"),
    )
