"""Rebuilding: a published artifact's own recipe is run again and the two are compared.

The folder of a rebuild is an ordinary run's, so that a killed one goes on where it was. It belongs
to one artifact and one set of versions (work/rebuild.json), and to one process at a time.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secondary_learners.artifacts.checks import read_json
from secondary_learners.deltas.artifact import read_delta
from secondary_learners.errors import ArtifactError, RecipeError, SecondaryLearnersError
from secondary_learners.files import sha256_file, write_json
from secondary_learners.filtering.selection import pad
from secondary_learners.learners.artifact import read_learner
from secondary_learners.learners.config import LearnerConfig
from secondary_learners.recipes.base_model.recipe import PretrainRecipe
from secondary_learners.recipes.delta.make import read_task, run_delta
from secondary_learners.recipes.delta.recipe import DeltaRecipe
from secondary_learners.recipes.distilled_learner.make import run_distilled
from secondary_learners.recipes.distilled_learner.published import read_published_labels
from secondary_learners.recipes.distilled_learner.recipe import DistilledRecipe
from secondary_learners.recipes.gain_learner.data import LabellingData, Splits, finetuning_data
from secondary_learners.recipes.gain_learner.make import run_learner, run_pretraining
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.likeness import (
    Circumstance,
    Figure,
    FileBytes,
    Verdict,
    compare_circumstances,
    compare_figures,
    compare_files,
    compare_logits,
    compare_scores,
    number,
    verdict,
)
from secondary_learners.recipes.loss_learner.make import read_staged_task, run_multistage
from secondary_learners.recipes.loss_learner.recipe import MultistageRecipe
from secondary_learners.recipes.parsing import Recipe, parse_recipe
from secondary_learners.registry.load import load_base, locate
from secondary_learners.tasks.classifier import classifier
from secondary_learners.tasks.encoding import Encoded
from secondary_learners.tasks.training import predict
from secondary_learners.text.examples import matrices

__all__ = ["Published", "Rebuild", "published_seconds", "read_published", "rebuild"]

log = logging.getLogger(__name__)

_SCORED = 4000  # unseen contexts that both learners score


@dataclass(frozen=True)
class Published:
    """The artifact to rebuild: its folder, and its recipe with every default written out."""

    folder: Path
    recipe: Recipe


@dataclass(frozen=True)
class Rebuild:
    """What came of it. circumstances: what differs in how the two were made."""

    name: str
    published: Path
    folder: Path
    verdict: Verdict
    files: tuple[FileBytes, ...]
    figures: tuple[Figure, ...]
    circumstances: tuple[Circumstance, ...]
    seconds: float


def read_published(reference: str | Path) -> Published:
    """The artifact that `reference` names, its digests checked; see `load_learner`.

    Raises what `load_learner` raises, and ArtifactError when it lacks what a rebuild needs.
    """
    found = locate(reference)
    found.check_all()
    folder = found.folder
    path = folder / "recipe.toml"
    if not path.is_file():
        raise ArtifactError(
            f"{folder} has no recipe.toml, so nothing says how to make it. Try `learners list`."
        )
    try:
        recipe = parse_recipe(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    if isinstance(recipe, LearnerRecipe | MultistageRecipe | DistilledRecipe):
        read_learner(folder)
    elif isinstance(recipe, DeltaRecipe):
        read_delta(folder)
    for name in ("config.json", "evaluation.json"):
        read_json(folder / name)
    return Published(folder, recipe)


def published_seconds(published: Published) -> float | None:
    """How long the parts took whose time was recorded, when it was made; None if none was."""
    evaluation = read_json(published.folder / "evaluation.json")
    comparison, energy = evaluation.get("fine_tuning"), evaluation.get("energy")
    parts: list[tuple[object, object]] = [
        (evaluation.get(name), 1) for name in ("training_seconds", "seconds")
    ]
    if isinstance(energy, dict):
        parts.append((energy.get("seconds"), 1))
    if isinstance(comparison, dict) and isinstance(comparison.get("rows"), list):
        rows = [row for row in comparison["rows"] if isinstance(row, dict)]
        parts += [(row.get("seconds"), comparison.get("seeds")) for row in rows]
    known = [number(seconds) * number(times) for seconds, times in parts]
    return float(np.nansum(known)) or None


def rebuild(
    published: Published,
    corpus: Path | None,
    out: Path,
    *,
    device: str,
    progress: bool = True,
) -> Rebuild:
    """Make `published` again in `out` and compare.

    Raises SecondaryLearnersError when `out` is another rebuild's or another process is at work in
    it, and what `run_learner`, `run_delta` and `run_pretraining` raise.
    """
    begun = time.monotonic()
    with _claimed(published, out):
        recipe = published.recipe
        evaluation = read_json(published.folder / "evaluation.json")
        common: dict[str, Any] = {
            "device": device,
            # As published, so that the card can be the same to the byte.
            "command": str(evaluation.get("command") or f"learners run {recipe.name}"),
            "progress": progress,
        }
        if isinstance(recipe, PretrainRecipe):
            if not (out / "work" / f"{recipe.name}.toml").is_file():  # written last
                run_pretraining(recipe, corpus, out, **common)
            scores: list[Figure] = []
        elif isinstance(recipe, MultistageRecipe):
            scores = _rebuild_multistage(published, recipe, corpus, out, common)
        elif isinstance(recipe, DeltaRecipe):
            full = evaluation.get("full_fine_tuning") is not None
            scores = _rebuild_delta(published, recipe, corpus, out, common | {"compare": full})
        elif isinstance(recipe, DistilledRecipe):
            del common["device"]  # it is made on the CPU
            run_distilled(recipe, corpus, out, **common)
            unseen = read_published_labels(recipe.labels, corpus).reported.input_ids
            scores = _compare_learners(published, out, unseen, np.ones_like(unseen))
        else:
            scores = _rebuild_learner(published, recipe, corpus, out, common)
    files = compare_files(published.folder, out)
    figures = [*scores, *compare_figures(published.folder, out)]
    return Rebuild(
        name=recipe.name,
        published=published.folder,
        folder=out,
        verdict=verdict(files, figures),
        files=tuple(files),
        figures=tuple(figures),
        circumstances=tuple(compare_circumstances(published.folder, out)),
        seconds=time.monotonic() - begun,
    )


def _rebuild_learner(
    published: Published,
    recipe: LearnerRecipe,
    corpus: Path | None,
    out: Path,
    common: dict[str, Any],
) -> list[Figure]:
    """Run the recipe and have both learners score text that neither was fitted on."""
    config, dealt = read_learner(published.folder).config, Splits()

    def look(splits: Splits, text: LabellingData) -> None:
        dealt.update(splits)
        _check_text(config, text)

    run_learner(recipe, corpus, out, look=look, **common)
    _, tokenizer = load_base(recipe.base)
    stream = finetuning_data(recipe, dealt, tokenizer).stream
    contexts = stream.select(np.arange(min(_SCORED, len(stream))))
    return _compare_learners(published, out, *matrices(contexts))


def _rebuild_multistage(
    published: Published,
    recipe: MultistageRecipe,
    corpus: Path | None,
    out: Path,
    common: dict[str, Any],
) -> list[Figure]:
    run_multistage(recipe, corpus, out, **common)
    task = read_staged_task(recipe, corpus, *load_base(recipe.base))
    return _compare_learners(published, out, *pad(task.encoded.dev.ids[:_SCORED]))


def _compare_learners(
    published: Published, out: Path, input_ids: Any, attention_mask: Any
) -> list[Figure]:
    """The scores of both learners for contexts [n, length] that neither was fitted on."""
    parts = [torch.from_numpy(array).split(512) for array in (input_ids, attention_mask)]
    before, after = (
        torch.cat([learner.score(ids, mask) for ids, mask in zip(*parts, strict=True)])
        for learner in (read_learner(published.folder), read_learner(out))
    )
    return compare_scores(before.numpy(), after.numpy())


def _rebuild_delta(
    published: Published,
    recipe: DeltaRecipe,
    corpus: Path | None,
    out: Path,
    common: dict[str, Any],
) -> list[Figure]:
    """Run the recipe and have both deltas judge the examples that neither was trained on."""
    ours = read_delta(published.folder)

    def look(train: Encoded, test: Encoded) -> None:
        task = ours.config.task
        _check_same(
            ("training examples", train.digest, task.get("train")),
            ("test examples", test.digest, task.get("test")),
        )

    if not (out / "config.json").is_file():  # written last
        run_delta(recipe, corpus, out, look=look, **common)
    base, tokenizer = load_base(recipe.base)
    _, test = read_task(recipe, corpus, tokenizer)
    logits = []
    for delta in (ours, read_delta(out)):
        with delta.apply(classifier(base, len(delta.config.classes))) as applied:
            logits.append(predict(applied.model, test))
    return compare_logits(*logits)


def _check_text(config: LearnerConfig, text: LabellingData) -> None:
    _check_same(
        ("contexts", text.candidates.digest, config.corpus.get("digest")),
        ("objective", text.objective.digest, config.objective.get("digest")),
    )


def _check_same(*digests: tuple[str, str, object]) -> None:
    """Say that the text is another one before the work begins, not after it."""
    for name, found, expected in digests:
        if expected not in (None, found):
            log.warning(
                "the text is not the published one: the digest of its %s is %s, and was %s. The "
                "bytes cannot be the same, so only figures will tell. Name the text it was made "
                "from with --corpus, or interrupt with Ctrl-C.",
                *(name, found, expected),
            )
            return


@contextlib.contextmanager
def _claimed(published: Published, out: Path) -> Iterator[None]:
    """`out` for this artifact, these versions and this process; released even by SIGKILL."""
    from filelock import FileLock, Timeout

    claim = {
        "files": {
            path.name: sha256_file(path)
            for path in sorted(published.folder.glob("[!.]*"))
            if path.is_file()
        },
        "versions": {name: version(name) for name in ("secondary-learners", "torch")},
        "python": platform.python_version(),
    }
    work = out / "work"
    path = work / "rebuild.json"
    found = [*out.glob("[!.]*"), *work.glob("[!.]*")]
    if not path.is_file() and any(entry != work for entry in found):
        raise SecondaryLearnersError(
            f"{out} holds something else than a rebuild. Try another --out, or remove it."
        )
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / ".rebuild.lock", timeout=0):
            if not path.is_file():
                write_json(path, claim)
            elif read_json(path) != claim:
                raise SecondaryLearnersError(
                    f"{out} holds a rebuild of another artifact, or by other versions. "
                    "Try another --out, or remove it."
                )
            yield
    except Timeout:
        raise SecondaryLearnersError(
            f"another process is rebuilding in {out}. Wait for it, or try another --out."
        ) from None
