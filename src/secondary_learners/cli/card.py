"""`learners card check`."""

from __future__ import annotations

from pathlib import Path

import click

from secondary_learners.cli.output import Output, with_output
from secondary_learners.errors import ArtifactError

__all__ = ["card_command"]


@click.group("card")
def card_command() -> None:
    """Model cards."""


@card_command.command("check")
@click.argument("cards", nargs=-1, required=True, type=click.Path(path_type=Path))
@with_output
def check_command(output: Output, cards: tuple[Path, ...]) -> int:
    """Say what a Hub would refuse in CARDS, and what a reader would miss. Nothing is sent.

    CARDS are artifact folders or card files. Figures must be there, and be those of the
    evaluation.json beside the card. The exit status is 1 if anything is wrong.
    """
    from secondary_learners.cards.check import check_card

    problems_of = {}
    for card in cards:
        try:
            problems_of[str(card)] = check_card(card)
        except FileNotFoundError as error:
            raise ArtifactError(
                f"there is no card {error.filename}. Give a folder with a README.md, or the file."
            ) from error
    lines = []
    for name, problems in problems_of.items():
        lines.append(f"{name}: {'nothing is wrong' if not problems else ''}".rstrip())
        lines += [f"  - {problem}" for problem in problems]
    output.result(
        "\n".join(lines),
        {
            name: [{"kind": str(p.kind), "message": p.message} for p in problems]
            for name, problems in problems_of.items()
        },
    )
    return 1 if any(problems_of.values()) else 0
