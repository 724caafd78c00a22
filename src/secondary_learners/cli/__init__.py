"""The command line `learners`. Commands are loaded when they are called, torch only when needed."""

from __future__ import annotations

import errno
import importlib
import sys
from difflib import get_close_matches
from typing import Any

import click

from secondary_learners.cli.output import printable
from secondary_learners.errors import SecondaryLearnersError

__all__ = ["LazyGroup", "learners", "main"]

_COMMANDS = {
    "list": ("catalogue", "List the learners, base models and recipes."),
    "show": ("catalogue", "Show one learner: what it predicts, its figures, its files."),
    "run": ("make", "Make a learner: corpus, labels, fit, evaluation, package."),
    "gains": ("make", "Measure information gain and store it as labels."),
    "fit": ("make", "Fit a learner on stored labels."),
    "score": ("text", "Score texts, or keep the best share of them."),
    "explain": ("text", "Color a text by each token's share of its score."),
    "finetune": ("finetune", "Fine-tune with the filter, at random and without, and compare."),
    "delta": ("delta", "Make and apply tasks as tiny deltas: changed layers, or a mask."),
    "trials": ("trials", "Trials over seeds: run them, read a table, spend a budget."),
    "publish": ("publish", "Publish a learner or delta to a Hub: audited, one commit, a tag."),
    "card": ("card", "Check a model card offline."),
    "rebuild": ("rebuild", "Run an artifact's recipe again and compare with what was published."),
    "registry": ("registry", "Add, list, update and remove other teams' registries."),
    "catalogue": ("site", "Build the pages of all that can be loaded by name, as files."),
    "lock": ("lock", "Pin learners to commits and digests in learners.lock."),
    "verify": ("lock", "Hash what ships and what is cached again, and say what differs."),
    "serve": ("serve", "Serve a Hub of your own."),
    "serve-token": ("serve", "Create, list and revoke the tokens of your own Hub."),
    "serve-check": ("store", "Is every file of your own Hub there, and whole?"),
    "serve-backup": ("store", "Copy your own Hub while it is served."),
    "serve-restore": ("store", "Make a Hub from a backup."),
    "serve-gc": ("store", "Drop what no commit of your own Hub names."),
    "refresh": ("refresh", "Does a learner still hold for a model's weights as they are now?"),
    "demo": ("finetune", "The main job on what ships with the package."),
}

# British spellings that options once had; they still work, and no help shows them.
_OLD_SPELLINGS = {"--licence": "--license"}


class LazyGroup(click.Group):
    """Commands by name: the module that has `NAME_command`, and one line for the help."""

    def __init__(self, *args: Any, table: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return None
        module = importlib.import_module(f"{__name__}.{self.table[name][0]}")
        command = getattr(module, f"{name.replace('-', '_')}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if name not in self.table and not name.startswith("-"):
            near = get_close_matches(name, self.table, n=1)
            path = context.command_path
            hint = f" Did you mean `{path} {near[0]}`?" if near else ""
            raise click.UsageError(f"no command named {name!r}.{hint} Try `{path} --help`.")
        return super().resolve_command(context, [_american(word) for word in arguments])

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])


def _american(word: str) -> str:
    option, equals, value = word.partition("=")
    return _OLD_SPELLINGS.get(option, option) + equals + value


@click.group(
    cls=LazyGroup, table=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
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
        status = learners.main(prog_name="learners", standalone_mode=False)
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
    click.echo(click.style("error: ", fg="red", bold=True) + printable(message), err=True)
    sys.exit(code)
