"""Running a recipe of any kind: read, make, and the registry entry of what was made; resumable.

Stages leave their results in `out/work`, so that a killed run goes on where it was; the artifact
itself appears in `out` at the end.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.experiments.runs import RunStore, StoredRun, alone_in
from secondary_learners.files import write_bytes
from secondary_learners.gains.processes import ALONE, Team
from secondary_learners.recipes.energy import open_meter
from secondary_learners.recipes.kinds import kind_of
from secondary_learners.recipes.parsing import find_recipe, recipe_names
from secondary_learners.recipes.record import Record
from secondary_learners.registry.entries import artifact_entry
from secondary_learners.registry.index import entry_toml

if TYPE_CHECKING:
    from secondary_learners.experiments.compare import Comparison

__all__ = ["Made", "Run", "check_out", "opened", "reference_of", "run_recipe"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and how a recipe is run; all that is not what it makes.

    out: the artifact's folder. corpus: the folder that the recipe's files are in. command: for the
    card. progress: whether bars are shown. processes: those that share the work, where the kind
    can. energy: the country (ISO code, or `energy.WORLD`) for which energy is measured; a run that
    was begun so goes on so without it. compare: whether a delta is compared with fine-tuning all.
    """

    out: Path
    corpus: Path | None = None
    device: str = "cpu"
    command: str = ""
    progress: bool = True
    processes: Team = ALONE
    energy: str | None = None
    compare: bool = True

    @property
    def work(self) -> Path:
        """Where stages leave their results."""
        return self.out / "work"

    def stage(self, name: str, digest: str, make: Callable[[], StoredRun]) -> StoredRun:
        """What `make` gives, or gave in an earlier run; digest: of all that determines it.

        The figure `stage_seconds` is how long it took, then or now.
        """
        store = RunStore(self.work, {"digest": digest})
        stored = store.read(name)
        if stored is None:
            begun = time.monotonic()
            stored = make()
            figures = {**stored.figures, "stage_seconds": time.monotonic() - begun}
            stored = replace(stored, figures=figures)
            store.write(name, stored.figures, stored.arrays)
        return stored

    @contextlib.contextmanager
    def measured(self, stages: str, digest: str) -> Iterator[Callable[[], dict[str, Any]]]:
        """Measure the energy of the block, if that is wanted.

        stages: what it does, in words. digest: of what the energy is spent on. What is given says,
        after the block, what to add to the evaluation.
        """
        meter = None
        if self.processes.first:
            meter = open_meter(
                self.work / "energy.json",
                self.energy,
                plan=digest,
                stages=stages,
                begun=self._begun(),
            )
        if meter is None:
            yield dict
            return
        with meter.running():
            yield lambda: {"energy": figures} if (figures := meter.figures()) else {}

    def _begun(self) -> bool:
        """Whether a stage has left something."""
        own = ("energy.json", "settings.json")
        return any(path.name not in own for path in self.work.glob("[!.]*"))


@dataclass(frozen=True)
class Made:
    """What a run made: the artifact's folder and all its figures (evaluation.json)."""

    folder: Path
    evaluation: dict[str, Any]
    comparison: Comparison | None = None


def run_recipe(recipe: Record, run: Run) -> Made | None:
    """Make what `recipe` says in `run.out`, and write its registry entry below `run.work`.

    A killed run goes on where it was. None in a process that only shared in the work. Raises
    SecondaryLearnersError for a folder that no run made, and what each stage raises.
    """
    check_out(run.out, recipe.name)
    kind = kind_of(recipe)
    material = kind.read(recipe, run)  # before anything is written
    with opened(recipe, run):
        return finish(recipe, kind.make(recipe, material, run), run)


def finish(recipe: Record, made: Made | None, run: Run) -> Made | None:
    """Write the registry entry of what was made; the last thing that a run does."""
    if made is not None:
        write_bytes(entry_path(recipe, run), entry_toml(artifact_entry(made.folder)).encode())
    return made


def entry_path(recipe: Record, run: Run) -> Path:
    return run.work / f"{recipe.name}.toml"


@contextlib.contextmanager
def opened(recipe: Record, run: Run, **more: Any) -> Iterator[None]:
    """`run.out` for this recipe and this process; released even by SIGKILL.

    more: of the identity that a folder has for good. Raises SecondaryLearnersError for a folder
    that no run made, another's, or one in which another process is at work.
    """
    if not run.processes.first:
        yield
        return
    check_out(run.out, "" if more else recipe.name)
    with alone_in(run.work):
        RunStore.begin(run.work, {"kind": recipe.kind, "name": recipe.name, **more})
        yield


def check_out(out: Path, name: str = "") -> None:
    """Raise SecondaryLearnersError for a folder with anything in it that no run put there.

    name: of the artifact; one of that name may be made again in its folder.
    """
    marks = (out / "work").glob("settings.json"), (out / "work" / "labels").glob("labels.json")
    if not any(out.glob("[!.]*")) or any(True for mark in marks for _ in mark):
        return
    if name and (out / "recipe.toml").is_file():
        with contextlib.suppress(SecondaryLearnersError, ValueError):
            if find_recipe(str(out / "recipe.toml")).name == name:
                return
    raise SecondaryLearnersError(
        f"{out} holds something that no run of this made, and it is left alone. "
        "Try another --out, such as a new folder."
    )


def reference_of(recipe: Record, folder: Path) -> str:
    """What a card's example loads: what a bundled recipe makes goes by its name."""
    own = any(find_recipe(name).name == recipe.name for name in recipe_names())
    return recipe.name if own else f"./{folder.absolute().name}"
