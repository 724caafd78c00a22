"""`learners select`: the best of a corpus that was scored."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from secondary_learners.cli.corpus import Engine, Progress, shards_of, with_engine
from secondary_learners.cli.output import Output, columns, with_output
from secondary_learners.errors import CorpusError

if TYPE_CHECKING:
    from secondary_learners.engines.choosing import Choice
    from secondary_learners.engines.work import Work

__all__ = ["select_command"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def _count(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMBT]?)", value.upper().replace("_", ""))
    number = round(float(match[1]) * _UNITS[match[2]]) if match else 0
    if number < 1:
        raise click.BadParameter(f"{value!r} is not a number of tokens, such as 500M or 1B.")
    return number


def _share(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:  # so that nan is refused
        raise click.BadParameter(f"{value} is not above 0 and at most 1.")
    return value


def _temperature(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise click.BadParameter(f"{value} is not a temperature, which is 0 or above.")
    return value


_folder = click.Path(file_okay=False, path_type=Path)


@click.command("select")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--scores",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder that `learners score INPUT... --out FOLDER/` wrote.",
)
@click.option("--keep", type=float, callback=_share, help="The share of documents to keep.")
@click.option("--tokens", callback=_count, help="The most tokens to keep: 500M, 1B.")
@click.option("--per", metavar="COLUMN", help="Keep as much of each value of this column.")
@click.option(
    "--soft",
    type=float,
    default=0.0,
    callback=_temperature,
    metavar="TEMPERATURE",
    help="Draw documents in proportion to exp(score / TEMPERATURE).  [the best ones]",
)
@click.option("--seed", default=0, show_default=True, help="Of --soft.")
@click.option("--out", required=True, type=_folder, help="A folder for what is kept.")
@click.option("--dropped", type=_folder, help="A folder for all the rest.")
@with_engine
@with_output
def select_command(
    output: Output,
    inputs: tuple[str, ...],
    scores: Path,
    keep: float | None,
    tokens: int | None,
    per: str | None,
    soft: float,
    seed: int,
    out: Path,
    dropped: Path | None,
    engine: str,
    workers: int | None,
) -> None:
    """Keep the best of a corpus: INPUT... as they were given to `learners score`.

    \b
    learners score corpus/ -l books-mini --out scores/
    learners select corpus/ --scores scores/ --keep 0.3 --out best/ --dropped rest/

    One threshold holds for all shards, and exactly the share is kept; of equal scores the first by
    id. Shards keep their names and formats, and rows their bytes and types.
    """
    from secondary_learners.engines.choosing import Order, Ranking, Wish, choose
    from secondary_learners.engines.groups import Groups, GroupShard
    from secondary_learners.engines.selecting import (
        WriteShard,
        opened,
        read_scored,
        scored_shards,
    )
    from secondary_learners.engines.shards import check_apart

    if keep is None and tokens is None:
        raise click.UsageError("say how much to keep: --keep 0.3, or --tokens 1B.")
    shards = shards_of(inputs)
    folders = {"--scores": scores, "--out": out} | ({"--dropped": dropped} if dropped else {})
    check_apart(inputs, shards, folders)
    shards, failed = scored_shards(shards, scores)
    for name in failed:
        output.note(f"left out, since it was not scored: {name}")
    scored = read_scored(shards, scores)
    order, wish = Order(soft, seed if soft else 0), Wish(keep, tokens)
    by = Engine(engine, workers)
    with tempfile.TemporaryDirectory() as temporary:
        groups = Groups(Path(temporary)) if per else None
        if groups and per:
            _each(output, by, GroupShard(groups, per), shards)
        choice = choose(Ranking(scores, order, groups), [one.name for one in shards], wish)
        what = {
            "order": asdict(order),
            "wish": asdict(wish),
            "per": per,
            "edges": {group: asdict(edge) for group, edge in sorted(choice.edges.items())},
            "shards": {one.shard.name: one.facts.input for one in scored},
        }
        with opened([folder for folder in (out, dropped) if folder], what):
            _each(output, by, WriteShard(choice, out, dropped), scored)
    documents = sum(one.facts.documents for one in scored)
    output.result(
        f"{choice.documents:,} of {documents:,} documents kept in {out}, {choice.tokens:,} tokens\n"
        + _table(choice),
        {
            "out": str(out),
            "documents": documents,
            "kept": choice.documents,
            "tokens": choice.tokens,
            "edges": what["edges"],
        },
    )


def _each(output: Output, engine: Engine, work: Work[str], items: Sequence[Any]) -> None:
    """Do the work on each item, a shard; raises CorpusError for those that could not be read."""
    from secondary_learners.engines.work import engine_named

    runner = engine_named(engine.name)
    with Progress(len(items), output.progress) as bar:
        wrong = []
        for failure in runner.run(work, items, engine.of(items), bar.add):
            bar.finish()
            wrong += [failure] if failure else []
    if wrong:
        raise CorpusError("\n".join(wrong))


def _table(choice: Choice) -> str:
    rows: list[Any] = [("group", "kept", "tokens", "threshold")] if len(choice.edges) > 1 else []
    for group, edge in sorted(choice.edges.items()):
        key = "all" if edge.key is None else f"{edge.key:+.4f}"
        rows.append((group, f"{edge.documents:,}", f"{edge.tokens:,}", key))
    return columns(rows) if len(rows) > 1 else f"threshold: {rows[0][3]}"
