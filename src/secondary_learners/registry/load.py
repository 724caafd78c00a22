"""Loading learners and base models by name or folder, every recorded digest checked first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from secondary_learners.catalogue import content
from secondary_learners.errors import (
    ArtefactError,
    DigestMismatchError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.files import sha256_file
from secondary_learners.registry.index import Entry, find

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from secondary_learners.learners.artifact import Learner

__all__ = ["load_base", "load_learner", "load_tokenizer"]


def load_learner(ref: str | Path, *, device: str | torch.device = "cpu") -> Learner:
    """The learner called `ref` (see `learners list`), or the one in the folder `ref`.

    A name's files are compared with the digests in the registry. Raises UnknownNameError,
    and what `read_learner` raises for a folder that is not sound.
    """
    from secondary_learners.learners.artifact import read_learner

    folder = Path(ref)
    if (folder / "config.json").is_file():
        return read_learner(folder).to(device)
    if folder.is_dir() and (isinstance(ref, Path) or "/" in ref):
        raise ArtefactError(
            f"the folder {ref} has no config.json, so it holds no learner. Try `learners list`."
        )
    name = str(ref)
    if "/" in name or "@" in name:
        raise SecondaryLearnersError(
            f"there is no folder {name!r}, and learners on a Hub or at a revision are not "
            "supported yet. Download it and give the folder, or see `learners list`."
        )
    entry = find(name, kind="learner")
    return read_learner(_bundled(entry), entry.files).to(device)


def load_base(ref: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model (float32, in eval mode) and its tokenizer.

    ref: a bundled base model (see `learners list`), else a folder or Hub id for transformers.
    Only safetensors weights are read. Raises SecondaryLearnersError when there is no such model.
    """
    import torch
    import transformers

    source = _base_source(str(ref))
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:  # how transformers says: not there, or no such model
        raise SecondaryLearnersError(
            f"cannot load the base model {source!r}: {error} Give a name from `learners list`, a "
            "folder with a causal language model, or its id on the Hugging Face Hub."
        ) from error
    model.eval()
    return model, tokenizer


def load_tokenizer(learner: Learner) -> PreTrainedTokenizerBase:
    """The tokenizer that `learner` was made for, its fingerprint checked.

    Raises SecondaryLearnersError when it cannot be had and IncompatibleError when it is another.
    """
    import transformers

    reference = learner.config.tokenizer
    source = _base_source(reference.repo)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=reference.revision)
    except (OSError, ValueError) as error:
        raise SecondaryLearnersError(
            f"cannot load the tokenizer {source!r} of the learner {learner.config.name!r}: {error}"
        ) from error
    learner.check_tokenizer(tokenizer)
    return tokenizer


def _base_source(ref: str) -> str:
    """The folder of a bundled base model, its digests checked; anything else as it is."""
    try:
        entry = find(ref, kind="base-model")
    except UnknownNameError:
        return ref
    folder = _bundled(entry)
    _check_files(entry, folder)
    return str(folder)


def _bundled(entry: Entry) -> Path:
    if entry.location != "bundled":
        raise SecondaryLearnersError(
            f"{entry.name!r} is at {entry.location}, and loading from a Hub is not supported yet. "
            f"Download it and give the folder; see `learners show {entry.name}`."
        )
    return content("learners") / entry.name


def _check_files(entry: Entry, folder: Path) -> None:
    """transformers reads what it finds, so every file that is there must be a recorded one."""
    present = {path.name for path in folder.glob("[!.]*")}
    for name in sorted(present | set(entry.files)):
        expected = entry.files.get(name)
        found = sha256_file(folder / name) if (folder / name).is_file() else None
        if expected is None or found != expected:
            raise DigestMismatchError(
                f"{folder / name}: its sha256 should be {expected or 'recorded'}, and is "
                f"{found or 'missing'}. Compare with `learners show {entry.name}`, or reinstall "
                "with `pip install --force-reinstall secondary-learners`."
            )
