"""`learners score` and `learners explain`: a learner on texts."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from pathlib import Path

import click

from secondary_learners.cli.columns import with_columns
from secondary_learners.cli.corpus import Engine, score_corpus, with_engine
from secondary_learners.cli.lock import with_locked
from secondary_learners.cli.output import Output, printable, with_output
from secondary_learners.errors import CorpusError

__all__ = ["explain_command", "score_command"]


_tokenizer_option = click.option(
    "--tokenizer",
    type=click.Path(exists=True, path_type=Path),
    help="The learner's tokenizer: a tokenizer.json, or a folder with one.  [the recorded one]",
)


def _not_nan(
    context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter("it is not a number.")
    return value


@click.command("score")
@click.argument("texts", nargs=-1, required=True, metavar="TEXTS...")
@click.option(
    "--learner",
    "-l",
    required=True,
    help="A name from `learners list`, owner/name on a Hub, or a folder.",
)
@_tokenizer_option
@click.option("--column", default="text", show_default=True, help="Column of rows with the text.")
@with_columns
@click.option(
    "--score-column", default="score", show_default=True, help="What the new column is called."
)
@click.option(
    "--keep",
    type=click.FloatRange(min=0, max=1, min_open=True),
    callback=_not_nan,
    help="Write only this best share of the texts to --out, in their order.",
)
@click.option(
    "--out",
    "destination",
    help="Write the rows here, with their scores, instead of to the terminal; FOLDER/ for the "
    "scores alone, in a file for each shard.",
)
@click.option("--id", "id_column", help="Column with the rows' names, for --out FOLDER/.")
@with_engine
@click.option(
    "--order",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the numbers of the rows there, the highest score first: for ScoreSampler.",
)
@with_locked
@with_output
def score_command(
    output: Output,
    texts: tuple[str, ...],
    learner: str,
    tokenizer: Path | None,
    column: str,
    columns: tuple[str, str] | None,
    score_column: str,
    keep: float | None,
    destination: str | None,
    id_column: str | None,
    engine: str,
    workers: int | None,
    order: Path | None,
) -> None:
    """Score TEXTS: files, folders, patterns, or - for lines of JSON on standard input.

    \b
    learners score pool.jsonl -l books-mini --out scored.jsonl       adds a column `score`
    learners score pool.txt -l books-mini --keep 0.3 --out best.txt  the best 30 %
    learners score corpus/ -l books-mini --out scores/               a corpus, for `learners select`

    A row is a text: of .jsonl, .ndjson, .json, .csv, .tsv and .parquet in --column; a line of any
    other file; in a folder, any other file whole. All may be compressed (.gz, .bz2, .xz, .zst). A
    learner made from instructions scores rows with a prompt and a completion.

    A corpus is scored by several workers, and one that was broken off goes on with the same
    command. A shard that cannot be read is named in the end, and the others are done.
    """
    from secondary_learners.engines.files import (
        best_share,
        check_not_input,
        check_output,
        keep_stdin,
        score_shards,
        write_scored,
    )
    from secondary_learners.engines.scoring import row_scorer, tokenizer_of
    from secondary_learners.engines.streams import ROWS, find_shards, suffix
    from secondary_learners.filtering.sampling import write_order
    from secondary_learners.registry.load import load_learner

    if destination and (destination.endswith(("/", os.sep)) or os.path.isdir(destination)):
        if keep is not None or order is not None:
            raise click.UsageError(
                f"--keep and --order are for one file, and --out {destination} is a folder. Run "
                "`learners select` on it afterwards."
            )
        reading = {"column": column, "columns": columns, "tokenizer": tokenizer}
        folder, by = Path(destination), Engine(engine, workers)
        score_corpus(output, texts, learner, folder, by, id_column=id_column, **reading)
        return
    if id_column or workers or engine != "local":
        raise click.UsageError("--id, --workers and --engine need --out FOLDER/.")
    out = None if destination is None else Path(destination)
    if keep is not None and out is None:
        raise click.UsageError("--keep needs --out FILE for the texts that are kept.")
    with ExitStack() as stack:
        inputs = tuple(
            keep_stdin(stack, "standard-input.jsonl") if text == "-" else text for text in texts
        )
        try:
            shards = find_shards(inputs)
        except CorpusError as error:
            raise click.UsageError(str(error)) from error
        if order is not None:
            check_not_input(shards, order, "--order")
        judge = load_learner(learner)
        instructions = judge.config.corpus.get("format") == "instructions"
        if columns and not instructions:
            raise click.UsageError(f"--columns is for instructions; {learner} was made from text.")
        plain = [shard.address for shard in shards if suffix(shard.address) not in ROWS]
        if instructions and plain:
            raise click.UsageError(
                f"{plain[0]} holds no rows, and {learner} was made from prompts with completions. "
                "Name a .jsonl or .parquet file."
            )
        if out is not None:
            if instructions and suffix(str(out)) not in ROWS:
                raise click.UsageError(f"--out {out} must be .jsonl or .parquet: these are rows.")
            check_output(shards, out, column, score_column)
        scorer = row_scorer(judge, tokenizer_of(judge, tokenizer), column, columns)
        new = None if out is not None and suffix(str(out)) not in ROWS else score_column
        scored = score_shards(shards, scorer, column, score=new, progress=output.progress)
        if order is not None:
            write_order(order, scored.scores)
        if out is not None:
            flags = best_share(scored.scores, 1.0 if keep is None else keep)
            write_scored(scored, out, flags, score=score_column)
            kept, count = int(flags.sum()), len(flags)
            output.result(
                f"{kept} of {count} texts written to {out}",
                {"out": str(out), "texts": count, "kept": kept},
            )
            return
        values = zip(scored.rows(), scored.scores.tolist(), strict=True)
        if output.json:
            rows = [{**row.fields, score_column: value} for row, value in values]
            output.result("", rows)
            return
        for row, value in values:
            output.result(f"{value:+.3f}\t{scorer.shown(row)[:100]}", None)


@click.command("explain")
@click.argument("text")
@click.option(
    "--learner",
    "-l",
    required=True,
    help="A name from `learners list`, owner/name on a Hub, or a folder.",
)
@_tokenizer_option
@with_locked
@with_output
def explain_command(output: Output, text: str, learner: str, tokenizer: Path | None) -> None:
    """Color TEXT (or the text of the file TEXT) by each token's share of its score.

    Green raises the score and red lowers it, the stronger the larger the token's share.
    """
    from secondary_learners.engines.explaining import explain
    from secondary_learners.engines.scoring import tokenizer_of
    from secondary_learners.registry.load import load_learner
    from secondary_learners.text.corpus import read_texts

    if os.path.isfile(text):  # unlike Path.is_file, false for what is too long for a name
        text = "\n".join(read_texts(Path(text)))
    judge = load_learner(learner)
    explained = explain(judge, tokenizer_of(judge, tokenizer), text)
    if explained is None:
        raise click.UsageError("there is no text to explain.")
    strongest = max(abs(share) for _, share in explained.tokens) or 1.0
    painted = "".join(
        click.style(printable(piece), bg=_shade(share / strongest), fg=(0, 0, 0))
        for piece, share in explained.tokens
    )
    output.result(
        f"{painted}\n\nscore {explained.score:+.2f} standard deviations "
        f"(predicted gain {judge.gain_of(explained.score):.3g} {judge.config.score.unit})",
        {
            "score": explained.score,
            "tokens": [{"token": piece, "share": share} for piece, share in explained.tokens],
        },
        styled=True,
    )


def _shade(strength: float) -> tuple[int, int, int]:
    """White at 0, green towards 1 and red towards −1; black text stays readable on all."""
    fade = round(255 - 135 * min(1.0, abs(strength)))
    return (fade, 255, fade) if strength > 0 else (255, fade, fade)
