"""Deltas as a kind of artifact; read without torch until one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondary_learners.artifacts.layout import FILES
from secondary_learners.deltas.config import DeltaConfig

if TYPE_CHECKING:
    from secondary_learners.deltas.artifact import Delta

__all__ = ["KIND"]


class _DeltaKind:
    kind = name = "delta"
    files = FILES
    whole = True
    loader = "load_delta"
    absent = ("objective",)
    place = 2

    def owns(self, config: Mapping[str, Any]) -> bool:
        return "format_version" in config and "layers" in config

    def read(
        self, folder: Path, digests: Mapping[str, str] | None = None, *, remedy: str | None = None
    ) -> Delta:
        from secondary_learners.deltas.artifact import read_delta

        return read_delta(folder, digests, remedy=remedy)

    def check(self, config: Mapping[str, Any]) -> str:
        return DeltaConfig.from_dict(config).name

    def card(self, config: Mapping[str, Any]) -> str:
        return "delta"

    def needs(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        return (str(config["base_model"]["repo"]),)

    def entry(self, config: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, str]:
        made = DeltaConfig.from_dict(config)
        return {
            "base": made.base_model.repo,
            "tokenizer": made.tokenizer.repo,
            "corpus": made.task.get("name", ""),
            "architecture": made.kind,
            "optimizer": "adamw",
        }


KIND = _DeltaKind()
