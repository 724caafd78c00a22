"""Scoring a corpus into a folder: a sidecar for each shard, and one record of the run."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from secondary_learners.engines.rows import Row, in_batches, read_shard
from secondary_learners.engines.scoring import RowScorer
from secondary_learners.engines.shards import NamedShard, remove_unfinished, stamp
from secondary_learners.engines.sidecars import Facts, SidecarWriter, read_facts, sidecar
from secondary_learners.engines.specification import ScorerSpecification, load_scorer, one_thread
from secondary_learners.engines.work import Report
from secondary_learners.errors import CorpusError, SecondaryLearnersError
from secondary_learners.files import atomic_path, write_json

__all__ = ["Outcome", "ScoreShard", "row_id", "write_run"]


@dataclass(frozen=True)
class Outcome:
    """What became of a shard: what its sidecar says, or why it has none."""

    name: str
    facts: Facts | None
    failure: str = ""


@dataclass(frozen=True)
class ScoreShard:
    """The work on one shard: read, score, write its sidecar into the folder `out`.

    id_column: with what rows are called; "" for the shard's name and the row's number.
    """

    specification: ScorerSpecification
    out: Path
    id_column: str = ""

    def __call__(self, shard: NamedShard, report: Report) -> Outcome:
        """A shard that cannot be read fails alone; raises what concerns the learner."""
        scorer = load_scorer(self.specification)
        with one_thread():
            return self._outcome(shard, scorer, report)

    def _outcome(self, shard: NamedShard, scorer: RowScorer, report: Report) -> Outcome:
        path = sidecar(self.out, shard.name)
        try:
            facts = Facts(shard.name, stamp(shard.shard), self.identity)
            before = read_facts(path) if path.exists() else None
            if before is not None and before.of_the_same(facts):
                return Outcome(shard.name, before)
            remove_unfinished(path)
            with atomic_path(path) as temporary, SidecarWriter(temporary, facts) as file:
                number = 0
                for batch in in_batches(read_shard(shard.shard, self.column, self.needed)):
                    scores = scorer.scores(batch)
                    ids = (
                        [row_id(row, self.id_column) for row in batch]
                        if self.id_column
                        else [f"{shard.name}:{number + place}" for place in range(len(batch))]
                    )
                    file.write(ids, scores)
                    report(int(scores.tokens.sum()))
                    number += len(batch)
            return Outcome(shard.name, file.facts)
        except (SecondaryLearnersError, OSError) as error:
            return Outcome(shard.name, None, str(error))

    @property
    def identity(self) -> dict[str, Any]:
        return {**self.specification.identity, "id": self.id_column}

    @property
    def column(self) -> str:
        return self.specification.column

    @property
    def needed(self) -> list[str] | None:
        """The columns that are read of Parquet; None for all, where chats have several forms."""
        if self.specification.normalization == "none":
            return None
        return list(dict.fromkeys(filter(None, (self.column, self.id_column))))


def row_id(row: Row, column: str) -> str:
    """What a row is called; raises CorpusError where the column holds no text or number."""
    value = row.fields.get(column)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise CorpusError(
            f"{row.where}: the id {column!r} is {value!r}, and not a text or an integer. Name "
            "another column with `--id`, or none."
        )
    return str(value)


def write_run(work: ScoreShard, engine: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Write run.json, what was scored by whom and with what result, and return its value."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.name)
    facts = [outcome.facts for outcome in ordered if outcome.facts is not None]
    packages = ("secondary-learners", "tokenizers", "torch", "pyarrow")
    value = {
        **asdict(work.specification),
        "id": work.id_column,
        "engine": engine,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "documents": sum(one.documents for one in facts),
        "tokens": sum(one.tokens for one in facts),
        "shards": [
            {"name": one.shard, "documents": one.documents, "tokens": one.tokens, **one.input}
            for one in facts
        ],
        "failed": {one.name: one.failure for one in ordered if one.facts is None},
    }
    remove_unfinished(work.out / "run.json")
    write_json(work.out / "run.json", value)
    return value


def read_run(folder: Path) -> ScorerSpecification:
    """What scored into a folder, by its run.json."""
    value = json.loads((folder / "run.json").read_bytes())
    names = {one.name for one in fields(ScorerSpecification)}
    return msgspec.convert({name: value[name] for name in names}, ScorerSpecification)
