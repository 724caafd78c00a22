"""Loading learners and base models by name, repository or folder, every digest checked first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from secondary_learners.errors import (
    ArtifactError,
    HubError,
    LockError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.registry.lock import Pinned, is_required, read_lock
from secondary_learners.registry.references import (
    FolderReference,
    Reference,
    RepositoryReference,
    parse_reference,
)
from secondary_learners.registry.requests import request
from secondary_learners.registry.resolve import resolve
from secondary_learners.registry.resolved import Resolved, Storage

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from secondary_learners.learners.artifact import Learner

__all__ = ["load_base", "load_learner", "load_tokenizer", "locate"]


def load_learner(
    ref: str | Path,
    *,
    device: str | torch.device = "cpu",
    locked: bool | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Learner:
    """The learner that `ref` names, every byte compared with a recorded sha256.

    What was loaded once loads again without a network. Only .safetensors, .json, .toml and .md
    files are fetched.

    Args:
        ref: a name ("books-mini", see `learners list`), a name in a registry that was added
            ("team:books"), a model repository on a Hub ("owner/name", "owner/name@v1.0"), or a
            folder. Names are compared with the digests in their registry, repositories with
            learners.lock or with what was recorded when they were first loaded; a folder has no
            digests.
        device: where it scores.
        locked: refuse whatever learners.lock does not pin; by default as SECONDARY_LEARNERS_LOCKED
            says. What the lock pins is always loaded as pinned.
        endpoint: the Hub to load from, in place of that of the registry or of huggingface_hub.
        token: for that Hub. Your own token is never sent to another Hub than HF_ENDPOINT's.

    Returns:
        The learner: `score(input_ids, attention_mask)` gives [batch] scores, in standard deviations
        of its predictions on held-out contexts.

    Raises:
        UnknownNameError: for a name that is in no registry.
        LockError: for what learners.lock does not pin, when only that may be loaded.
        HubError: for what the Hub refuses; OfflineError when it does not answer.
        DigestMismatchError: for a file with other bytes than were recorded.
        ArtifactError: for a folder that is not sound.
    """
    from secondary_learners.learners.artifact import read_learner

    resolved = locate(ref, kind="learner", locked=locked, endpoint=endpoint, token=token)
    learner = read_learner(resolved.folder, resolved.digests, remedy=resolved.remedy or None)
    return learner if str(device) == "cpu" else learner.to(device)


def locate(
    ref: str | Path,
    *,
    kind: str | None = None,
    locked: bool | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Resolved:
    """The folder with the files of `ref`, fetched if need be; `Resolved.read` checks their digests.

    kind: "learner", "base-model", or None for any. Raises what `load_learner` raises.
    """
    required, lock = is_required(locked), read_lock()
    reference = _reference(ref, lock)
    if isinstance(reference, FolderReference):
        return _own_folder(reference, kind, required)
    asked = request(reference, kind, endpoint=endpoint, token=token)
    try:
        return resolve(asked, lock, required=required)
    except HubError as error:
        if isinstance(reference, RepositoryReference):  # it may have been meant as a folder
            raise type(error)(f"{error} And there is no folder {str(ref)!r} here.") from error
        raise


def _reference(ref: str | Path, lock: Mapping[str, Pinned]) -> Reference:
    """What `ref` means; what is locked is never a folder that happens to have that name."""
    return parse_reference(ref, is_folder=lambda text: text not in lock and os.path.isdir(text))


def _own_folder(reference: FolderReference, kind: str | None, required: bool) -> Resolved:
    if required:
        raise _unlocked_folder(reference)
    if not (reference.path / "config.json").is_file():
        raise ArtifactError(
            f"the folder {reference} has no config.json, so it holds no learner. "
            "Try `learners list`."
        )
    return Resolved(
        key=str(reference), kind=kind, folder=reference.path, digests=None, source=Storage.FOLDER
    )


def _unlocked_folder(reference: FolderReference) -> LockError:
    return LockError(
        f"the folder {reference} has no place in learners.lock, and only what is locked may be "
        "loaded. Publish it and lock it, or leave out --locked and SECONDARY_LEARNERS_LOCKED."
    )


def load_base(ref: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model (float32, in eval mode) and its tokenizer.

    Names of registries and what is locked are compared with recorded digests, and transformers
    reads a folder with the recorded files alone. A Hub id that is in no registry and not locked is
    transformers' own affair: it fetches and reads it, and there is no recorded digest to compare
    with; `learners lock owner/name` makes one. A folder has no digests either. In every case only
    safetensors weights are read, and code that a repository ships is never run.

    Args:
        ref: a base model of a registry (see `learners list`), else a folder, or a Hub id for
            transformers ("owner/name", "owner/name@revision"); what learners.lock pins is loaded as
            pinned.

    Returns:
        The model and its tokenizer. `model.config._commit_hash` is the commit of what came from a
        Hub.

    Raises:
        LockError: for what learners.lock does not pin, when only that may be loaded.
        DigestMismatchError: for a file with other bytes than were recorded.
        SecondaryLearnersError: when there is no such model, or when it needs code of its own.
    """
    import torch
    import transformers

    with _base_source(ref, locked=None) as (source, revision, commit):
        if not commit and not Path(source.path).is_dir():
            commit = _hub_commit(source.path, revision)
            revision = commit or revision  # weights and tokenizer of one commit
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                source.path,
                revision=revision,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
            )
            tokenizer = _tokenizer(source, revision)
        except (OSError, ValueError) as error:  # as transformers says: not there, or no such model
            raise SecondaryLearnersError(
                f"cannot load the base model {source.name!r}: {_reason(error)} Give a name from "
                "`learners list`, a folder with a causal language model, or its id on the Hugging "
                "Face Hub."
            ) from error
    model.config._name_or_path = model.name_or_path = source.name
    if commit:
        model.config._commit_hash = commit
    model.eval()
    return model, tokenizer


def _hub_commit(repository: str, revision: str | None) -> str:
    """The commit that `revision` is now, or was last on this machine; "" when nobody can say.

    transformers does not tell which one it loaded, and explains best why it cannot.
    """
    from huggingface_hub import errors, resolve_revision

    try:
        return resolve_revision(repository, revision=revision).resolved
    except (
        errors.RevisionResolutionError,
        errors.HfHubHTTPError,
        errors.HFValidationError,
    ):
        return ""


def load_tokenizer(learner: Learner, file: Path | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that `learner` was made for, its fingerprint checked.

    file: where it is on this machine, as a tokenizer.json or a folder with one; by default it comes
    from where the learner's config says. Raises SecondaryLearnersError when it cannot be fetched
    and IncompatibleError when it is another.
    """
    if file is not None:
        tokenizer = _tokenizer_file(file)
        learner.check_tokenizer(tokenizer)
        return tokenizer
    reference = learner.tokenizer_reference
    # Not locked by itself: the learner's own config pins the vocabulary.
    with _base_source(reference.repo, locked=False) as (source, revision, _):
        try:
            tokenizer = _tokenizer(source, revision or reference.revision)
        except (OSError, ValueError) as error:
            raise SecondaryLearnersError(
                f"cannot load the tokenizer {source.name!r} of the learner "
                f"{learner.config.name!r}: {_reason(error)} Give it from a file of your own with "
                "`--tokenizer tokenizer.json`, or connect once: it is kept then."
            ) from error
    learner.check_tokenizer(tokenizer)
    return tokenizer


@dataclass(frozen=True)
class _BaseSource:
    """What transformers is to read, a folder or a Hub id, and what to call it afterwards."""

    path: str
    name: str


def _tokenizer(source: _BaseSource, revision: str | None) -> PreTrainedTokenizerBase:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        source.path, revision=revision, trust_remote_code=False
    )
    tokenizer.name_or_path = source.name
    return tokenizer


def _tokenizer_file(path: Path) -> PreTrainedTokenizerBase:
    import tokenizers
    import transformers

    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise SecondaryLearnersError(
            f"{file} is not a tokenizer.json: {error}. Name the file, or the folder that it is in."
        ) from error
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _reason(error: Exception) -> str:
    if "trust_remote_code" in str(error):  # transformers advises to allow it
        return "it needs code of its own repository, and such code is never run."
    return str(error)


@contextmanager
def _base_source(
    ref: str | Path, *, locked: bool | None
) -> Iterator[tuple[_BaseSource, str | None, str]]:
    """A folder of checked files, or a Hub id for transformers; the revision; the commit."""
    required, lock = is_required(locked), read_lock()
    reference = _reference(ref, lock)
    if isinstance(reference, FolderReference):
        if required:
            raise _unlocked_folder(reference)
        yield _BaseSource(str(reference), str(reference)), None, ""
        return
    unlocked = not (required or str(reference) in lock)
    if isinstance(reference, RepositoryReference) and unlocked:
        name = reference.repository
        yield _BaseSource(name, name), reference.revision, ""
        return
    try:
        asked = request(reference, "base-model")
    except UnknownNameError:
        if required or isinstance(reference, RepositoryReference) or reference.registry:
            raise
        yield _BaseSource(reference.name, reference.name), reference.revision, ""  # as "gpt2"
        return
    resolved = resolve(asked, lock, required=required)
    with resolved.checked() as folder:
        yield _BaseSource(str(folder), str(resolved.folder)), None, resolved.commit
