"""What the contract test drives: made-up text, runs that are killed, strangers' machines.

Run as a script it is one of the processes that the test starts: see `PROCESSES`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli_helpers import learners
from secondary_learners.recipes.kinds import ROWS

RECIPES = Path(__file__).parent / "contract" / "recipes"
IDS = [[5, 9, 200, 7, 31], [4, 4, 8, 15, 16]]


def recipe_kinds() -> list[str]:
    """The kinds of recipes, as the package has them."""
    return sorted(ROWS)


def recipe_of(kind: str) -> Path:
    """The tiny recipe of that kind: a kind without one fails here."""
    path = RECIPES / f"{kind}.toml"
    assert path.is_file(), f"give the recipe kind {kind!r} a tiny recipe: {path}"
    return path


def name_of(kind: str) -> str:
    name: str = tomllib.loads(recipe_of(kind).read_text())["name"]
    return name


def write_corpus(folder: Path) -> Path:
    """The text, the task and the published labels that the tiny recipes read."""
    from classification_helpers import write_task
    from distil_helpers import write_data
    from recipes_helpers import OTHER, WANTED, prose
    from wheel_helpers import write_wheel

    (folder / "ships.txt").write_text(prose(WANTED, 12_000, seed=1))
    (folder / "taxes.txt").write_text(prose(OTHER, 12_000, seed=2))
    write_wheel(folder)
    write_task(folder / "classification" / "sea", train=160)
    write_data(folder / "distilled")
    return folder


# The files that a run writes


_WATCHERS: list[Callable[[Path], None]] = []


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHERS and event == "os.rename":  # os.replace is the same event
        for watcher in _WATCHERS:
            watcher(Path(os.fsdecode(arguments[1])).absolute())


sys.addaudithook(_on_event)  # for good: no hook can be taken away


@contextmanager
def written(folder: Path) -> Iterator[list[str]]:
    """The files below `folder` that become whole meanwhile, in their order."""
    names: list[str] = []

    def note(path: Path) -> None:
        if path.is_relative_to(folder):
            names.append(str(path.relative_to(folder)))

    _WATCHERS.append(note)
    try:
        yield names
    finally:
        _WATCHERS.remove(note)


def _killed(folder: str, count: str, *arguments: str) -> None:
    """`learners ARGUMENTS`, which dies when COUNT files in FOLDER are whole, at the next one."""
    with written(Path(folder)) as names:

        def die(_: Path) -> None:
            if len(names) > int(count):
                os.kill(os.getpid(), signal.SIGKILL)

        _WATCHERS.append(die)
        result = learners(*arguments)
    print(result.out, result.err)
    sys.exit(result.code)


# What an artifact does, in figures


def _score(artifact: Any) -> Any:
    if artifact.config.reads_text:
        return artifact.score_texts(["ships at sea", "a tax on salt"]).tolist()
    return artifact.score(IDS).tolist()


def _logits_of_base(artifact: Any) -> Any:
    import torch

    model, tokenizer = artifact
    with torch.no_grad():
        logits = model(torch.tensor(IDS)).logits[:, -1, ::1024]
    assert tokenizer.decode(tokenizer("ships at sea")["input_ids"]) == "ships at sea"
    return logits.tolist()


def _logits_of_delta(artifact: Any) -> Any:
    import torch

    with torch.no_grad():
        return artifact.model(torch.tensor(IDS)).logits.tolist()


PROBES: dict[str, Callable[[Any], Any]] = {
    "learner": _score,
    "base-model": _logits_of_base,
    "delta": _logits_of_delta,
}
"""For each kind of artifact, what to ask of what its public loader gives."""


def probe(kind: str, ref: object) -> Any:
    """What the artifact REF of that kind gives for the same tokens, loaded by its public loader."""
    import torch

    import secondary_learners
    from secondary_learners.artifacts.kinds import artifact_kind

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order
    try:
        return PROBES[kind](getattr(secondary_learners, artifact_kind(kind).loader)(ref))
    finally:
        torch.set_num_threads(threads)


def _stranger(kind: str, entries: str, name: str, corpus: str) -> None:
    """On a machine that has nothing: add a registry, load by name, lock, verify, rebuild."""
    ref = f"team:{name}"
    steps: dict[str, Any] = {}

    def step(verb: str, *arguments: object) -> None:
        result = learners(*arguments, "--json")
        value = result.json if result.out else None
        steps[verb] = {"code": result.code, "value": value, "error": result.err}

    step("registry", "registry", "add", "team", entries)
    step("show", "show", ref)
    steps["load"] = probe(kind, ref)
    step("lock", "lock", ref)
    step("verify", "verify", ref)
    step("rebuild", "rebuild", ref, "--corpus", corpus, "--locked", "--device", "cpu")
    print(json.dumps(steps))


PROCESSES = {"killed": _killed, "stranger": _stranger}

if __name__ == "__main__":
    PROCESSES[sys.argv[1]](*sys.argv[2:])
