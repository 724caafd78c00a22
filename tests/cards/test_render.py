from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.cards.check import check_card
from secondary_learners.cards.distilled import distilled_card
from secondary_learners.cards.render import base_model_card, learner_card, markdown_table
from secondary_learners.content import content
from secondary_learners.recipes.distilled_learner.recipe import DistilledRecipe
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.registry.index import Entry, list_learners, read_index


def made_by(kind: type) -> list[Entry]:
    """The bundled learners whose recipe is of this kind."""
    paths = {e.name: content("learners") / e.name / "recipe.toml" for e in list_learners()}
    return [e for e in list_learners() if isinstance(find_recipe(str(paths[e.name])), kind)]


LEARNERS, DISTILLED = made_by(LearnerRecipe), made_by(DistilledRecipe)
BASES = [entry for entry in read_index().values() if entry.kind == "base-model"]

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "architecture": "linear",
    "sizes": {"vocabulary": 1000, "bigrams": 1024, "counts": "sqrt"},
    "score": {"unit": "nats per token"},
    "base_model": {"repo": "mini", "revision": None},
    "tokenizer": {"repo": "mini", "revision": None},
    "objective": {"domain": "ships", "contexts": 16},
    "context_length": 32,
    "labels": {
        "count": 12345,
        "method": "swapped",
        "spearman_with_exact": 0.98765,
        "exact_count": 64,
        "seed": 3,
    },
    "optimizer": {"name": "adamw", "learning_rate": 5e-5},
    "corpus": {"name": "ships+taxes", "description": "ships (a.txt); taxes (b.txt)"}
    | {"in_domain_share": 0.3},
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
ENERGY = {
    **{"kwh": 0.01234, "co2_kg": 0.0005678, "country": "FRA", "seconds": 312.4},
    **{"tool": "codecarbon 3.2", "method": "CPU estimated", "stages": "labelling"},
}
TRANSFER = {"base": "other", "updates": 1200, "spearman": 0.4567, "contexts": 3000}
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


def rendered(config: dict[str, Any], evaluation: dict[str, Any], **more: Any) -> str:
    given = {"license": "mit", "summary": "Finds ships"} | more
    return learner_card(config, evaluation, attribution="Ships: public domain.", **given)


def on_hub(commit: str = "c" * 40) -> dict[str, Any]:
    reference = {"repo": "openai-community/gpt2", "revision": commit}
    return {**CONFIG, "base_model": reference, "tokenizer": reference}


def placeholders(template: str) -> set[str]:
    text = (content("cards") / template).read_text(encoding="utf-8")
    return set(Template(text).get_identifiers())


def row_starting(card: str, first: str) -> list[str]:
    (line,) = (line for line in card.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_metadata_is_what_the_hub_reads() -> None:
    data = ModelCard(card_of()).data
    assert data.license == "mit"
    assert (data.library_name, data.pipeline_tag) == ("secondary-learners", "text-ranking")
    assert data.model_name == "tiny"
    assert {"secondary-learners", "information-gain-filtration", "linear"} <= set(data.tags)
    held_out, standard, filtered = data.eval_results
    assert (held_out.metric_type, held_out.metric_value) == ("spearmanr", 0.6123)
    # The Hub takes letters, digits, dots, underscores and hyphens here, and no "+".
    assert (held_out.dataset_type, held_out.dataset_name) == ("ships-taxes", SEEN)
    assert (standard.metric_type, standard.metric_value) == ("perplexity", 123.46)
    assert "standard, 5 seeds" in standard.metric_name
    assert (filtered.dataset_type, filtered.metric_value) == ("ships", 98.77)
    assert set(data.to_dict()) == {
        *("license", "library_name", "pipeline_tag", "tags", "metrics", "model-index")
    }


SEEN = "ships+taxes, unseen documents"


def test_a_base_model_counts_as_one_of_the_hub_only_with_a_commit() -> None:
    assert ModelCard(card_of()).data.base_model is None
    card = rendered(on_hub(), EVALUATION)
    data = ModelCard(card).data
    assert (data.base_model, data.base_model_relation) == ("openai-community/gpt2", "adapter")
    assert f"`openai-community/gpt2` at commit `{'c' * 40}`" in card
    assert "`mini`, which ships with secondary-learners" in card_of()


def test_data_sets_and_language_are_named_where_they_are_known() -> None:
    data = ModelCard(rendered(CONFIG, EVALUATION, language="en", datasets=["a/b"])).data
    assert (data.language, data.datasets) == ("en", ["a/b"])


def test_a_license_of_ones_own_is_other_with_its_name() -> None:
    data = ModelCard(rendered(CONFIG, EVALUATION, license="ship-license-1.0")).data
    assert (data.license, data.license_name, data.license_link) == (
        *("other", "ship-license-1.0", "LICENSE"),
    )


def test_a_license_nobody_stated_is_not_made_up() -> None:
    card = rendered(CONFIG, EVALUATION, license="unknown")
    assert ModelCard(card).data.license == "unknown"
    assert "has stated no license" in card


def test_metadata_survives_awkward_names() -> None:
    name = 'a: "b" #c\n- d'
    config = {**CONFIG, "corpus": {**CONFIG["corpus"], "name": name}}
    data = ModelCard(rendered(config, EVALUATION)).data
    assert data.eval_results[0].dataset_name == f"{name}, unseen documents"


WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1)


@settings(max_examples=40, deadline=None)
@given(name=WORDS, value=st.floats(-1, 1), license=WORDS)
def test_any_text_gives_metadata_that_reads_back(name: str, value: float, license: str) -> None:
    evaluation = {
        **EVALUATION,
        "held_out": {"linear": {"spearman": value, "r2": 0.5, "contexts": 10}},
    }
    card = rendered({**CONFIG, "name": name}, evaluation, license=license)
    data = yaml.safe_load(card.removeprefix("---\n").split("\n---\n")[0])
    assert data["model-index"][0]["name"] == name
    assert license in (data["license"], data.get("license_name"))
    assert data["model-index"][0]["results"][0]["metrics"][0]["value"] == round(value, 4)


def test_energy_is_in_grams_for_the_hub_and_in_words_for_people() -> None:
    card = card_of(energy=ENERGY)
    assert ModelCard(card).data.co2_eq_emissions == {
        "emissions": 0.5678,
        "source": "codecarbon 3.2",
        "geographical_location": "FRA",
        "hardware_used": "CPU, 2 threads",
    }
    assert "0.01234 kWh and 0.5678 g of CO₂ equivalent in 312 seconds of labelling" in card
    assert "by codecarbon 3.2 (CPU estimated)" in card
    assert "co2_eq_emissions" not in card_of()
    assert "## Energy and CO₂\n\nNot measured." in card_of()


def test_transfer_is_a_table_where_it_was_measured() -> None:
    assert row_starting(card_of(transfer=[TRANSFER]), "other") == [
        "other",
        "1,200",
        "0.457",
        "3,000",
    ]
    assert "### Transfer\n\nNot measured" in card_of()


def test_the_example_loads_from_where_the_learner_is() -> None:
    assert 'load_learner("tiny")' in card_of()
    card = rendered(CONFIG, EVALUATION, reference="./mine")
    assert 'load_learner("./mine")' in card and 'load_learner("tiny")' not in card


def test_a_folder_of_the_maker_s_machine_is_named_without_its_path() -> None:
    for path in ("/home/me/base", "C:\\Users\\me\\base"):
        card = rendered({**CONFIG, "base_model": {"repo": path, "revision": None}}, EVALUATION)
        assert "`base`, in a folder of its maker's" in card
        assert path not in card


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
    assert "seed 3" in card
    assert "linear, 2,025 parameters, 0.01 MB in float32" in card


def test_the_comparison_is_a_table_of_all_arms() -> None:
    card = card_of()
    assert row_starting(card, "standard") == ["standard", "123.46 ± 0.12", "1.0", "–", "–", "60"]
    assert row_starting(card, "constant:1") == [
        *("constant:1", "98.77", "3.2", "1.0e-04", "0.250", "–"),
    ]
    assert "60 updates of 16 contexts, learning rate 0.0002, 5 seeds (0 to 4)" in card
    assert "tested up to 60 updates" in card
    assert "345.6 before" in card
    assert "![" in card
    assert "Ships: public domain." in card


def test_a_learner_that_was_not_tried_says_so_and_shows_no_plot() -> None:
    card = card_of(fine_tuning=None, plot=False)
    assert "It was not tried in fine-tuning when it was made" in card
    assert "its use in fine-tuning is untested" in card
    assert "![" not in card
    assert "p (random)" not in card


@pytest.mark.parametrize(
    "card",
    [
        card_of(),
        card_of(energy=ENERGY, transfer=[TRANSFER]),
        card_of(fine_tuning=None, plot=False),
        rendered(on_hub(), EVALUATION, language="en", datasets=["Salesforce/wikitext"]),
        rendered(CONFIG, EVALUATION, license="ship-license-1.0", reference="./mine"),
        rendered(
            {**CONFIG, "name": "x", "corpus": CONFIG["corpus"] | {"name": "été + 海"}}, EVALUATION
        ),
    ],
)
def test_every_card_that_is_rendered_passes_the_check(card: str) -> None:
    assert check_card(card) == []


def test_an_agreement_that_was_not_measured_is_said_to_be_so() -> None:
    config = {**CONFIG, "labels": {**CONFIG["labels"], "spearman_with_exact": None}}
    assert "rank correlation with exact gains was not measured" in rendered(config, EVALUATION)


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
        license=entry.license,
        attribution=recipe.attribution,
        language=recipe.language,
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


@named(DISTILLED)
def test_a_bundled_distilled_learner_s_card_is_its_figures_rendered(entry: Entry) -> None:
    card, config, evaluation = shipped(entry)
    recipe = find_recipe(str(content("learners") / entry.name / "recipe.toml"))
    assert card == distilled_card(
        config,
        evaluation,
        summary=entry.summary,
        license=entry.license,
        attribution=recipe.attribution,
        language=recipe.language,
    )
    assert ModelCard(card).data.base_model == entry.base == config["base_model"]["repo"]
    for label, name in (("**this learner**", "conv"), ("ridge", "ridge")):
        figures = evaluation["held_out"][name]
        low, high = figures["spearman_interval"]
        assert f"\n| {label} | {figures['spearman']:.4f} [{low:.4f}, {high:.4f}] |" in card
    assert evaluation["readings"] in card
    reached = evaluation["held_out"]["conv"]["spearman"] >= 0.88
    assert ("it is not reached" in card) != reached
    assert (entry.corpus, entry.objective) == (
        config["corpus"]["name"],
        config["objective"]["domain"],
    )


@named(BASES)
def test_a_bundled_base_model_s_card_has_its_figures(entry: Entry) -> None:
    card, _, evaluation = shipped(entry)
    assert ModelCard(card).data.license == entry.license
    assert not re.search(rf"\$(?:{'|'.join(placeholders('base-model.md'))})\b", card)
    assert f"{evaluation['held_out_loss']:.3f} nats per token" in card
    assert f"{evaluation['loss_to_unigram_entropy']:.3f}" in card
    assert entry.summary in card


def test_a_precision_of_its_own_is_said() -> None:
    assert "passes in" not in card_of()
    config = {**CONFIG, "labels": {**CONFIG["labels"], "precision": "bfloat16"}}
    assert "seed 3, the model's passes in bfloat16." in rendered(config, EVALUATION)
