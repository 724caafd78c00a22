"""Where what is known on this machine is kept, by the habits of the system (platformdirs).

SECONDARY_LEARNERS_HOME, where it is set, is the folder for all of it.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder", "locks_folder", "pins_folder", "registries_folder"]


def registries_folder() -> Path:
    """The registries that were added: the user's own settings."""
    return (_own() or _place("config")) / "registries"


def pins_folder() -> Path:
    """The digests that were recorded when repositories were first loaded."""
    return _folder("pins", "state")


def cache_folder() -> Path:
    """What was fetched from other Hubs than huggingface_hub's own; may be deleted at any time."""
    return _folder("cache", "cache")


def locks_folder() -> Path:
    """Locks by which processes wait for each other."""
    return (_own() or _place("state")) / "locks"


def _own() -> Path | None:
    own = os.environ.get("SECONDARY_LEARNERS_HOME")
    return Path(own).expanduser() if own else None


def _place(purpose: str) -> Path:
    """The user's folder for this package's "config", "state" or "cache"."""
    import platformdirs

    folder = getattr(platformdirs, f"user_{purpose}_path")("secondary-learners", appauthor=False)
    return Path(folder)


def _folder(name: str, purpose: str) -> Path:
    """`name` in its place; or where it was until November 2026, in the configuration folder."""
    own = _own()
    if own is not None:
        return own / name
    before = _place("config") / name
    return before if before.is_dir() else _place(purpose) / name
