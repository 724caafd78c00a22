"""Card data → README.md: Hub metadata through huggingface_hub, the text through cards/*.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

from secondary_learners.catalogue import content

__all__ = ["base_model_card", "learner_card", "markdown_table"]


def learner_card(
    config: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    *,
    summary: str,
    licence: str,
    attribution: str,
) -> str:
    """The card of a learner from its config.json and evaluation.json."""
    labels, comparison = config["labels"], evaluation.get("fine_tuning")
    held_out = evaluation["held_out"]
    chosen = config["architecture"]
    order = [chosen, *(name for name in held_out if name != chosen)]
    values = {
        "name": config["name"],
        "summary": summary,
        "base": config["base_model"]["repo"],
        "objective": config["objective"]["domain"],
        "context_length": config["context_length"],
        "label_count": f"{labels['count']:,}",
        "label_method": labels["method"],
        "label_agreement": _number(labels["spearman_with_exact"]),
        "exact_count": labels["exact_count"],
        "optimizer": config["optimizer"]["name"],
        "learning_rate": f"{config['optimizer']['learning_rate']:g}",
        "objective_count": config["objective"]["contexts"],
        "held_out_table": markdown_table(
            ["learner", "Spearman", "R²", "contexts"],
            [
                [
                    name,
                    _number(held_out[name]["spearman"]),
                    _number(held_out[name]["r2"]),
                    f"{held_out[name]['contexts']:,}",
                ]
                for name in order
            ],
        ),
        "comparison": _comparison(comparison),
        "plain_words": comparison["plain_words"] if comparison else "",
        "plot": "![Fine-tuning with and without the learner](comparison.png)\n"
        if evaluation.get("plot")
        else "",
        "raising": _tokens(evaluation["tokens"]["raise"]),
        "lowering": _tokens(evaluation["tokens"]["lower"]),
        "updates": comparison["settings"]["updates"] if comparison else 0,
        "corpus": config["corpus"]["description"],
        "attribution": attribution,
        "command": evaluation["command"],
        "torch": config["versions"]["torch"],
        "device": evaluation["device"],
        "licence": licence,
    }
    return _metadata(config, evaluation, licence) + _fill("learner.md", values)


def base_model_card(
    name: str,
    summary: str,
    licence: str,
    attribution: str,
    command: str,
    evaluation: Mapping[str, Any],
) -> str:
    """The card of a small base model from its evaluation.json."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        license=licence,
        language="en",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["secondary-learners", "gpt2"],
    )
    values = {
        "name": name,
        "summary": summary,
        "licence": licence,
        "attribution": attribution,
        "command": command,
        "held_out_loss": f"{evaluation['held_out_loss']:.3f}",
        "unigram_entropy": f"{evaluation['unigram_entropy']:.3f}",
        "ratio": f"{evaluation['loss_to_unigram_entropy']:.3f}",
        "held_out_tokens": f"{evaluation['held_out_tokens']:,}",
        "parameters": f"{evaluation['parameters']:,}",
        "tokens_seen": f"{evaluation['tokens_seen']:,}",
        "tokens_in_corpus": f"{evaluation['tokens_in_corpus']:,}",
        "seconds": evaluation["training_seconds"],
        "device": evaluation["device"],
        "torch": evaluation["torch"],
    }
    return f"---\n{data.to_yaml()}\n---\n\n" + _fill("base-model.md", values)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fill(template: str, values: Mapping[str, Any]) -> str:
    text = (content("cards") / template).read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _metadata(config: Mapping[str, Any], evaluation: Mapping[str, Any], licence: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    result = EvalResult(
        task_type="text-ranking",
        dataset_type=config["corpus"]["name"],
        dataset_name=f"{config['corpus']['name']}, unseen documents",
        metric_type="spearmanr",
        metric_value=round(evaluation["held_out"][config["architecture"]]["spearman"], 4),
    )
    data = ModelCardData(
        license=licence,
        language="en",
        library_name="secondary-learners",
        model_name=config["name"],
        tags=["secondary-learners", "information-gain-filtration", config["architecture"]],
        eval_results=[result],
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _comparison(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return "It was not tried in fine-tuning when it was made."
    settings = comparison["settings"]
    table = markdown_table(
        [
            "run",
            "perplexity",
            "drawn for each kept",
            "p (standard)",
            "p (random)",
            "updates to standard",
        ],
        [
            [
                row["arm"],
                f"{row['perplexity']:.2f}" + (f" ± {row['error']:.2f}" if row["error"] else ""),
                f"{row['drawn_per_kept']:.1f}",
                _probability(row["p_standard"]),
                _probability(row["p_random"]),
                "–" if row["updates_to_standard"] is None else f"{row['updates_to_standard']:.0f}",
            ]
            for row in comparison["rows"]
        ],
    )
    return (
        f"Fine-tuning at an equal budget, {settings['updates']} updates of "
        f"{settings['batch_size']} contexts, learning rate {settings['learning_rate']:g}, "
        f"{comparison['seeds']} seeds; perplexity on unseen documents of the objective's domain, "
        f"{comparison['before']:.1f} before, mean ± standard error. p: paired, two-sided "
        f"sign-flip permutation test over seeds.\n\n{table}"
    )


def _probability(p: float | None) -> str:
    if p is None:
        return "–"
    return f"{p:.1e}" if p < 1e-3 else f"{p:.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _tokens(tokens: Sequence[str]) -> str:
    return ", ".join(f"`` {token} ``" for token in tokens)
