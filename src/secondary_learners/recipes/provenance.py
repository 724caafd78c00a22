"""What every artifact says of how it was made: files, versions, device, the base model's commit."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from secondary_learners.files import sha256_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["base_commit", "device_name", "file_digests", "processor", "repository_of", "versions"]


def file_digests(folder: Path) -> dict[str, Any]:
    """`size` and `files` of a registry entry, of what `folder` holds; hidden files left out."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file()]
    paths = [path for path in paths if not path.name.startswith(".")]
    return {
        "size": sum(path.stat().st_size for path in paths),
        "files": {path.name: sha256_file(path) for path in paths},
    }


def repository_of(reference: str, model: PreTrainedModel) -> tuple[str, str | None]:
    """Where a base model is, and its commit; without one, all that `reference` says."""
    commit = base_commit(model)
    return (reference.partition("@")[0] if commit else reference), commit


def base_commit(model: PreTrainedModel) -> str | None:
    """The commit of a base model that came from a Hub; transformers keeps it with the config."""
    commit = getattr(model.config, "_commit_hash", None)
    full = isinstance(commit, str) and re.fullmatch("[0-9a-f]{40}", commit)
    return commit if full else None


def device_name(device: str | torch.device) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor()


def processor() -> str:
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"


def versions() -> dict[str, str]:
    return {
        "secondary-learners": version("secondary-learners"),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }
