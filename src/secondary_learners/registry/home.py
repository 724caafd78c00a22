"""Where what is known on this machine is kept: added registries and recorded digests."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["home"]


def home() -> Path:
    """$SECONDARY_LEARNERS_HOME, else secondary-learners in the user's configuration folder."""
    own = os.environ.get("SECONDARY_LEARNERS_HOME")
    if own:
        return Path(own).expanduser()
    configuration = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(configuration).expanduser() / "secondary-learners"
