"""`learners score --out FOLDER/`: a corpus of many shards by several workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from secondary_learners.cli.output import Output
from secondary_learners.errors import CorpusError

if TYPE_CHECKING:
    from secondary_learners.engines.shards import NamedShard

__all__ = ["Engine", "Progress", "score_corpus", "shards_of", "with_engine"]


@dataclass(frozen=True)
class Engine:
    """What runs the work on shards, and by how many workers (None: one a core)."""

    name: str
    workers: int | None

    def of(self, shards: Sequence[object]) -> int:
        """The workers for these shards."""
        return min(self.workers or _cores(), len(shards))


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not everywhere
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def with_engine(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --workers and --engine."""
    for option in (
        click.option("--engine", default="local", show_default=True, help="What runs the workers."),
        click.option("--workers", type=click.IntRange(min=1), help="Processes.  [one a core]"),
    ):
        command = option(command)
    return command


def shards_of(inputs: Sequence[str]) -> list[NamedShard]:
    """The shards that inputs name; a UsageError for an input that names none."""
    from secondary_learners.engines.shards import name_shards
    from secondary_learners.engines.streams import find_shards

    if "-" in inputs:
        raise click.UsageError("standard input has no shards. Write it into a file first.")
    try:
        return name_shards(find_shards(tuple(inputs)))
    except CorpusError as error:
        raise click.UsageError(str(error)) from error


def score_corpus(
    output: Output, inputs: Sequence[str], learner: str, out: Path, engine: Engine, **scored: Any
) -> None:
    """Score every shard into the folder `out`; exits with 1 where a shard could not be scored.

    scored: the columns and the tokenizer as `specify` takes them, and `id_column`.
    """
    from secondary_learners.engines.corpus import ScoreShard, write_run
    from secondary_learners.engines.shards import check_apart, only_writer
    from secondary_learners.engines.specification import specify
    from secondary_learners.engines.work import engine_named

    shards = shards_of(inputs)
    check_apart(inputs, shards, {"--out": out})
    runner, id_column = engine_named(engine.name), scored.pop("id_column")
    specification = specify(learner, **scored)
    if scored["columns"] and specification.normalization != "none":
        raise click.UsageError(f"--columns is for instructions; {learner} was made from text.")
    work = ScoreShard(specification, out, id_column or "")
    with only_writer(out):
        outcomes = []
        with Progress(len(shards), output.progress) as bar:
            for outcome in runner.run(work, shards, engine.of(shards), bar.add):
                outcomes.append(outcome)
                bar.finish()
                if outcome.failure:
                    output.note(outcome.failure)
        run = write_run(work, engine.name, outcomes)
    failed = run["failed"]
    rate = f" at {bar.rate():,.0f} tokens a second" if bar.tokens else ""
    output.result(
        f"{run['documents']:,} documents of {len(run['shards'])} shards scored in {out}, "
        f"{run['tokens']:,} tokens{rate}",
        {"out": str(out), **{name: run[name] for name in ("documents", "tokens", "failed")}},
    )
    if failed:
        raise CorpusError(
            f"{len(failed)} of {len(shards)} shards could not be scored: {', '.join(failed)}. The "
            "others are done; mend these and run the same command again."
        )


class Progress:
    """Shards done, tokens a second and the time left, on one line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._show:
            click.echo(err=True)

    def __init__(self, shards: int, show: bool) -> None:
        self.tokens = 0
        self._shards, self._done, self._show = shards, 0, show
        self._begun = self._shown = time.monotonic()

    def add(self, tokens: int) -> None:
        """Tokens were scored."""
        self.tokens += tokens
        self._draw(every=0.5)

    def finish(self) -> None:
        """A shard is done."""
        self._done += 1
        self._draw(every=0.0)

    def rate(self) -> float:
        """Tokens a second since the beginning."""
        return self.tokens / max(1e-9, time.monotonic() - self._begun)

    def _draw(self, every: float) -> None:
        now = time.monotonic()
        if not self._show or now - self._shown < every:
            return
        self._shown = now
        left = "unknown"
        if self._done:
            seconds = (now - self._begun) / self._done * (self._shards - self._done)
            left = f"{seconds // 3600:.0f}:{seconds // 60 % 60:02.0f}:{seconds % 60:02.0f}"
        click.echo(
            f"\r{self._done}/{self._shards} shards, {self.tokens:,} tokens, "
            f"{self.rate():,.0f} a second, time left {left}  ",
            err=True,
            nl=False,
        )
