"""`learners select`: the best of a corpus that was scored."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from secondary_learners.cli.corpus import Engine, Progress, shards_of, with_engine
from secondary_learners.cli.output import Output, columns, with_output
from secondary_learners.errors import CorpusError, SecondaryLearnersError

if TYPE_CHECKING:
    from secondary_learners.engines.choosing import Choice
    from secondary_learners.engines.groups import Groups
    from secondary_learners.engines.selecting import ScoredShard
    from secondary_learners.engines.shards import NamedShard
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
@click.option("--report", type=_folder, help="A folder for a page on what was kept, and JSON.")
@click.option("--source", metavar="COLUMN", help="Of the report: what to count by.  [shards]")
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
    report: Path | None,
    source: str | None,
    engine: str,
    workers: int | None,
) -> None:
    """Keep the best of a corpus: INPUT... as they were given to `learners score`.

    \b
    learners score corpus/ -l books-mini --out scores/
    learners select corpus/ --scores scores/ --keep 0.3 --out best/ --dropped rest/ --report report/

    One threshold holds for all shards, and exactly the share is kept; of equal scores the first by
    id. Shards keep their names and formats, and rows their bytes and types.
    """
    from secondary_learners.engines.choosing import Order, Ranking, Wish, choose
    from secondary_learners.engines.selecting import (
        WriteShard,
        opened,
        read_scored,
        scored_shards,
    )
    from secondary_learners.engines.shards import check_apart

    if keep is None and tokens is None:
        raise click.UsageError("say how much to keep: --keep 0.3, or --tokens 1B.")
    if source and not report:
        raise click.UsageError("--source is of the report: --report FOLDER.")
    shards = shards_of(inputs)
    folders = {"--scores": scores, "--out": out, "--dropped": dropped, "--report": report}
    check_apart(inputs, shards, {name: path for name, path in folders.items() if path})
    shards, failed = scored_shards(shards, scores)
    for name in failed:
        output.note(f"left out, since it was not scored: {name}")
    scored = read_scored(shards, scores)
    order, wish = Order(soft, seed if soft else 0), Wish(keep, tokens)
    by = Engine(engine, workers)
    with tempfile.TemporaryDirectory() as temporary:
        groups = _groups(output, by, shards, per, Path(temporary, "per"))
        sources = groups
        if source and source != per:
            sources = _groups(output, by, shards, source, Path(temporary, "source"))
        choice = choose(Ranking(scores, order, groups), [one.name for one in shards], wish)
        facts = {
            "keep": keep,
            "limit": tokens,
            "per": per,
            "temperature": soft,
            "seed": order.seed,
            "documents": sum(one.facts.documents for one in scored),
            "kept": choice.documents,
            "tokens": choice.tokens,
            "edges": {group: asdict(edge) for group, edge in sorted(choice.edges.items())},
            "scorer": scored[0].facts.scorer if scored else {},
            "inputs": {one.shard.name: one.facts.input for one in scored},
        }
        written = [folder for folder in (out, dropped) if folder]
        with opened(written, facts):
            _each(output, by, WriteShard(choice, out, dropped), scored)
        if report:
            _write_report(output, report, choice, scored, sources, facts, written)
    output.result(
        f"{choice.documents:,} of {facts['documents']:,} documents kept in {out}, "
        f"{choice.tokens:,} tokens\n{_table(choice)}",
        {
            "out": str(out),
            **{name: facts[name] for name in ("documents", "kept", "tokens", "edges")},
        },
    )


def _groups(
    output: Output, engine: Engine, shards: Sequence[NamedShard], column: str | None, folder: Path
) -> Groups | None:
    """What each document has in a column; None for none."""
    from secondary_learners.engines.groups import Groups, GroupShard

    if column is None:
        return None
    _each(output, engine, GroupShard(Groups(folder), column), shards)
    return Groups(folder)


def _write_report(
    output: Output,
    folder: Path,
    choice: Choice,
    scored: Sequence[ScoredShard],
    sources: Groups | None,
    facts: Mapping[str, Any],
    written: Sequence[Path],
) -> None:
    from secondary_learners.engines.corpus import read_run
    from secondary_learners.engines.receipt import make_receipt
    from secondary_learners.engines.receipt_page import receipt_page
    from secondary_learners.engines.specification import load_scorer
    from secondary_learners.files import sha256_file, write_bytes, write_json
    from secondary_learners.text.corpus import visible_files

    specification = read_run(choice.ranking.scores)
    try:
        shares = load_scorer(specification).shares
    except SecondaryLearnersError as error:
        output.note(f"the report does not say which tokens decided: {error}")
        shares = None
    receipt = make_receipt(choice, scored, sources=sources, shares=shares)
    facts = {**facts, **asdict(specification)}
    facts["outputs"] = {
        option: {
            path.relative_to(place).as_posix(): sha256_file(path) for path in visible_files(place)
        }
        for option, place in zip(("kept", "dropped"), written, strict=False)
    }
    value = {
        **facts,
        "ids": receipt.ids,
        "total": receipt.total.to_json(),
        "sources": {name: one.to_json() for name, one in receipt.sources.items()},
        "examples": [asdict(one) for one in receipt.examples],
    }
    write_json(folder / "receipt.json", value)
    write_bytes(folder / "index.html", receipt_page(receipt, facts).encode())


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
