"""huggingface_hub's cache as the `hf cache` commands see it: its folders and its refs."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from secondary_learners.files import sha256_bytes, write_bytes

__all__ = ["foreign_name", "keep", "lay"]


def foreign_name(address: str, repository: str) -> str:
    """What a repository of another Hub is called in the cache: never as one of its own Hub."""
    host = re.sub(r"[^A-Za-z0-9.]+", "-", urlsplit(address).netloc).strip("-")
    return f"{host}-{sha256_bytes(address.encode())[:12]}/{repository}"


def lay(folder: Path, place: Path) -> None:
    """Have `folder`, of a repository of another Hub, lie at `place` in huggingface_hub's cache.

    `folder` becomes a link to it. Where the system makes no links it stays a folder of ours, which
    `hf cache` does not see; as does one that was fetched before there were links.
    """
    if folder.exists():
        return
    (place / "snapshots").mkdir(parents=True, exist_ok=True)  # without it, it is not a repository
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # another process may be faster
        folder.unlink(missing_ok=True)  # a link to what `hf cache rm` has deleted
        folder.symlink_to(place, target_is_directory=True)


def keep(folder: Path, name: str, commit: str) -> None:
    """Say that `name` is `commit` now: `hf cache prune` deletes what no name leads to."""
    path = folder / "refs" / name
    if path.resolve().is_relative_to(folder.resolve()):
        with suppress(OSError):  # such as a branch a/b beside a branch a
            if not path.is_file() or path.read_text() != commit:
                write_bytes(path, commit.encode())
