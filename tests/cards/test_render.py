from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any

import pytest
from huggingface_hub import ModelCard

from secondary_learners.cards.render import base_model_card, learner_card, markdown_table
from secondary_learners.catalogue import content
from secondary_learners.recipes.schema import find_recipe
from secondary_learners.registry.index import Entry, list_learners, read_index

LEARNERS = list_learners()
BASES = [entry for entry in read_index().values() if entry.kind == "base-model"]

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "architecture": "linear",
    "base_model": {"repo": "mini"},
    "objective": {"domain": "ships", "contexts": 16},
    "context_length": 32,
    "labels": {
        "count": 12345,
        "method": "swapped",
        "spearman_with_exact": 0.98765,
        "exact_count": 64,
    },
    "optimizer": {"name": "adamw", "learning_rate": 5e-5},
    "corpus": {"name": "ships+taxes", "description": "ships (a.txt); taxes (b.txt)"},
    "versions": {"torch": "2.13.0"},
}
ROWS = [
    {
        "arm": "standard",
        "kind": "standard",
        "perplexity": 123.456,
        "error": 0.125,
        "drawn_per_kept": 1.0,
        "p_standard": None,
        "p_random": None,
        "updates_to_standard": 60.0,
        "seconds": 3.0,
    },
    {
        "arm": "constant:1",
        "kind": "filtered",
        "perplexity": 98.765,
        "error": None,
        "drawn_per_kept": 3.21,
        "p_standard": 0.0001,
        "p_random": 0.25,
        "updates_to_standard": None,
        "seconds": 4.0,
    },
]
EVALUATION: dict[str, Any] = {
    "held_out": {
        "conv": {"spearman": 0.51234, "r2": 0.26, "contexts": 1500},
        "linear": {"spearman": 0.61234, "r2": 0.36, "contexts": 1500},
    },
    "fine_tuning": {
        "settings": {"updates": 60, "batch_size": 16, "learning_rate": 2e-4},
        "seeds": 5,
        "before": 345.6,
        "rows": ROWS,
        "plain_words": "The filter skipped $most of it.",
    },
    "plot": True,
    "tokens": {"raise": ["sea", "$name", "`tick`"], "lower": ["tax"]},
    "command": "learners run tiny --corpus '$HOME/text'",
    "device": "CPU, 2 threads",
}
BASE_EVALUATION: dict[str, Any] = {
    "held_out_loss": 4.567,
    "unigram_entropy": 6.789,
    "loss_to_unigram_entropy": 0.6727,
    "held_out_tokens": 200_000,
    "parameters": 4_765_000,
    "tokens_seen": 12_288_000,
    "tokens_in_corpus": 3_000_000,
    "training_seconds": 77,
    "device": "a GPU",
    "torch": "2.13.0",
}


def card_of(**changes: Any) -> str:
    return rendered(CONFIG, {**EVALUATION, **changes})


def rendered(config: dict[str, Any], evaluation: dict[str, Any]) -> str:
    return learner_card(
        config,
        evaluation,
        summary="Finds ships.",
        licence="mit",
        attribution="Ships: public domain.",
    )


def placeholders(template: str) -> set[str]:
    text = (content("cards") / template).read_text(encoding="utf-8")
    return set(Template(text).get_identifiers())


def row_starting(card: str, first: str) -> list[str]:
    (line,) = (line for line in card.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_metadata_is_what_the_hub_reads() -> None:
    data = ModelCard(card_of()).data
    assert data.license == "mit"
    assert data.library_name == "secondary-learners"
    assert data.model_name == "tiny"
    assert {"secondary-learners", "information-gain-filtration", "linear"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("spearmanr", 0.6123)
    assert result.dataset_type == "ships+taxes"


def test_metadata_survives_awkward_names() -> None:
    config = {**CONFIG, "corpus": {"name": 'a: "b" #c', "description": "x"}}
    data = ModelCard(rendered(config, EVALUATION)).data
    assert data.eval_results[0].dataset_type == 'a: "b" #c'


def test_every_placeholder_is_filled_and_values_are_left_alone() -> None:
    card = card_of()
    names = "|".join(placeholders("learner.md"))
    # `$name`, `$most` and `$HOME` are values here: a token, words and a command.
    assert set(re.findall(rf"\$(?:{names})\b", card)) == {"$name"}
    assert "$most of it" in card
    assert "learners run tiny --corpus '$HOME/text'" in card


def test_the_chosen_architecture_comes_first_with_its_figures() -> None:
    card = card_of()
    assert row_starting(card, "linear") == ["linear", "0.612", "0.360", "1,500"]
    assert card.index("| linear |") < card.index("| conv |")
    assert "**0.988**" in card
    assert "12,345 contexts of 32 tokens" in card


def test_the_comparison_is_a_table_of_all_arms() -> None:
    card = card_of()
    assert row_starting(card, "standard") == ["standard", "123.46 ± 0.12", "1.0", "–", "–", "60"]
    assert row_starting(card, "constant:1") == [
        *("constant:1", "98.77", "3.2", "1.0e-04", "0.250", "–"),
    ]
    assert "60 updates of 16 contexts, learning rate 0.0002, 5 seeds" in card
    assert "345.6 before" in card
    assert "![" in card
    assert "Ships: public domain." in card


def test_a_learner_that_was_not_tried_says_so_and_shows_no_plot() -> None:
    card = card_of(fine_tuning=None, plot=False)
    assert "It was not tried in fine-tuning when it was made." in card
    assert "![" not in card
    assert "p (random)" not in card


def test_an_agreement_that_was_not_measured_is_a_dash() -> None:
    config = {**CONFIG, "labels": {**CONFIG["labels"], "spearman_with_exact": None}}
    assert "**–**" in rendered(config, EVALUATION)


def test_a_base_model_card_is_complete() -> None:
    card = base_model_card(
        "small", "A model.", "apache-2.0", "Prose: mine.", "learners run small", BASE_EVALUATION
    )
    data = ModelCard(card).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert not re.search(rf"\$(?:{'|'.join(placeholders('base-model.md'))})\b", card)
    for figure in ("4.567", "6.789", "0.673", "200,000", "4,765,000", "12,288,000", "77 seconds"):
        assert figure in card


def test_a_table_is_markdown() -> None:
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def shipped(entry: Entry) -> tuple[str, dict[str, Any], dict[str, Any]]:
    folder: Path = content("learners") / entry.name
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return (folder / "README.md").read_text(encoding="utf-8"), config, evaluation


def named(entries: list[Entry]) -> Any:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


@named(LEARNERS)
def test_a_bundled_learner_s_card_is_its_figures_rendered(entry: Entry) -> None:
    card, config, evaluation = shipped(entry)
    recipe = find_recipe(str(content("learners") / entry.name / "recipe.toml"))
    assert card == learner_card(
        config,
        evaluation,
        summary=entry.summary,
        licence=entry.licence,
        attribution=recipe.attribution,
    )
    assert ModelCard(card).data.model_name == entry.name


@named(LEARNERS)
def test_the_figures_in_a_bundled_learner_s_card_are_those_of_evaluation_json(
    entry: Entry,
) -> None:
    card, config, evaluation = shipped(entry)
    for name, figures in evaluation["held_out"].items():
        assert row_starting(card, name)[1] == f"{figures['spearman']:.3f}"
    assert f"**{config['labels']['spearman_with_exact']:.3f}**" in card
    for row in evaluation["fine_tuning"]["rows"]:
        cells = row_starting(card, row["arm"])
        assert cells[1].split(" ± ")[0] == f"{row['perplexity']:.2f}"
    assert evaluation["fine_tuning"]["plain_words"] in card
    assert evaluation["command"] in card
    assert (content("learners") / entry.name / "comparison.png").is_file() == evaluation["plot"]


@named(LEARNERS)
def test_a_bundled_learner_s_entry_agrees_with_its_config(entry: Entry) -> None:
    _, config, evaluation = shipped(entry)
    assert (entry.name, entry.architecture) == (config["name"], config["architecture"])
    assert (entry.base, entry.tokenizer) == (
        config["base_model"]["repo"],
        config["tokenizer"]["repo"],
    )
    assert entry.corpus == config["corpus"]["name"]
    assert entry.objective == config["objective"]["domain"]
    held_out = {name: figures["spearman"] for name, figures in evaluation["held_out"].items()}
    assert max(held_out, key=lambda name: held_out[name]) == entry.architecture


@named(BASES)
def test_a_bundled_base_model_s_card_has_its_figures(entry: Entry) -> None:
    card, _, evaluation = shipped(entry)
    assert ModelCard(card).data.license == entry.licence
    assert not re.search(rf"\$(?:{'|'.join(placeholders('base-model.md'))})\b", card)
    assert f"{evaluation['held_out_loss']:.3f} nats per token" in card
    assert f"{evaluation['loss_to_unigram_entropy']:.3f}" in card
    assert entry.summary in card
