"""The card of a learner that was distilled from a teacher on published labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from secondary_learners.cards.render import (
    fill,
    learner_metadata,
    license_line,
    markdown_table,
    net_parameters,
    sentence,
    table_rows,
    token_text,
    with_metadata,
)
from secondary_learners.cards.vocabulary import hub_id

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

__all__ = ["AIM", "distilled_card", "distilled_figures", "distilled_results"]

AIM = 0.88  # Spearman on the rows kept for reporting

# The rows of the tables, in their order.
_SHOWN = {
    "conv": "**this learner**",
    "ridge": "ridge",
    "log perplexity": "log perplexity",
    "teacher": "teacher",
}


def distilled_card(
    config: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    *,
    summary: str,
    license: str,
    attribution: str,
    reference: str | None = None,
    language: str = "",
) -> str:
    """README.md of the learner: metadata for the Hub, then cards/distilled.md filled in."""
    labels, cross, pool = config["labels"], evaluation["cross_validation"], evaluation["pool"]
    data = learner_metadata(
        config,
        evaluation,
        license=license,
        language=language,
        tags=["information-gain-filtration", "data-selection", "distilled", config["architecture"]],
        metrics=["spearmanr", "r_squared"],
        results=distilled_results(config, evaluation),
    )
    values = {
        "name": config["name"],
        "summary": sentence(summary),
        "base": f"`{config['base_model']['repo']}`",
        "corpus": config["corpus"]["name"],
        "gains_count": f"{labels['count'] + labels['reported']:,}",
        "source": labels["source"],
        "commit": labels["commit"],
        "label_license": labels.get("license", labels.get("licence")),
        "facts": _facts(config, evaluation, license),
        "reference": reference or config["name"],
        "reported": f"{labels['reported']:,}",
        "resamples": f"{evaluation['bootstrap']['resamples']:,}",
        "held_out": _held_out(evaluation),
        "verdict": _verdict(evaluation["difference"]),
        "readings": evaluation["readings"],
        "fitted": f"{labels['count']:,}",
        "folds": str(cross["folds"]),
        "cross_validation": _cross_validation(cross),
        "cross_difference": _cross_difference(cross),
        "tokens": f"{evaluation['tokens_in_text'] / 1e6:.1f} million",
        "pool": f"{sum(pool.values()):,}",
        "pool_parts": ", ".join(f"{count:,} {domain}" for domain, count in pool.items()),
        "raising": token_text(evaluation["tokens"]["raise"]),
        "lowering": token_text(evaluation["tokens"]["lower"]),
        "aim": _aim(evaluation["held_out"]["conv"]["spearman"]),
        "context_length": str(config["context_length"]),
        "attribution": attribution,
        "minutes": f"{evaluation['training_seconds'] / 60:.0f}",
        "command": evaluation["command"],
        "torch": config["versions"]["torch"],
        "device": evaluation["device"],
        "license": license_line(license),
    }
    return with_metadata(data, fill("distilled.md", values))


def distilled_results(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[EvalResult]:
    """The model-index: rank correlation and R² on the rows kept for reporting."""
    from huggingface_hub import EvalResult

    corpus, figures = config["corpus"]["name"], evaluation["held_out"]["conv"]
    return [
        EvalResult(
            task_type="text-ranking",
            dataset_type=hub_id(corpus),
            dataset_name=f"{corpus}, {figures['contexts']} rows kept for reporting",
            metric_type=kind,
            metric_name=name,
            metric_value=round(figures[field], 4),
        )
        for kind, name, field in (
            ("spearmanr", "Spearman correlation of scores with measured gains", "spearman"),
            ("r_squared", "Share of the variance of measured gains", "r2"),
        )
    ]


def distilled_figures(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[str]:
    """The figures that the card shows, as it shows them; raises as `learner_figures` does."""
    cross = evaluation["cross_validation"]
    return [
        *table_rows(_held_out(evaluation)),
        _verdict(evaluation["difference"]),
        *table_rows(_cross_validation(cross)),
        _cross_difference(cross),
        f"{config['labels']['count']:,}",
        _speed(evaluation),
    ]


def _facts(config: Mapping[str, Any], evaluation: Mapping[str, Any], license: str) -> str:
    base, optimizer = config["base_model"], config["optimizer"]
    objective, size = config["objective"], evaluation["bytes"] / 1e6
    rows = [
        ["predicts", f"information gain, in {config['score']['unit']}"],
        ["base model", f"`{base['repo']}` at commit `{base['revision']}`"],
        ["objective", f"the loss on {objective['contexts']} contexts of `{objective['domain']}`"],
        ["labels", f"{config['labels']['count']:,}, *{config['labels']['method']}*, as published"],
        ["optimizer step", f"{optimizer['name']}, learning rate {optimizer['learning_rate']:g}"],
        [
            "size",
            f"{config['architecture']}, {net_parameters(config):,} parameters, {size:.2f} MB in "
            "float16, loaded as float32",
        ],
        ["speed", _speed(evaluation)],
        ["license", license],
    ]
    return markdown_table(["", ""], rows)


def _speed(evaluation: Mapping[str, Any]) -> str:
    speed = evaluation["speed"]
    return (
        f"{speed['tokens_per_second'] / 1e6:.2f} million tokens a second on one core, in batches "
        f"of {speed['batch']} × {speed['length']}"
    )


def _held_out(evaluation: Mapping[str, Any]) -> str:
    rows = [
        [
            _SHOWN[name],
            _with_interval(figures, "spearman"),
            _with_interval(figures, "r2"),
            f"{figures['contexts']:,}",
        ]
        for name, figures in _in_order(evaluation["held_out"])
    ]
    return markdown_table(["", "Spearman", "R²", "contexts"], rows)


def _in_order(models: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, models[name]) for name in _SHOWN if name in models]


def _with_interval(figures: Mapping[str, Any], field: str, sign: str = "") -> str:
    low, high = figures[f"{field}_interval"]
    return f"{figures[field]:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"


def _verdict(difference: Mapping[str, Any]) -> str:
    """What the paired difference says, and whether chance may be all of it."""

    def said(field: str) -> str:
        low, high = difference[f"{field}_interval"]
        sure = "beyond chance" if low > 0 or high < 0 else "which may be chance"
        return f"{_with_interval(difference, field, '+')}, {sure}"

    return f"Learner less ridge, paired: Spearman {said('spearman')}; R² {said('r2')}."


def _cross_validation(cross: Mapping[str, Any]) -> str:
    rows = [
        [
            _SHOWN[name],
            f"{figures['spearman']:.4f}",
            f"{figures['r2']:.4f}",
            ", ".join(f"{value:.3f}" for value in figures["folds"]),
        ]
        for name, figures in _in_order(cross["models"])
    ]
    return markdown_table(["", "Spearman", "R²", "Spearman, fold by fold"], rows)


def _cross_difference(cross: Mapping[str, Any]) -> str:
    difference = cross["difference"]
    return f"{difference['spearman']:+.4f} ± {difference['standard_error']:.4f}"


def _aim(reached: float) -> str:
    return f"it is {'reached' if reached >= AIM else 'not reached'} ({reached:.4f})"
