"""`learners score` and `learners explain`: a learner on texts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from secondary_learners.cli.columns import with_columns
from secondary_learners.cli.lock import with_locked
from secondary_learners.cli.output import Output, with_output

__all__ = ["explain_command", "score_command"]


_tokenizer_option = click.option(
    "--tokenizer",
    type=click.Path(exists=True, path_type=Path),
    help="The learner's tokenizer: a tokenizer.json, or a folder with one.  [the recorded one]",
)


@click.command("score")
@click.argument("texts", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--learner",
    "-l",
    required=True,
    help="A name from `learners list`, owner/name on a Hub, or a folder.",
)
@_tokenizer_option
@click.option("--column", default="text", show_default=True, help="Column of JSONL or Parquet.")
@with_columns
@click.option(
    "--keep",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Write only this best share of the texts to --out, in their order.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write here instead of to the terminal (.txt, .jsonl or .parquet).",
)
@with_locked
@with_output
def score_command(
    output: Output,
    texts: Path,
    learner: str,
    tokenizer: Path | None,
    column: str,
    columns: tuple[str, str] | None,
    keep: float | None,
    out: Path | None,
) -> None:
    """Score TEXTS: a file (.txt a line a text, .jsonl, .parquet) or a folder (a file a text).

    \b
    learners score pool.jsonl -l books-mini --out scored.jsonl       adds a column `score`
    learners score pool.txt -l books-mini --keep 0.3 --out best.txt  the best 30 %

    A learner made from instructions scores rows with a prompt and a completion.
    """
    from secondary_learners.engines.scoring import (
        best_share,
        instruction_plan,
        read_examples,
        read_rows,
        score_examples,
        score_texts,
        write_rows,
    )
    from secondary_learners.registry.load import load_learner, load_tokenizer

    if keep is not None and out is None:
        raise click.UsageError("--keep needs --out FILE for the texts that are kept.")
    judge = load_learner(learner)
    reader = load_tokenizer(judge, tokenizer)
    plan = instruction_plan(judge)
    if columns and plan is None:
        raise click.UsageError(f"--columns is for instructions; {learner} was made from text.")
    if plan is None:
        rows = read_rows(texts, column)
        words = [row[column] for row in rows]
        scores = score_texts(judge, reader, words, progress=output.progress)
    else:
        if out is not None and out.suffix not in (".jsonl", ".parquet"):
            raise click.UsageError(f"--out {out} must be .jsonl or .parquet: these are rows.")
        rows, examples = read_examples(texts, reader, plan, columns)
        words = [_shown(row, columns or plan.columns) for row in rows]
        scores = score_examples(judge, reader, examples)
    for row, score in zip(rows, scores, strict=True):
        row["score"] = score
    kept = rows if keep is None else [rows[i] for i in best_share(scores, keep)]
    if out is not None:
        write_rows(out, kept, column)
        output.result(
            f"{len(kept)} of {len(rows)} texts written to {out}",
            {"out": str(out), "texts": len(rows), "kept": len(kept)},
        )
    elif output.json:
        output.result("", rows)
    else:
        for row, text in zip(rows, words, strict=True):
            output.result(f"{row['score']:+.3f}\t{' '.join(text.split())[:100]}", None)


def _shown(row: dict[str, Any], columns: tuple[str, str]) -> str:
    """A prompt and its completion on one line, as text or as chat messages."""
    parts = [row[name] for name in columns if name in row] or [row["messages"]]
    turns = [[part] if isinstance(part, str) else [m["content"] for m in part] for part in parts]
    return " ".join(str(turn) for part in turns for turn in part)


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
    from secondary_learners.engines.scoring import mean_contributions, mean_scores
    from secondary_learners.registry.load import load_learner, load_tokenizer
    from secondary_learners.text.corpus import normalize, read_texts

    if os.path.isfile(text):  # unlike Path.is_file, false for what is too long for a name
        text = "\n".join(read_texts(Path(text)))
    judge = load_learner(learner)
    reader = load_tokenizer(judge, tokenizer)
    ids = reader.backend_tokenizer.encode(normalize(text), add_special_tokens=False).ids
    if not ids:
        raise click.UsageError("there is no text to explain.")
    score = mean_scores(judge, [ids])[0]
    shares = mean_contributions(judge, ids)
    pieces = [reader.decode([token]) for token in ids]
    strongest = max(map(abs, shares)) or 1.0
    painted = "".join(
        click.style(piece, bg=_shade(share / strongest), fg=(0, 0, 0))
        for piece, share in zip(pieces, shares, strict=True)
    )
    tokens = [{"token": piece, "share": share} for piece, share in zip(pieces, shares, strict=True)]
    output.result(
        f"{painted}\n\nscore {score:+.2f} standard deviations "
        f"(predicted gain {judge.gain_of(score):.3g} {judge.config.score.unit})",
        {"score": score, "tokens": tokens},
    )


def _shade(strength: float) -> tuple[int, int, int]:
    """White at 0, green towards 1 and red towards −1; black text stays readable on all."""
    fade = round(255 - 135 * min(1.0, abs(strength)))
    return (fade, 255, fade) if strength > 0 else (255, fade, fade)
