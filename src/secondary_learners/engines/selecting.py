"""Writing what is chosen of a corpus, shard for shard: rows as they were, kept and dropped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from secondary_learners.engines.choosing import Choice
from secondary_learners.engines.parquet import copy_parquet
from secondary_learners.engines.rows import format_of, read_shard
from secondary_learners.engines.shards import (
    NamedShard,
    only_writer,
    open_raw,
    remove_unfinished,
    stamp,
)
from secondary_learners.engines.sidecars import Facts, read_facts, sidecar
from secondary_learners.engines.streams import compressed
from secondary_learners.engines.work import Report
from secondary_learners.errors import CorpusError
from secondary_learners.files import atomic_path, json_bytes, write_json

__all__ = ["ScoredShard", "WriteShard", "opened", "read_scored", "scored_shards"]

_MARK = ".selection.json"  # says which selection a folder holds; hidden, so no shard


@dataclass(frozen=True)
class ScoredShard:
    """A shard and what its sidecar says."""

    shard: NamedShard
    facts: Facts


def scored_shards(
    shards: Sequence[NamedShard], scores: Path
) -> tuple[list[NamedShard], dict[str, str]]:
    """The shards with scores in the folder, and those that could not be scored, with the reason.

    Raises CorpusError for a shard that was never scored.
    """
    try:
        failed: dict[str, str] = json.loads((scores / "run.json").read_bytes())["failed"]
    except (OSError, ValueError, KeyError) as error:
        raise CorpusError(
            f"{scores} does not hold a whole run.json: scoring was broken off, or it was elsewhere."
            f" Run `learners score ... --out {scores}/` to its end."
        ) from error
    missing = [
        one.name
        for one in shards
        if one.name not in failed and not sidecar(scores, one.name).is_file()
    ]
    if missing:
        raise CorpusError(
            f"{scores} has no scores of {missing[0]} ({len(missing)} of {len(shards)} shards). Run "
            f"`learners score ... --out {scores}/` with the same inputs first."
        )
    return [one for one in shards if one.name not in failed], failed


def read_scored(shards: Sequence[NamedShard], scores: Path) -> list[ScoredShard]:
    """The shards with what their sidecars say.

    Raises CorpusError for scores of different learners.
    """
    scored = [ScoredShard(one, read_facts(sidecar(scores, one.name))) for one in shards]
    scorers = {json.dumps(one.facts.scorer, sort_keys=True) for one in scored}
    if len(scorers) > 1:
        raise CorpusError(
            f"{scores} holds scores of {len(scorers)} learners or columns, which do not compare. "
            "Score all with one, into a folder of its own."
        )
    return scored


@contextmanager
def opened(folders: Sequence[Path], what: Mapping[str, Any]) -> Iterator[None]:
    """Folders that hold the selection `what` and nothing else; one that was begun goes on.

    Raises CorpusError for a folder with other files, or with another selection.
    """
    value = json.loads(json_bytes(what))
    with ExitStack() as stack:
        for folder in folders:
            mark = folder / _MARK
            if mark.is_file():
                if json.loads(mark.read_bytes()) != value:
                    raise CorpusError(
                        f"{folder} holds another selection. Remove it, or name another folder."
                    )
            elif folder.exists() and any(path.name != ".lock" for path in folder.iterdir()):
                raise CorpusError(
                    f"{folder} holds other files. Name a folder that is empty or not there."
                )
            stack.enter_context(only_writer(folder))
            write_json(mark, value)
        yield


@dataclass(frozen=True)
class WriteShard:
    """The work on one shard: write the rows that are kept, and those that are dropped.

    kept, dropped: folders, and None for rows that are not written.
    """

    choice: Choice
    kept: Path
    dropped: Path | None

    def __call__(self, scored: ScoredShard, report: Report) -> str:
        """What is wrong with the shard; "" for nothing."""
        shard, facts = scored.shard, scored.facts
        try:
            if stamp(shard.shard) != facts.input:
                raise CorpusError(
                    f"{shard.shard.address} is not as it was when it was scored. Score again: only "
                    "what changed is scored."
                )
            flags = self.choice.flags(shard.name, facts.documents)
            _write(shard, self.kept / shard.name, flags)
            if self.dropped is not None:
                _write(shard, self.dropped / shard.name, ~flags)
        except (CorpusError, OSError) as error:
            return str(error)
        report(facts.tokens)
        return ""


def _write(shard: NamedShard, out: Path, flags: npt.NDArray[np.bool_]) -> None:
    """Write the rows where `flags` [rows] is true, unless an earlier run has."""
    if out.exists() or (shard.shard.whole and not flags.any()):
        return
    remove_unfinished(out)
    with atomic_path(out) as temporary:
        address = shard.shard.address
        kind = format_of(address)
        if shard.shard.whole:
            with open_raw(address) as source, temporary.open("wb") as target:
                shutil.copyfileobj(source, target)
        elif kind is None:
            copy_parquet([address], temporary, flags, {})
        else:
            rows = zip(read_shard(shard.shard, "text"), flags.tolist(), strict=True)
            with temporary.open("wb") as file, compressed(file, str(out)) as stream:
                kind.write(stream, ((row, 0.0) for row, flag in rows if flag), "", "text")
