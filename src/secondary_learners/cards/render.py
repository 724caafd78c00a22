"""Card data → README.md: Hub metadata through huggingface_hub, the text through cards/*.md."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from string import Template
from typing import TYPE_CHECKING, Any

from secondary_learners.cards.vocabulary import HUB_ID, LICENSES, UNSTATED, hub_id
from secondary_learners.content import content

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

__all__ = [
    "base_metadata",
    "base_model_card",
    "base_model_figures",
    "base_model_results",
    "base_name",
    "base_place",
    "emissions",
    "energy_text",
    "fill",
    "held_out_table",
    "learner_card",
    "learner_figures",
    "learner_metadata",
    "learner_results",
    "license_line",
    "license_metadata",
    "markdown_table",
    "net_parameters",
    "sentence",
    "size_text",
    "table_rows",
    "token_text",
    "transfer_text",
    "with_metadata",
]

_METHODS = {
    "exact": "one optimizer step on each context, the objective measured before and after",
    "per-example": "to first order: each context's own step against the objective's gradient",
    "swapped": "to first order: one step on the objective, each context's loss before and after",
}


def learner_card(
    config: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    *,
    summary: str,
    license: str,
    attribution: str,
    reference: str | None = None,
    language: str = "",
    datasets: Sequence[str] = (),
) -> str:
    """The card of a learner from its config.json and evaluation.json.

    reference: what `load_learner` is given in the card's example, by default the learner's name.
    language: of its text, as the Hub writes it ("en"), or "" when nobody said.
    datasets: ids on the Hub of the data sets that its corpus is made of.
    """
    comparison, objective = evaluation.get("fine_tuning"), config["objective"]["domain"]
    values = {
        "name": config["name"],
        "summary": sentence(summary),
        "origin": _origin(config, evaluation),
        "base": base_name(config),
        "tokenizer": _name(config["tokenizer"]["repo"]),
        "objective": objective,
        "facts": _facts(config, license),
        "plot": "![Fine-tuning with and without the learner](comparison.png)\n\n"
        if evaluation.get("plot")
        else "",
        "reference": reference or config["name"],
        "labels": _labels(config),
        "held_out": held_out_table(config, evaluation),
        "comparison": _comparison(comparison, objective),
        "transfer": transfer_text(evaluation.get("transfer")),
        "raising": token_text(evaluation["tokens"]["raise"]),
        "lowering": token_text(evaluation["tokens"]["lower"]),
        "tested": _tested(comparison),
        "corpus": f"Corpus: {sentence(config['corpus']['description'])} {attribution}".strip(),
        "energy": energy_text(evaluation.get("energy")),
        "layout": _layout(config, evaluation),
        "command": evaluation["command"],
        "torch": config["versions"]["torch"],
        "device": evaluation["device"],
        "license": license_line(license),
    }
    return with_metadata(
        learner_metadata(
            config,
            evaluation,
            license=license,
            language=language,
            tags=["information-gain-filtration", "data-selection", config["architecture"]],
            metrics=["spearmanr", *(["perplexity"] if comparison else [])],
            results=learner_results(config, evaluation),
            datasets=datasets,
        ),
        fill("learner.md", values),
    )


def base_model_card(
    name: str,
    summary: str,
    license: str,
    attribution: str,
    command: str,
    evaluation: Mapping[str, Any],
    *,
    reference: str | None = None,
    language: str = "",
) -> str:
    """The card of a small base model from its evaluation.json; see `learner_card`."""
    from huggingface_hub import ModelCardData

    values = {
        "name": name,
        "summary": sentence(summary),
        "reference": reference or name,
        "figures": markdown_table(["", ""], _base_model_rows(evaluation)),
        "attribution": attribution,
        "energy": energy_text(evaluation.get("energy")),
        "command": command,
        "license": license_line(license),
    }
    data = ModelCardData(
        **license_metadata(license),
        language=language or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["secondary-learners", "gpt2"],
        model_name=name,
        metrics=["perplexity"],
        eval_results=base_model_results(evaluation),
        co2_eq_emissions=emissions(evaluation),
    )
    return with_metadata(data, fill("base-model.md", values))


def learner_figures(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[str]:
    """The figures that a learner's card shows, as it shows them: the rows of its tables, mostly.

    Raises KeyError, TypeError or ValueError for data that lacks one.
    """
    comparison, energy = evaluation.get("fine_tuning"), evaluation.get("energy")
    agreement = config["labels"]["spearman_with_exact"]
    return [
        *table_rows(held_out_table(config, evaluation)),
        *([] if agreement is None else [f"**{_number(agreement)}**"]),
        *(table_rows(_comparison_table(comparison)) if comparison else []),
        *table_rows(transfer_text(evaluation.get("transfer"))),
        *([f"{energy['kwh']:.4g} kWh"] if energy else []),
    ]


def base_model_figures(evaluation: Mapping[str, Any]) -> list[str]:
    """The figures that a base model's card shows; raises as `learner_figures` does."""
    return table_rows(markdown_table(["", ""], _base_model_rows(evaluation)))


def table_rows(text: str) -> list[str]:
    """The rows of the table in `text`, without its two lines of header."""
    return [line for line in text.splitlines() if line.startswith("|")][2:]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fill(template: str, values: Mapping[str, Any]) -> str:
    text = (content("cards") / template).read_text(encoding="utf-8")
    return Template(text).substitute(values)


# Metadata


def with_metadata(data: ModelCardData, text: str) -> str:
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def learner_metadata(
    config: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    *,
    license: str,
    language: str,
    tags: Sequence[str],
    metrics: Sequence[str],
    results: list[EvalResult],
    datasets: Sequence[str] = (),
) -> ModelCardData:
    """What the Hub is told of a learner of any kind; tags: besides those that every one has."""
    from huggingface_hub import ModelCardData

    return ModelCardData(
        **license_metadata(license),
        **base_metadata(config),
        datasets=list(datasets) or None,
        language=language or None,
        library_name="secondary-learners",
        pipeline_tag="text-ranking",
        tags=["secondary-learners", *tags],
        model_name=config["name"],
        metrics=list(metrics),
        eval_results=results,
        co2_eq_emissions=emissions(evaluation),
    )


def learner_results(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[EvalResult]:
    """The model-index of a learner: held-out rank correlation, and perplexity of every run."""
    from huggingface_hub import EvalResult

    corpus, objective = config["corpus"]["name"], config["objective"]["domain"]
    results = [
        EvalResult(
            task_type="text-ranking",
            dataset_type=hub_id(corpus),
            dataset_name=f"{corpus}, unseen documents",
            metric_type="spearmanr",
            metric_name="Spearman correlation of scores with measured gains",
            metric_value=round(evaluation["held_out"][config["architecture"]]["spearman"], 4),
        )
    ]
    comparison: Mapping[str, Any] = evaluation.get("fine_tuning") or {"rows": ()}
    for row in comparison["rows"]:
        results.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=hub_id(objective),
                dataset_name=f"{objective}, unseen documents",
                metric_type="perplexity",
                metric_name=f"Perplexity after {comparison['settings']['updates']} updates, "
                f"{row['arm']}, {comparison['seeds']} seeds",
                metric_value=round(row["perplexity"], 2),
            )
        )
    return results


def base_model_results(evaluation: Mapping[str, Any]) -> list[EvalResult]:
    """The model-index of a base model."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type="pretraining",
            dataset_name="its own corpus, unseen documents",
            metric_type="perplexity",
            metric_name="Perplexity per token",
            metric_value=round(math.exp(evaluation["held_out_loss"]), 2),
        )
    ]


def base_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """The base model, if it is on a Hub: only that has a commit, and a bundled one is no id there.

    Of the relations that the Hub knows, it is that of what works beside an unchanged base model.
    """
    base = config["base_model"]
    if base["revision"] is None or not HUB_ID.fullmatch(base["repo"]):
        return {}
    return {"base_model": base["repo"], "base_model_relation": "adapter"}


def license_metadata(license: str) -> dict[str, Any]:
    if license in LICENSES:
        return {"license": license}
    return {"license": "other", "license_name": license, "license_link": "LICENSE"}


def emissions(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    energy = evaluation.get("energy")
    if not energy:
        return None
    return {
        "emissions": float(f"{energy['co2_kg'] * 1000:.4g}"),  # the Hub reads grams
        "source": energy["tool"],
        "geographical_location": energy["country"],
        "hardware_used": evaluation["device"],
    }


# The text


def sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _code(text: str) -> str:
    return f"`{text}`"


def _facts(config: Mapping[str, Any], license: str) -> str:
    base, optimizer = config["base_model"], config["optimizer"]
    corpus, objective = config["corpus"], config["objective"]
    rows = [
        ["predicts", f"information gain, in {config['score']['unit']}"],
        ["base model", base_name(config) + base_place(base)],
        [
            "objective",
            f"the loss on {_what(config, objective['contexts'])} of {_code(objective['domain'])}",
        ],
        [
            "corpus",
            f"{_code(corpus['name'])}, {corpus['in_domain_share']:.0%} of it objective text",
        ],
        ["optimizer step", f"{optimizer['name']}, learning rate {optimizer['learning_rate']:g}"],
        ["size", size_text(config)],
        ["license", license],
    ]
    return markdown_table(["", ""], rows)


def base_name(config: Mapping[str, Any]) -> str:
    """The base model's name; of a folder of the maker's machine its last part."""
    return _name(config["base_model"]["repo"])


def _name(repo: str) -> str:
    return _code(PureWindowsPath(repo).name if _is_absolute(repo) else repo)


def _origin(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    """Of a learner whose labels came from a stand-in: which, and how to do without it."""
    base, meant = config["base_model"]["repo"], config["tokenizer"]["repo"]
    if base == meant:
        return ""
    facts = evaluation.get("stand_in") or {}
    size = [
        f"{facts[name]:,} {what}"
        for name, what in (("parameters", "parameters"), ("tokens_seen", "tokens of training"))
        if name in facts
    ]
    if "held_out_loss" in facts:
        size.append(f"a held-out loss of {facts['held_out_loss']:.3f} nats per token")
    known = f" ({', '.join(size)})" if size else ""
    return (
        f" Its labels came from {_name(base)}{known}, which stands in for {_name(meant)}: the same "
        f"tokenizer, other weights. `{_with_base(evaluation['command'], meant)}` makes it again "
        f"from {_name(meant)} itself."
    )


def _with_base(command: str, base: str) -> str:
    """The command that made a learner, for another base model."""
    words = shlex.split(command)
    if words[:2] != ["learners", "run"]:  # labels and fit by themselves
        words = ["learners", "run", "recipe.toml"]
    if "--base" in words:
        at = words.index("--base")
        del words[at : at + 2]
    words = [word for word in words if not word.startswith("--base=")]
    return shlex.join([*words, "--base", base])


def base_place(base: Mapping[str, Any]) -> str:
    if base["revision"] is not None:
        return f" at commit `{base['revision']}`"
    bundled = (content("learners") / base["repo"] / "config.json").is_file()
    # An absolute path stays one when it is joined to another, and so is no bundled name.
    if bundled and not _is_absolute(base["repo"]):
        return ", which ships with secondary-learners"
    return ", in a folder of its maker's"


def size_text(config: Mapping[str, Any]) -> str:
    parameters = net_parameters(config)
    return (
        f"{config['architecture']}, {parameters:,} parameters, "
        f"{4 * parameters / 1e6:.2f} MB in float32"
    )


def net_parameters(config: Mapping[str, Any]) -> int:
    import torch

    from secondary_learners.learners.nets import build_net

    with torch.device("meta"):  # no memory: only the shapes count
        net = build_net(config["architecture"], config["sizes"])
    return sum(parameter.numel() for parameter in net.parameters())


def _labels(config: Mapping[str, Any]) -> str:
    labels, optimizer = config["labels"], config["optimizer"]
    lower = f", the model's passes in {labels['precision']}" if "precision" in labels else ""
    examples = _examples(config)
    count = f"{labels['count']:,} contexts of {config['context_length']} tokens"
    objective = "objective contexts"
    if examples:
        objective = "prompts of the objective"
        count = (
            f"{labels['count']:,} prompts with completions, {examples['shortest']} to "
            f"{examples['longest']} tokens (median {examples['median']}), the loss that of the "
            "completion alone"
        )
    return (
        f"{count}; the gain of each "
        f"on {config['objective']['contexts']} {objective} by the *{labels['method']}* "
        f"method ({_METHODS.get(labels['method'], 'see the package')}), {optimizer['name']} at "
        f"learning rate {optimizer['learning_rate']:g}, seed {labels['seed']}{lower}. "
        + _subset(labels.get("trainable"))
        + _agreement(config)
    )


def _subset(trainable: str | Sequence[str] | None) -> str:
    if trainable in (None, "all"):
        return ""
    names = [trainable] if isinstance(trainable, str) else trainable or ()
    return f"The step moved {', '.join(map(_code, names))} alone. "


def _what(config: Mapping[str, Any], count: int) -> str:
    return f"the completions of {count} prompts" if _examples(config) else f"{count} contexts"


def _examples(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The lengths of the examples of a learner made from instructions, else None."""
    found: Mapping[str, Any] | None = config["corpus"].get("examples")
    return found


def _layout(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    """What was done to the text before it was tokenized; how scores hold at other lengths."""
    examples = _examples(config)
    if examples is None:
        return (
            "White space, quotes and drawn rules were normalized before anything was cut, so that "
            "layout gives nothing away; do the same to your text "
            "(`secondary_learners.text.corpus.normalize`)."
        )
    return (
        "It reads the tokens of prompt and completion, as TRL's SFTTrainer makes them from the "
        "unchanged text, so layout may be among what it looks for. Its scores are calibrated on a "
        f"mixture of {examples['shortest']} to {examples['longest']} tokens: those of longer "
        f"examples are extrapolated.{_by_length(evaluation.get('lengths'))}"
    )


def _by_length(thirds: Sequence[Mapping[str, Any]] | None) -> str:
    """How the score and the measured gain go with the length, over held-out examples."""
    if not thirds:
        return ""
    parts = [
        f"of {third['shortest']} to {third['longest']} tokens {third['score']:+.2f} "
        f"({third['gain']:+.2f}; Spearman {_number(third['spearman'])})"
        for third in thirds
    ]
    return (
        " Mean score of held-out examples (in brackets their mean measured gain, both in standard "
        f"deviations from the mean of all): {', '.join(parts)}."
    )


def _agreement(config: Mapping[str, Any]) -> str:
    labels = config["labels"]
    if labels["spearman_with_exact"] is None:
        return "Their rank correlation with exact gains was not measured."
    return (
        f"Rank correlation with the exact gain of {labels['exact_count']} of them: "
        f"**{_number(labels['spearman_with_exact'])}**."
    )


def held_out_table(
    config: Mapping[str, Any], evaluation: Mapping[str, Any], *, unit: str = "contexts"
) -> str:
    held_out, chosen = evaluation["held_out"], config["architecture"]
    return markdown_table(
        ["learner", "Spearman", "R²", unit],
        [
            [
                name,
                _number(held_out[name]["spearman"]),
                _number(held_out[name]["r2"]),
                f"{held_out[name]['contexts']:,}",
            ]
            for name in (chosen, *(name for name in held_out if name != chosen))
        ],
    )


def _comparison(comparison: Mapping[str, Any] | None, objective: str) -> str:
    if comparison is None:
        return (
            "It was not tried in fine-tuning when it was made, so whether it saves anything is "
            "not known. `learners finetune` compares it with standard fine-tuning and with random "
            "skipping."
        )
    settings, seeds = comparison["settings"], comparison["seeds"]
    return (
        f"Fine-tuning at an equal budget, {settings['updates']} updates of "
        f"{settings['batch_size']} contexts, learning rate {settings['learning_rate']:g}, "
        f"{_seeds(seeds)}; perplexity on unseen {objective} documents, "
        f"{comparison['before']:.1f} before, lower is better, mean ± standard error. A filtered "
        "run is named after its threshold; the random run of that name skips as much, blindly. p: "
        "paired, two-sided sign-flip permutation test over seeds, against the standard run and "
        "against the random one. The last column: updates until the standard run's final "
        f"perplexity was reached.\n\n{_comparison_table(comparison)}\n\n"
        f"{comparison['plain_words']}"
    )


def _seeds(count: int) -> str:
    return "1 seed (0)" if count == 1 else f"{count} seeds (0 to {count - 1})"


def _comparison_table(comparison: Mapping[str, Any]) -> str:
    return markdown_table(
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


def transfer_text(transfer: Sequence[Mapping[str, Any]] | None) -> str:
    if not transfer:
        return (
            "Not measured: how well it ranks for another base model, or for its own after many "
            "updates, is not known."
        )
    rows = [
        [row["base"], f"{row['updates']:,}", _number(row["spearman"]), f"{row['contexts']:,}"]
        for row in transfer
    ]
    return (
        "Scores against gains measured on other weights: another base model, or its own after so "
        "many updates.\n\n"
        + markdown_table(["base model", "updates", "Spearman", "contexts"], rows)
    )


def _tested(comparison: Mapping[str, Any] | None) -> str:
    tested = (
        "its use in fine-tuning is untested: measure it before you rely on it."
        if comparison is None
        else f"tested up to {comparison['settings']['updates']} updates from there; further on, or "
        "on another base model, measure it again."
    )
    return f"It was made at the base model's own weights, and {tested}"


def energy_text(energy: Mapping[str, Any] | None) -> str:
    if not energy:
        return "Not measured. `learners run … --energy` does."
    return (
        f"{energy['kwh']:.4g} kWh and {energy['co2_kg'] * 1000:.4g} g of CO₂ equivalent in "
        f"{energy['seconds']:.0f} seconds of {energy['stages']}, by {energy['tool']} "
        f"({energy['method']}), at the mean intensity of electricity of {energy['country']}."
    )


def _base_model_rows(evaluation: Mapping[str, Any]) -> list[list[str]]:
    loss = evaluation["held_out_loss"]
    tokens = f"{evaluation['held_out_tokens']:,} tokens of unseen documents"
    return [
        ["held-out loss", f"{loss:.3f} nats per token ({tokens})"],
        ["held-out perplexity", f"{math.exp(loss):.2f} per token"],
        [
            "unigram entropy of the same tokens",
            f"{evaluation['unigram_entropy']:.3f} nats per token",
        ],
        ["loss / unigram entropy", f"{evaluation['loss_to_unigram_entropy']:.3f}"],
        [
            "parameters",
            f"{evaluation['parameters']:,}, stored in float16, loaded as float32",
        ],
        [
            "tokens seen",
            f"{evaluation['tokens_seen']:,}, of {evaluation['tokens_in_corpus']:,} in the corpus",
        ],
        [
            "made in",
            f"{evaluation['training_seconds']} seconds on {evaluation['device']} with torch "
            f"{evaluation['torch']}",
        ],
    ]


def license_line(license: str) -> str:
    if license == UNSTATED:
        return "The maker of these weights has stated no license."
    return f"Of the weights: {license}."


def _is_absolute(name: str) -> bool:
    return PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()


def _probability(p: float | None) -> str:
    if p is None:
        return "–"
    return f"{p:.1e}" if p < 1e-3 else f"{p:.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def token_text(tokens: Sequence[str]) -> str:
    return ", ".join(f"`` {token} ``" for token in tokens) or "none stand out"
