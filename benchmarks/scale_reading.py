"""What `learners score POOL --out OUT/` does without a learner: `scale.py` runs it.

python benchmarks/scale_reading.py POOL OUT WORKERS
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secondary_learners.engines import local
from secondary_learners.engines.rows import in_batches, read_shard, text_of
from secondary_learners.engines.shards import NamedShard, name_shards, stamp
from secondary_learners.engines.sidecars import Facts, Scores, SidecarWriter, sidecar
from secondary_learners.engines.streams import find_shards
from secondary_learners.engines.work import Report
from secondary_learners.files import atomic_path


@dataclass(frozen=True)
class ReadShard:
    """What scoring does to a shard, without the scorer."""

    out: Path

    def __call__(self, shard: NamedShard, report: Report) -> int:
        facts, number = Facts(shard.name, stamp(shard.shard), {}), 0
        with (
            atomic_path(sidecar(self.out, shard.name)) as temporary,
            SidecarWriter(temporary, facts) as file,
        ):
            for batch in in_batches(read_shard(shard.shard, "text", ["text"])):
                lengths = np.array([len(text_of(row, "text")) for row in batch], np.int64)
                ids = [f"{shard.name}:{number + place}" for place in range(len(batch))]
                file.write(ids, Scores(np.zeros(len(batch)), lengths))
                number += len(batch)
        return number


def main(pool: str, out: str, workers: str) -> None:
    shards = name_shards(find_shards((pool,)))
    for _ in local.run(ReadShard(Path(out)), shards, int(workers), lambda tokens: None):
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
