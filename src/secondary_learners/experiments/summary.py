"""A comparison in plain words and as the figures of evaluation.json."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from secondary_learners.experiments.compare import Comparison, Row
from secondary_learners.experiments.statistics import fewest_pairs, smallest_p

__all__ = ["plain_words", "summary"]


def summary(comparison: Comparison) -> dict[str, Any]:
    """The rows, settings and words of a comparison, without its curves."""
    return {
        "settings": asdict(comparison.settings),
        "seeds": len(comparison.seeds),
        "before": comparison.runs[0].points[0].perplexity,
        "rows": [asdict(row) for row in comparison.rows()],
        "plain_words": plain_words(comparison),
    }


def plain_words(comparison: Comparison) -> str:
    """One or two sentences a filtered arm, and one on what others would select in its place."""
    rows = comparison.rows()
    standard = next(row for row in rows if row.kind == "standard")
    words = [_sentence(comparison, row, standard) for row in rows if row.kind == "filtered"]
    others = [row for row in rows if row.kind == "selector" and row.change is not None]
    if others:
        words.append(f"At the first filter's draws and updates {_listed(map(_beside, others))}.")
    return " ".join(words)


def _beside(row: Row) -> str:
    assert row.change is not None
    p = "" if row.p_filter is None else f" (p = {row.p_filter:.2g})"
    higher = "higher" if row.change > 0 else "lower"
    return f"{row.arm} ended {abs(row.change) * 100:.1f} % {higher} than it{p}"


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _sentence(comparison: Comparison, row: Row, standard: Row) -> str:
    change = (row.perplexity / standard.perplexity - 1) * 100
    skipped = 1 - 1 / row.drawn_per_kept
    words = (
        f"With the threshold {row.arm} the filter skipped {skipped:.0%} of the candidates and "
        f"ended at a perplexity {abs(change):.1f} % {'lower' if change < 0 else 'higher'} than "
        f"standard fine-tuning after as many updates"
    )
    updates = comparison.settings.updates
    if row.updates_to_standard is not None and 0 < row.updates_to_standard < updates:
        words += (
            f"; it reached standard's final perplexity after {row.updates_to_standard:.0f} of "
            f"{updates} updates"
        )
    words += "."
    seeds = len(comparison.seeds)
    smallest = smallest_p(seeds)
    if smallest > 0.05:
        return words + (
            f" {_count(seeds, 'seed')} cannot tell that from chance: the test's smallest p is "
            f"{smallest:g}. Try {fewest_pairs()} seeds or more."
        )
    for other, p in (("standard fine-tuning", row.p_standard), ("random skipping", row.p_random)):
        if p is not None and p > 0.05:
            words += f" Its difference from {other} is not significant (p = {p:.2g})."
    return words
