"""The card of a learner of training losses, from its config.json and evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from secondary_learners.cards.render import (
    base_name,
    base_place,
    energy_text,
    fill,
    held_out_table,
    learner_metadata,
    license_line,
    markdown_table,
    sentence,
    size_text,
    table_rows,
    token_text,
    transfer_text,
    with_metadata,
)
from secondary_learners.cards.vocabulary import hub_id

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

__all__ = ["METHOD", "TAG", "loss_card", "loss_figures", "loss_results"]

METHOD = "training loss"
"""`labels.method` in the config.json of such a learner."""
TAG = "loss-prediction"
_METRICS = {"accuracy": "accuracy", "f1": "f1", "matthews": "matthews_correlation"}
_ARMS = {
    "plain": "every example",
    "multistage": "multistage, naive Bayes",
    "random": "random, as many as naive Bayes",
    "learner": "**multistage, this learner**",
    "random-learner": "random, as many as this learner",
}


def loss_card(
    config: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    *,
    summary: str,
    license: str,
    attribution: str,
    reference: str | None = None,
    language: str = "",
) -> str:
    """README.md: metadata for the Hub, then cards/loss-learner.md; arguments as `learner_card`."""
    task, losses = evaluation["task"], evaluation["losses"]
    data = learner_metadata(
        config,
        evaluation,
        license=license,
        language=language,
        tags=["multistage-data-filtering", "data-selection", TAG],
        metrics=["spearmanr", _METRICS[task["metric"]]],
        results=loss_results(config, evaluation),
    )
    values = {
        "name": config["name"],
        "summary": sentence(summary),
        "base": base_name(config),
        "task": task["name"],
        "facts": _facts(config, evaluation, license),
        "reference": reference or config["name"],
        "trained_on": f"{losses['trained_on']:,}",
        "passes": "once" if losses["epochs"] == 1 else f"{losses['epochs']} times",
        "count": f"{losses['labelled']:,}",
        "metric": task["metric"],
        "score": _percent(losses["score"]),
        "tested": f"{task['tested']:,}",
        "floor": _percent(task["floor"]),
        "mean": f"{config['score']['mean']:.3f}",
        "sd": f"{config['score']['sd']:.3f}",
        "seconds": f"{losses['cpu_seconds']:.0f}",
        "held_out": held_out_table(config, evaluation, unit="examples"),
        "comparison": _comparison(evaluation),
        "transfer": transfer_text(evaluation.get("transfer")),
        "raising": token_text(evaluation["tokens"]["raise"]),
        "lowering": token_text(evaluation["tokens"]["lower"]),
        "attribution": attribution,
        "energy": energy_text(evaluation.get("energy")),
        "command": evaluation["command"],
        "torch": config["versions"]["torch"],
        "device": evaluation["device"],
        "license": license_line(license),
    }
    return with_metadata(data, fill("loss-learner.md", values))


def loss_results(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[EvalResult]:
    """The model-index: held-out rank correlation, and the score of every arm."""
    from huggingface_hub import EvalResult

    task, comparison = evaluation["task"], evaluation["fine_tuning"]
    figures = evaluation["held_out"][config["architecture"]]
    results = [
        EvalResult(
            task_type="text-ranking",
            dataset_type=hub_id(task["name"]),
            dataset_name=f"{task['name']}, unseen training examples",
            metric_type="spearmanr",
            metric_name="Spearman correlation of scores with losses",
            metric_value=round(figures["spearman"], 4),
        )
    ]
    for row in comparison["rows"] if comparison else ():
        results.append(
            EvalResult(
                task_type="text-classification",
                dataset_type=hub_id(task["name"]),
                dataset_name=f"{task['name']}, development set",
                metric_type=_METRICS[task["metric"]],
                metric_name=f"{task['metric']}, {row['arm']}, {_seeds(comparison)}",
                metric_value=round(row["score"], 4),
            )
        )
    return results


def loss_figures(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[str]:
    """The figures that the card shows, as it shows them; raises as `learner_figures` does."""
    comparison, energy = evaluation["fine_tuning"], evaluation.get("energy")
    return [
        *table_rows(held_out_table(config, evaluation, unit="examples")),
        *(table_rows(_table(comparison)) if comparison else []),
        *table_rows(transfer_text(evaluation.get("transfer"))),
        *([f"{energy['kwh']:.4g} kWh"] if energy else []),
    ]


def _facts(config: Mapping[str, Any], evaluation: Mapping[str, Any], license: str) -> str:
    task = evaluation["task"]
    return markdown_table(
        ["", ""],
        [
            ["predicts", f"training loss of an example, in {config['score']['unit']}"],
            ["task", f"`{task['name']}`, {task.get('classes') or task['labels']} classes"],
            ["base model", base_name(config) + base_place(config["base_model"])],
            ["size", size_text(config)],
            ["license", license],
        ],
    )


def _comparison(evaluation: Mapping[str, Any]) -> str:
    comparison, task = evaluation["fine_tuning"], evaluation["task"]
    if comparison is None:
        return (
            "It was not tried in fine-tuning when it was made, so whether it saves anything is "
            "not known. `learners run` with `--seeds` compares."
        )
    settings, epochs = comparison["settings"], comparison["epochs"]
    times = "once" if epochs == 1 else f"{epochs} times"
    words = (
        f"The base model with a new head went {times} over {comparison['examples']:,} examples of "
        f"{task['name']} that the learner had nothing to do with, in batches of "
        f"{settings['batch_size']}, learning rate {settings['learning_rate']:g}; with "
        f"`MultistageFilter` a share of {settings['warmup']:g} of the steps is warm-up. "
        f"{_seeds(comparison)}, means; the {task['metric']} × 100 with its "
        f"standard deviation over seeds, on {task['tested']:,} examples. A random arm trains on as "
        "many examples as the arm above it, chosen blindly. Seconds are of CPU; the making of the "
        "learner is not in them."
    )
    return f"{words}\n\n{_table(comparison)}\n\n{_plain_words(comparison)}"


def _table(comparison: Mapping[str, Any]) -> str:
    return markdown_table(
        ["run", "trained on", "run forward", "CPU seconds", "score", "fewer trained", "less time"],
        [
            [
                _ARMS.get(row["arm"], row["arm"]),
                f"{row['trained']:,.0f}",
                f"{row['forwarded']:,.0f}",
                f"{row['seconds']:.1f}",
                f"{_percent(row['score'])} ± {_percent(row['deviation'])}",
                f"{row['fewer_trained']:.2f}×",
                f"{row['less_time']:.2f}×",
            ]
            for row in comparison["rows"]
        ],
    )


def _plain_words(comparison: Mapping[str, Any]) -> str:
    rows = {row["arm"]: row for row in comparison["rows"]}
    mine, plain, blind = rows["learner"], rows["plain"], rows["random-learner"]
    lost, ahead = plain["score"] - mine["score"], mine["score"] - blind["score"]
    spread = max(mine["deviation"], blind["deviation"])
    if comparison["seeds"] < 2:
        verdict = "One seed tells neither from the other."
    elif abs(ahead) <= spread:
        verdict = "That is within the spread of the seeds: **no better than skipping blindly**."
    else:
        verdict = "That is more than the spread of the seeds" + (
            "." if ahead > 0 else ": **skipping blindly was better**."
        )
    return (
        f"With this learner {mine['fewer_trained']:.1f} times fewer examples got a backward pass "
        f"and {mine['fewer_forwarded']:.1f} times fewer a forward pass, in "
        f"{mine['less_time']:.1f} times less time, {_points(lost)} below training on everything "
        f"and {_points(ahead)} above random skipping at the same rate. {verdict}"
    )


def _seeds(comparison: Mapping[str, Any]) -> str:
    return "1 seed" if comparison["seeds"] == 1 else f"{comparison['seeds']} seeds"


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
