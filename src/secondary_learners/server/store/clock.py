"""The time as the Hub writes it."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["now"]


def now() -> str:
    """UTC, to the millisecond: 2026-01-31T12:00:00.000Z. As text it sorts as it does in time."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
