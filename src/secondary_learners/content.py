"""Where the content folders are: beside `src/` in a checkout, inside the package in a wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["FOLDERS", "content"]

FOLDERS = ("registry", "learners", "recipes", "cards")


def content(folder: str) -> Path:
    """The absolute path of one of the content folders.

    A wheel carries them under `secondary_learners/_content/`; a checkout (and so an editable
    install) has them at its root, two levels above this package.
    """
    return _content(__file__, folder)


@cache
def _content(file: str, folder: str) -> Path:
    package = Path(file).resolve().parent
    for root in (package / "_content", package.parents[1]):
        path = root / folder
        if (root / "registry").is_dir() and path.is_dir():
            return path
    raise SecondaryLearnersError(
        f"the content folder {folder!r} is missing from this installation. "
        "Try `pip install --force-reinstall secondary-learners`."
    )
