"""The group that each document of a corpus is in, by one of its columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from secondary_learners.engines.rows import read_shard
from secondary_learners.engines.shards import NamedShard
from secondary_learners.engines.work import Report
from secondary_learners.errors import CorpusError
from secondary_learners.files import atomic_path

__all__ = ["GroupShard", "Groups"]


@dataclass(frozen=True)
class Groups:
    """A folder with a file for each shard: the values of a column, and which each row has."""

    folder: Path

    def path(self, shard: str) -> Path:
        return self.folder / f"{shard}.npz"

    def read(self, shard: str) -> tuple[npt.NDArray[np.int32], list[str]]:
        """Codes [documents] and what each code stands for."""
        with np.load(self.path(shard), allow_pickle=False) as arrays:
            return arrays["codes"], json.loads(arrays["names"].tobytes())


@dataclass(frozen=True)
class GroupShard:
    """The work on one shard: read the column and write the groups of its rows."""

    groups: Groups
    column: str

    def __call__(self, shard: NamedShard, report: Report) -> str:
        """What is wrong with the shard; "" for nothing."""
        codes: dict[str, int] = {}
        numbers = []
        try:
            for row in read_shard(shard.shard, "text", [self.column]):
                if self.column not in row.fields:
                    raise CorpusError(
                        f"{row.where} has no column {self.column!r}; it has "
                        f"{', '.join(row.fields)}. Name one that all rows have with `--per`."
                    )
                value = row.fields[self.column]
                name = value if isinstance(value, str) else json.dumps(value, default=str)
                numbers.append(codes.setdefault(name, len(codes)))
        except (CorpusError, OSError) as error:
            return str(error)
        names = np.frombuffer(json.dumps(list(codes)).encode(), np.uint8)
        with atomic_path(self.groups.path(shard.name)) as temporary, temporary.open("wb") as file:
            np.savez(file, codes=np.array(numbers, np.int32), names=names)
        return ""
