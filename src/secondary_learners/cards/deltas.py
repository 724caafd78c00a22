"""The card of a delta, from its config.json and evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import TYPE_CHECKING, Any

from secondary_learners.cards.render import (
    base_metadata,
    base_name,
    license_line,
    license_metadata,
    markdown_table,
    sentence,
    table_rows,
)
from secondary_learners.cards.vocabulary import hub_id
from secondary_learners.content import content

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

__all__ = ["delta_card", "delta_figures", "delta_results"]


def delta_results(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[EvalResult]:
    """The figures in a delta's model-index."""
    from huggingface_hub import EvalResult

    task, metrics = config["task"], evaluation["metrics"]
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=hub_id(task["name"]),
            dataset_name=f"{task['name']}, {metrics['examples']} unseen examples",
            metric_type=kind,
            metric_value=round(metrics[field], 4),
        )
        for kind, field in (("accuracy", "accuracy"), ("matthews_correlation", "mcc"))
    ]


def delta_figures(evaluation: Mapping[str, Any]) -> list[str]:
    """The figures that a delta's card shows, as it shows them; raises as `learner_figures` does."""
    return [f"{evaluation['bytes']:,}", *table_rows(_table(evaluation))]


def delta_card(
    config: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    *,
    summary: str,
    license: str,
    attribution: str,
    reference: str | None = None,
    language: str = "",
) -> str:
    """The card of a delta from its config.json and evaluation.json; see `learner_card`.

    attribution: where the task's data are from. reference: what `load_delta` is given.
    """
    from huggingface_hub import ModelCardData

    task, metrics = config["task"], evaluation["metrics"]
    data = ModelCardData(
        **license_metadata(license),
        **base_metadata(config),
        language=language or None,
        library_name="secondary-learners",
        pipeline_tag="text-classification",
        model_name=config["name"],
        tags=["secondary-learners", "delta", "close-fine-tuning", config["kind"]],
        eval_results=delta_results(config, evaluation),
    )
    size, whole = evaluation["bytes"], evaluation["full_model_bytes"]
    values = {
        "name": config["name"],
        "summary": sentence(summary),
        "task": task["name"],
        "base": base_name(config),
        "reference": reference or config["name"],
        "fingerprint": config["base_model"]["fingerprint"],
        "what": _what(config, evaluation),
        "bytes": f"{size:,}",
        "ratio": f"{whole / size:.1f}",
        "table": _table(evaluation),
        "seed": evaluation["seed"],
        "test_examples": f"{metrics['examples']:,}",
        "majority": f"{evaluation['majority_accuracy']:.3f}",
        "training": _training(config["training"], evaluation),
        "chosen": _chosen(config),
        "layers": ", ".join(f"`{name}`" for name in config["layers"]) or "none",
        "head": ", ".join(f"`{name}` {shape}" for name, shape in config["head"].items()),
        "labels": ", ".join(f"`{label}`" for label in config.get("classes") or config["labels"]),
        "attribution": sentence(attribution or task["name"]),
        "command": evaluation["command"],
        "torch": config["versions"]["torch"],
        "device": evaluation["device"],
        "license": license_line(license),
    }
    text = (content("cards") / "delta.md").read_text(encoding="utf-8")
    return f"---\n{data.to_yaml()}\n---\n\n{Template(text).substitute(values)}"


def _what(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    if config["kind"] == "mask":
        return (
            f"One bit for each weight of {len(config['layers'])} layers says whether it stays or "
            f"is zero ({evaluation['sparsity']:.1%} are zero), beside the small head of the task; "
            "no weight of the base model has another value."
        )
    return (
        f"New values in {config['stored']} for {len(config['layers'])} layers, those that full "
        "fine-tuning turns most, beside the small head of the task."
    )


def _chosen(config: Mapping[str, Any]) -> str:
    layers = "Masked layers" if config["kind"] == "mask" else "Changed layers"
    if config["training"]["layers"]:
        return f"{layers}, named by hand"
    return (
        f"{layers}, those that turned most in a full fine-tuning on "
        f"{config['training']['probe']:,} examples"
    )


def _table(evaluation: Mapping[str, Any]) -> str:
    return markdown_table(
        ["", "accuracy", "Matthews correlation"],
        [
            _row("this delta, as applied", evaluation["metrics"]),
            _row("full fine-tuning, same data and seed", evaluation["full_fine_tuning"]),
        ],
    )


def _row(name: str, metrics: Mapping[str, Any] | None) -> list[str]:
    if metrics is None:
        return [name, "not measured", "not measured"]
    return [name, f"{metrics['accuracy']:.3f}", f"{metrics['mcc']:.3f}"]


def _training(training: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    masked = (
        f"scores {training['score_learning_rate']:g}, from an initial sparsity of "
        f"{training['sparsity']:g} ({training['start']})"
        if training["kind"] == "mask"
        else f"weights {training['learning_rate']:g}"
    )
    return (
        f"AdamW for {training['epochs']:g} times {training['examples']:,} examples in batches "
        f"of {training['batch_size']}, learning rates: {masked}; head "
        f"{training['head_learning_rate']:g}. {evaluation['seconds']:.0f} seconds of CPU."
    )
