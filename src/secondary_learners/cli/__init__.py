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
    "list": ("find", "catalogue", "List the learners, base models and recipes."),
    "show": ("find", "catalogue", "Show one learner: what it predicts, its figures, its files."),
    "demo": ("find", "finetune", "The main job on what ships with the package."),
    "worth": ("make", "worth", "Would a filter pay? A short run of each arm, before paying."),
    "run": ("make", "make", "Make a learner: corpus, labels, fit, evaluation, package."),
    "gains": ("make", "make", "Measure information gain and store it as labels."),
    "fit": ("make", "make", "Fit a learner on stored labels."),
    "distil": ("make", "distil", "Teach a learner that needs no tokenizer what another says."),
    "rebuild": ("make", "rebuild", "Run an artifact's recipe again and compare the two."),
    "delta": ("make", "delta", "Store a task as a tiny delta: changed layers, or a mask."),
    "trials": ("make", "trials", "Trials over seeds: run them, read a table, spend a budget."),
    "score": ("use", "text", "Score texts, or keep the best share of them."),
    "select": ("use", "select", "Keep the best of a corpus that was scored, shard for shard."),
    "explain": ("use", "text", "Color a text by each token's share of its score."),
    "finetune": ("use", "finetune", "Fine-tune filtered, at random and plainly, and compare."),
    "refresh": ("use", "refresh", "Does a learner still hold for a model as it is now?"),
    "publish": ("share", "publish", "Publish to a Hub: audited, one commit, a tag."),
    "card": ("share", "card", "Check a model card offline."),
    "lock": ("share", "lock", "Pin learners to commits and digests in learners.lock."),
    "verify": ("share", "lock", "Hash what ships and what is cached; say what differs."),
    "registry": ("share", "registry", "Add, list, update and remove other teams' registries."),
    "catalogue": ("share", "site", "Build the catalogue's pages as files."),
    "serve": ("serve", "serve", "Serve a Hub of your own."),
    "serve-token": ("serve", "serve", "Create, list and revoke the tokens of your own Hub."),
    "serve-check": ("serve", "store", "Is every file of your own Hub there, and whole?"),
    "serve-backup": ("serve", "store", "Copy your own Hub while it is served."),
    "serve-restore": ("serve", "store", "Make a Hub from a backup."),
    "serve-gc": ("serve", "store", "Drop what no commit of your own Hub names."),
}

# British spellings that options and verbs once had; they still work, and no help shows them.
_OLD_SPELLINGS = {"--licence": "--license"}
_OLD_VERBS = {"analyse": "analyze"}


class LazyGroup(click.Group):
    """Commands by name: section of the help, module that has `NAME_command`, line of the help."""

    def __init__(self, *args: Any, table: dict[str, tuple[str, str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return None
        module = importlib.import_module(f"{__name__}.{self.table[name][1]}")
        command = getattr(module, f"{name.replace('-', '_')}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = _OLD_VERBS.get(arguments[0], arguments[0])
        if name not in self.table and not name.startswith("-"):
            near = get_close_matches(name, self.table, n=1)
            path = context.command_path
            hint = f" Did you mean `{path} {near[0]}`?" if near else ""
            raise click.UsageError(f"no command named {name!r}.{hint} Try `{path} --help`.")
        return super().resolve_command(context, [name, *map(_american, arguments[1:])])

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.table))  # one column of descriptions for all sections
        for section in dict.fromkeys(section for section, _, _ in self.table.values()):
            rows = [
                (name.ljust(width), text)
                for name, (place, _, text) in self.table.items()
                if place == section
            ]
            with formatter.section(section.capitalize()):
                formatter.write_dl(rows)


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
