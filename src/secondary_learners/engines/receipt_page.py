"""A receipt as one page of HTML that needs nothing else: style and figures are inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from secondary_learners.engines.histograms import BINS_A_DEVIATION, Histogram
from secondary_learners.engines.receipt import ARMS, Receipt, Summary

__all__ = ["receipt_page"]

_WIDTH, _HEIGHT, _BARS = 640, 150, 64
_SOURCES = 100  # on the page; receipt.json has all


def receipt_page(receipt: Receipt, facts: Mapping[str, Any]) -> str:
    """The page. facts: what receipt.json says beside the figures."""
    environment = Environment(
        loader=PackageLoader("secondary_learners.engines"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    largest = sorted(receipt.sources.items(), key=lambda pair: -pair[1].scores["all"].documents)[
        :_SOURCES
    ]
    places = receipt.total.scores["all"].counts
    span = min(places), max(places) + 1
    edges = [edge["key"] for edge in facts["edges"].values() if edge["key"] is not None]
    template = environment.get_template("receipt.html")
    return template.render(
        receipt=receipt,
        facts=facts,
        sources=sorted(largest),
        left_out=len(receipt.sources) - len(largest),
        chart=_chart(
            receipt.total, span, edges if len(edges) == 1 and not facts["temperature"] else []
        ),
        charts={name: _chart(one, span, height=40) for name, one in largest},
        mean=_mean,
        lengths=_lengths(receipt.total),
        kinds=list(dict.fromkeys(one.kind for one in receipt.examples)),
        shade=_shade,
    )


def _mean(histogram: Histogram) -> float:
    """The mean score, to the width of a bin."""
    total = sum((place + 0.5) * count for place, (count, _) in histogram.counts.items())
    return total / BINS_A_DEVIATION / max(1, histogram.documents)


def _lengths(summary: Summary) -> list[tuple[str, dict[str, float]]]:
    """The share of each arm's documents that have so many tokens."""
    powers = sorted({power for counts in summary.lengths.values() for power in counts})
    return [
        (
            f"{2**power:,}–{2 ** (power + 1) - 1:,}" if power else "0–1",
            {
                arm: summary.lengths[arm].get(power, 0) / max(1, summary.scores[arm].documents)
                for arm in ARMS
            },
        )
        for power in powers
    ]


def _chart(
    summary: Summary, span: tuple[int, int], edges: Sequence[float] = (), height: int = _HEIGHT
) -> Markup:
    """Documents by score: bars of all and of the kept, a line for random ones.

    span: the first bin and the one after the last.
    """
    low, high = span
    step = max(1, -(-(high - low) // _BARS))
    bars = {arm: _rebinned(summary.scores[arm], low, step) for arm in ARMS}
    most, width = max(bars["all"]), _WIDTH / len(bars["all"])

    def bar(arm: str, number: int) -> str:
        tall = height * bars[arm][number] / most
        return (
            f'<rect x="{number * width:.1f}" y="{height - tall:.1f}" width="{width:.1f}" '
            f'height="{tall:.1f}" class="{arm}"/>'
        )

    parts = [
        bar(arm, number)
        for arm in ("all", "kept")
        for number, count in enumerate(bars[arm])
        if count
    ]
    line = " ".join(
        f"{(number + 0.5) * width:.1f},{height - height * count / most:.1f}"
        for number, count in enumerate(bars["random"])
    )
    parts.append(f'<polyline points="{line}" class="random"/>')
    for edge in edges:
        x = (edge * BINS_A_DEVIATION - low) / step * width
        parts.append(f'<path d="M{x:.1f} 0V{height}" class="edge"/>')
    ends = (low / BINS_A_DEVIATION, (low + step * len(bars["all"])) / BINS_A_DEVIATION)
    label = f"scores from {ends[0]:.2f} to {ends[1]:.2f}"
    if height == _HEIGHT:
        parts.append(f'<text x="0" y="{height + 14}">{ends[0]:.2f}</text>')
        parts.append(f'<text x="{_WIDTH}" y="{height + 14}" class="right">{ends[1]:.2f}</text>')
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {height + 18}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )


def _rebinned(histogram: Histogram, low: int, step: int) -> list[int]:
    bars = [0] * (_BARS + 1)
    for place, (count, _) in histogram.counts.items():
        bars[(place - low) // step] += count
    return bars


def _shade(share: float, shares: Sequence[tuple[str, float]]) -> str:
    """The background of a token: green raises the score, red lowers it."""
    strength = share / (max(abs(one) for _, one in shares) or 1.0)
    color = "60,160,60" if strength > 0 else "210,60,60"
    return f"rgba({color},{abs(strength) * 0.6:.2f})"
