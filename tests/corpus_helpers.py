"""A corpus in compressed shards, of text that the bundled learner tells apart."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondary_learners.errors import CorpusError

SENTENCES = (
    "The ship lay in the harbor, and nobody said a word.",
    "import os, sys; the budget is output as code.",
    "She looked round at me; and so I sat down awhile.",
    "A café, naïve and far, with a program for economic areas.",
)


def documents(count: int) -> list[dict[str, Any]]:
    """Documents that differ, but for some that are twice there, and one in 50 that is empty."""
    return [
        {
            "text": " ".join(SENTENCES[(n * k) % 4] + f" {n % 977}" for k in range(1, 2 + n % 5))
            if n % 50
            else "",
            "source": "ab"[n % 3 == 0],
            "n": n,
        }
        for n in range(count)
    ]


def write_shards(folder: Path, count: int = 800, shards: int = 8) -> list[dict[str, Any]]:
    """Write `count` documents in shards (.jsonl.gz), and return them in the order of the files."""
    folder.mkdir(parents=True)
    rows = documents(count)
    for shard in range(shards):
        lines = "".join(json.dumps(row) + "\n" for row in rows[shard::shards])
        (folder / f"part-{shard}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    return [row for shard in range(shards) for row in rows[shard::shards]]


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of each file below a folder, but for its lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@dataclass(frozen=True)
class Doubled:
    """Work on numbers: twice the number; 13 cannot be doubled, and 666 kills the process."""

    def __call__(self, item: int, report: Callable[[int], None]) -> int:
        if item == 13:
            raise CorpusError("13 is not doubled")
        if item == 666:
            os.kill(os.getpid(), signal.SIGKILL)
        report(item)
        return 2 * item
