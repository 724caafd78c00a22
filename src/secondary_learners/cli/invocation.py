"""The command that was typed, for the card of what it makes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

__all__ = ["invocation"]


def invocation() -> str:
    """This command as a card may show it: whole paths of this machine become names."""
    arguments = []
    for argument in sys.argv[1:]:
        option, equals, value = argument.rpartition("=") if argument[:2] == "--" else ("", "", "")
        text = value or argument
        path = Path(text)
        arguments.append(option + equals + (path.name if path.is_absolute() else text))
    return shlex.join(["learners", *arguments])
