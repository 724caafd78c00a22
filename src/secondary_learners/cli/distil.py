"""`learners distil`: a learner without a tokenizer from one of token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from secondary_learners.cli.invocation import invocation
from secondary_learners.cli.lock import with_locked
from secondary_learners.cli.make import name_of, report_made
from secondary_learners.cli.output import Output, with_output

__all__ = ["distil_command"]


@click.command("distil")
@click.argument("teacher", metavar="LEARNER")
@click.option(
    "--text",
    "texts",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Unlabelled text to learn on: a file or folder, a domain each.",
)
@click.option(
    "--corpus",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="In place of --text: the folder with the text that LEARNER's own recipe names.",
)
@click.option("--contexts", type=click.IntRange(min=20), help="How many runs of words.  [60000]")
@click.option("--license", help="Of the learner, as the Hub calls it, such as apache-2.0.")
@click.option("--seed", type=int, help="Of the choice of contexts and held-out documents.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make it in.")
@with_locked
@with_output
def distil_command(
    output: Output,
    teacher: str,
    texts: tuple[Path, ...],
    corpus: Path | None,
    contexts: int | None,
    license: str | None,
    seed: int | None,
    out: Path,
) -> None:
    """Teach a learner that needs no tokenizer what LEARNER says of unlabelled text.

    \b
    learners distil books-mini --text pool/ --text novels/ --out runs/mine
    learners score corpus/ -l runs/mine --out scores/

    It reads text many times as fast, and serves beside any model. How well it agrees with LEARNER
    on documents that it never saw is in its card. A killed run goes on where it was.
    """
    from dataclasses import replace

    from secondary_learners.recipes.kinds import kind_of
    from secondary_learners.recipes.run import Run, run_recipe
    from secondary_learners.recipes.student.recipe import own_sources, own_student, sources_of

    if bool(texts) == bool(corpus):
        raise click.UsageError("give either --text FILES or --corpus FOLDER.")
    sources = own_sources(texts) if texts else sources_of(teacher)
    given: dict[str, Any] = {"contexts": contexts, "license": license, "seed": seed}
    chosen = {name: value for name, value in given.items() if value is not None}
    recipe = replace(own_student(name_of(out), teacher, sources), **chosen)
    run = Run(out=out, corpus=corpus, command=invocation(), progress=output.progress)
    made = run_recipe(recipe, run)
    assert made is not None
    report_made(output, made, kind_of(recipe).report(made))
