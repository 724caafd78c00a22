"""The command line `learners`. Commands are loaded when they are called, torch only when needed."""

from __future__ import annotations

import errno
import importlib
import sys
from difflib import get_close_matches

import click

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["learners", "main"]

_COMMANDS = {
    "list": ("catalogue", "List the learners, base models and recipes."),
    "show": ("catalogue", "Show one learner: what it predicts, its figures, its files."),
    "run": ("make", "Make a learner: corpus, labels, fit, evaluation, package."),
    "gains": ("make", "Measure information gain and store it as labels."),
    "fit": ("make", "Fit a learner on stored labels."),
    "score": ("text", "Score texts, or keep the best share of them."),
    "explain": ("text", "Colour a text by each token's share of its score."),
    "finetune": ("finetune", "Fine-tune with the filter, at random and without, and compare."),
    "delta": ("delta", "Make and apply tasks as tiny deltas: changed layers, or a mask."),
    "demo": ("finetune", "The main job on what ships with the package."),
}


class _LazyGroup(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{_COMMANDS[name][0]}")
        command = getattr(module, f"{name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if name not in _COMMANDS and not name.startswith("-"):
            near = get_close_matches(name, _COMMANDS, n=1)
            hint = f" Did you mean `learners {near[0]}`?" if near else ""
            raise click.UsageError(f"no command named {name!r}.{hint} Try `learners --help`.")
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="secondary-learners", prog_name="learners")
def learners() -> None:
    """Secondary learners: predict what an example teaches a model, and skip the rest.

    \b
    learners list                                what there is
    learners demo                                the main job, offline
    learners run --objective want.txt --pool mixed/ --out runs/mine
                                                 a learner for your own text
    """


def main() -> None:
    """Run the command line; every exception becomes one message and an exit code."""
    try:
        status = learners.main(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted. What was finished is kept: the same command goes on from there.", 130)
    except SecondaryLearnersError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""  # a failed write names no file
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = " Free some space and run the same command again." if full else ""
        _fail(f"{error.strerror or error}{place}.{hint}", 1)
    else:
        sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, code: int) -> None:
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
    sys.exit(code)
