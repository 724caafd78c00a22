"""Figures as SVG, from data. Colors come from the style sheet, so that they suit dark and light."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from markupsafe import Markup

from secondary_learners.server.pages.evaluation import ComparedArm

__all__ = ["histogram", "line", "runs", "shares"]

_WIDTH, _ROW, _LABEL = 600, 26, 190


def runs(rows: Sequence[ComparedArm], unit: str) -> Markup:
    """A point for each run, with its standard error. The axis begins near the lowest."""
    if not rows:
        return Markup("")
    low = min(run.value - run.error for run in rows)
    high = max(run.value + run.error for run in rows)
    start = max(0.0, low - (high - low or 1) * 0.5)
    scale = (_WIDTH - _LABEL - 90) / ((high - start) or 1)
    height = _ROW * len(rows) + 24
    parts = []
    for number, run in enumerate(rows):
        kind = "own" if run.kind == "filtered" else "other"
        error, end = run.error * scale, _LABEL + (run.value - start) * scale
        middle = number * _ROW + _ROW / 2
        parts.append(
            f'<text x="{_LABEL - 8}" y="{middle + 4}" class="right">{escape(run.name[:28])}</text>'
            f'<path d="M{_LABEL} {middle}H{_WIDTH - 80}" class="grid"/>'
            f'<path d="M{end - error:.1f} {middle}H{end + error:.1f}" class="error"/>'
            f'<circle cx="{end:.1f}" cy="{middle}" r="5" class="{kind}"/>'
            f'<text x="{end + max(error, 5) + 6:.1f}" y="{middle + 4}">{run.value:.1f}</text>'
        )
    note = f"{unit}; the axis begins at {start:.0f}"
    parts.append(f'<text x="{_LABEL}" y="{height - 6}" class="note">{escape(note)}</text>')
    label = "; ".join(f"{run.name}: {run.value:.1f} ± {run.error:.1f}" for run in rows)
    return _svg(_WIDTH, height, label, parts)


def shares(rows: Sequence[tuple[str, float]]) -> Markup:
    """A bar from 0 to 100 % for each."""
    if not rows:
        return Markup("")
    scale, parts = _WIDTH - _LABEL - 70, []
    for number, (name, share) in enumerate(rows):
        top, width = number * _ROW, max(0.0, min(1.0, share)) * scale
        parts.append(
            f'<text x="{_LABEL - 8}" y="{top + 17}" class="right">{escape(name[:28])}</text>'
            f'<rect x="{_LABEL}" y="{top + 5}" width="{scale}" height="16" class="ground"/>'
            f'<rect x="{_LABEL}" y="{top + 5}" width="{width:.1f}" height="16" class="own"/>'
            f'<text x="{_LABEL + scale + 6}" y="{top + 17}">{100 * share:.1f} %</text>'
        )
    label = "; ".join(f"{name}: {100 * share:.1f} %" for name, share in rows)
    return _svg(_WIDTH, _ROW * len(rows), label, parts)


def histogram(quantiles: Sequence[float], bars: int = 30) -> Markup:
    """The distribution that evenly spaced quantiles describe."""
    if len(quantiles) < 3 or quantiles[-1] <= quantiles[0]:
        return Markup("")
    low, high = quantiles[1], quantiles[-2]  # the ends are single values
    step = (high - low) / bars or 1.0
    counts = [0] * bars
    for value in quantiles:
        counts[min(bars - 1, max(0, int((value - low) / step)))] += 1
    most, width, height = max(counts), _WIDTH / bars, 120
    parts = [
        f'<rect x="{number * width:.1f}" y="{height - 100 * count / most:.1f}"'
        f' width="{width - 1:.1f}" height="{100 * count / most:.1f}" class="own"/>'
        for number, count in enumerate(counts)
    ]
    parts.append(
        f'<text x="0" y="{height + 16}">{_minus(low)}</text>'
        f'<text x="{_WIDTH}" y="{height + 16}" class="right">{_minus(high)}</text>'
    )
    return _svg(_WIDTH, height + 22, f"scores from {low:.2f} to {high:.2f}", parts)


def line(points: Sequence[tuple[float, float]], below: str) -> Markup:
    """Rank correlation, from -1 to 1, over something that grows."""
    if len(points) < 2:
        return Markup("")
    last, height = max(x for x, _ in points) or 1.0, 178
    places = [(20 + (_WIDTH - 80) * x / last, 80 - 70 * y) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<path d="M20 80H{_WIDTH - 60}" class="axis"/>']
    parts.append(f'<polyline points="{path}" class="line"/>')
    for (x, y), (at, value) in zip(places, points, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="own"/>')
        parts.append(f'<text x="{x + 7:.1f}" y="{y - 6:.1f}">{_minus(value)}</text>')
        parts.append(f'<text x="{x:.1f}" y="{height - 20}" class="note">{at:.0f}</text>')
    parts.append(f'<text x="20" y="{height - 2}" class="note">{escape(below)}</text>')
    label = "; ".join(f"{at:.0f}: {value:.2f}" for at, value in points)
    return _svg(_WIDTH, height, label, parts)


def _minus(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
