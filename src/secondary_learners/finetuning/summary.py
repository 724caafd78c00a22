"""A comparison in plain words and as the figures of evaluation.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from secondary_learners.finetuning.compare import Comparison, Row

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
    """One or two sentences a filtered arm: against standard, and against random skipping."""
    rows = comparison.rows()
    standard = next(row for row in rows if row.kind == "standard")
    return " ".join(_sentence(comparison, row, standard) for row in rows if row.kind == "filtered")


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
    if row.p_standard is not None and row.p_standard > 0.05:
        words += f" Against standard that is not significant (p = {row.p_standard:.2g})."
    if row.p_random is not None and row.p_random > 0.05:
        words += (
            f" Over {_count(len(comparison.seeds), 'seed')} its difference from random skipping "
            f"is not significant (p = {row.p_random:.2g})."
        )
    return words
