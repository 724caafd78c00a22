"""Learners as a kind of artifact; read without torch until one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondary_learners.artifacts.layout import FILES
from secondary_learners.learners.config import LearnerConfig

if TYPE_CHECKING:
    from secondary_learners.learners.artifact import Learner

__all__ = ["KIND", "LOSS_METHOD"]

LOSS_METHOD = "training loss"  # `labels.method` of a learner of training losses


class _LearnerKind:
    kind = name = "learner"
    files = FILES
    whole = True
    loader = "load_learner"
    absent: tuple[str, ...] = ()
    place = 0

    def owns(self, config: Mapping[str, Any]) -> bool:
        return "format_version" in config and "kind" not in config

    def read(
        self, folder: Path, digests: Mapping[str, str] | None = None, *, remedy: str | None = None
    ) -> Learner:
        from secondary_learners.learners.artifact import read_learner

        return read_learner(folder, digests, remedy=remedy)

    def check(self, config: Mapping[str, Any]) -> str:
        return LearnerConfig.from_dict(config).name

    def card(self, config: Mapping[str, Any]) -> str:
        """Learners of gains, of losses, of others' labels and scores: `labels` tells them apart."""
        labels = config.get("labels")
        if not isinstance(labels, Mapping):
            return "learner"
        if labels.get("method") == LOSS_METHOD:
            return "loss-learner"
        if "teacher" in labels:
            return "student"
        return "distilled" if "source" in labels else "learner"

    def needs(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Nothing where there is no tokenizer: such a learner is used beside any model."""
        if config["tokenizer"] is None:
            return ()
        return tuple(str(config[key]["repo"]) for key in ("base_model", "tokenizer"))

    def entry(self, config: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, str]:
        made = LearnerConfig.from_dict(config)
        objective = made.objective.get("domain", "")
        # A learner of losses has no objective but the task, whose accuracy is its metric.
        losses = " losses" if made.labels.get("method") == LOSS_METHOD else ""
        return {
            "base": made.base_model.repo if made.tokenizer else "any",
            "tokenizer": made.tokenizer.repo if made.tokenizer else "none",
            "corpus": made.corpus.get("name", ""),
            "objective": f"{objective}{losses}",
            "architecture": made.architecture,
            "optimizer": made.optimizer.get("name", ""),
        }


KIND = _LearnerKind()
