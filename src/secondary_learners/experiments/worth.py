"""Would a filter pay on this pool? A verdict from a short run of each arm."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from secondary_learners.errors import MissingExtraError
from secondary_learners.experiments.comparison import Arm, Comparison, Row
from secondary_learners.experiments.statistics import deviation, mean, seeds_needed

__all__ = ["Advice", "Saving", "Worth", "worth_of"]

LEAST = 0.005  # of the perplexity: below half a percent a filter is not worth its labels


class Advice(StrEnum):
    """What to do. FILTER: the filter is ahead of plain training and of every other way tried.

    OTHER: it is ahead of plain training, and a way to select that asks no model does as well.
    SMALL: whatever is saved is less than half a percent of the perplexity. UNCLEAR: the short runs
    cannot say.
    """

    FILTER = "filter"
    OTHER = "other"
    SMALL = "small"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Saving:
    """How far the perplexity of an arm is above the filter's, as a share, with its 95 % interval.

    seeds: how many would show a difference of this size with 80 % power; None where a million would
    not, or where scipy is not there to tell.
    """

    arm: str
    share: float
    low: float
    high: float
    seeds: int | None


@dataclass(frozen=True)
class Worth:
    """savings: over each other arm. kept: the share of the candidates that was kept.

    updates, of_updates: after how many the filtered run was where the standard one ended, of how
    many; None where it never was. advice: see `Advice`; better: the arm that does as well.
    """

    advice: Advice
    savings: tuple[Saving, ...]
    kept: float
    updates: float | None
    of_updates: int
    better: str | None = None


def worth_of(comparison: Comparison) -> Worth:
    """The verdict on a comparison whose first filtered arm is judged.

    An interval is over seeds and test documents, so it says what these few of both can.
    """
    rows = comparison.rows()
    filtered = next(row for row in rows if row.kind == "filtered")
    judged = _finals(comparison, next(arm for arm in comparison.arms if arm.kind == "filtered"))
    savings = tuple(
        _saving(row, _finals(comparison, arm), judged)
        for arm, row in zip(comparison.arms, rows, strict=True)
        if row.kind in ("standard", "random", "selector") and row.change_interval is not None
    )
    by = {saving.arm: saving for saving in savings}
    plain = [by[row.arm] for row in rows if row.kind in ("standard", "random") and row.arm in by]
    others = [by[row.arm] for row in rows if row.kind == "selector" and row.arm in by]
    # As good as the filter: not shown to be behind it, and no more than half a percent so.
    equal = [one for one in others if one.low <= 0 and one.share < LEAST]
    best = min(equal, key=lambda one: one.share, default=None)
    if all(one.high < LEAST for one in plain):
        advice = Advice.SMALL
    elif not all(one.low > 0 for one in plain):
        advice = Advice.UNCLEAR
    else:
        advice = Advice.OTHER if best else Advice.FILTER
    return Worth(
        advice=advice,
        savings=savings,
        kept=1 / filtered.drawn_per_kept,
        updates=filtered.updates_to_standard,
        of_updates=comparison.settings.updates,
        better=best.arm if best and advice is Advice.OTHER else None,
    )


def _finals(comparison: Comparison, arm: Arm) -> list[float]:
    return [run.perplexity for run in comparison.of(arm)]


def _saving(row: Row, finals: list[float], judged: list[float]) -> Saving:
    assert row.change is not None and row.change_interval is not None
    differences = [one - other for one, other in zip(finals, judged, strict=True)]
    return Saving(row.arm, row.change, *row.change_interval, _seeds(differences))


def _seeds(differences: list[float]) -> int | None:
    """For a paired test; the spread of very few differences is a guess, and so is this."""
    spread = deviation(differences)
    if spread is None:
        return None
    try:
        return seeds_needed(mean(differences), spread, paired=True)
    except MissingExtraError:
        return None
