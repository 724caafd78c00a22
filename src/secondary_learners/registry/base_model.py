"""Base models as a kind of artifact: folders that transformers reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secondary_learners.artifacts.checks import read_json
from secondary_learners.artifacts.layout import FILES
from secondary_learners.errors import ArtifactError

__all__ = ["KIND"]


class _BaseModelKind:
    kind, name = "base-model", "base model"
    files = (*FILES, "tokenizer.json", "tokenizer_config.json")
    whole = False
    loader = "load_base"
    absent = ("base", "objective")
    place = 1

    def owns(self, config: Mapping[str, Any]) -> bool:
        return "format_version" not in config and isinstance(config.get("model_type"), str)

    def read(
        self, folder: Path, digests: Mapping[str, str] | None = None, *, remedy: str | None = None
    ) -> tuple[str, ...]:
        """The names of its tensors: that it loads is for transformers to say."""
        import safetensors

        try:
            with safetensors.safe_open(folder / "model.safetensors", framework="numpy") as file:
                names = tuple(file.keys())
        except (OSError, safetensors.SafetensorError) as error:
            raise ArtifactError(f"model.safetensors does not load: {error}.") from error
        if not names:
            raise ArtifactError("model.safetensors holds no tensors.")
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            if (folder / name).is_file():
                read_json(folder / name)
        return names

    def check(self, config: Mapping[str, Any]) -> None:
        """transformers' own config has no name."""

    def card(self, config: Mapping[str, Any]) -> str:
        return "base-model"

    def needs(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        return ()

    def entry(self, config: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, str]:
        domains = dict.fromkeys(str(source["domain"]) for source in recipe.get("sources", ()))
        return {
            "tokenizer": str(recipe["name"]),
            "corpus": "+".join(domains) or "unknown",
            "architecture": str(config["model_type"]),
            "optimizer": "muon+adamw" if domains else "unknown",
        }


KIND = _BaseModelKind()
