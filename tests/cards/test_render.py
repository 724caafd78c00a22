from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from secondary_learners.cards.card import About
from secondary_learners.cards.check import check_card
from secondary_learners.cards.kinds import CARDS, card, card_of
from secondary_learners.cards.metadata import read_front_matter
from secondary_learners.cards.render import figures, render_card
from secondary_learners.content import content
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.registry.index import Entry, read_index

SHIPPED = [entry for entry in read_index().values() if entry.location == "bundled"]


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


def with_figures(**changes: Any) -> str:
    return rendered(CONFIG, {**EVALUATION, **changes})


def rendered(config: dict[str, Any], evaluation: dict[str, Any], **more: Any) -> str:
    words = {"name": config["name"], "license": "mit", "summary": "Finds ships"} | more
    about = About(attribution="Ships: public domain.", **words)
    return render_card(card("learner"), config, evaluation, about)


def on_hub(commit: str = "c" * 40) -> dict[str, Any]:
    reference = {"repo": "openai-community/gpt2", "revision": commit}
    return {**CONFIG, "base_model": reference, "tokenizer": reference}


def row_starting(card: str, first: str) -> list[str]:
    (line,) = (line for line in card.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_metadata_is_what_the_hub_reads() -> None:
    data = ModelCard(with_figures()).data
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
    assert ModelCard(with_figures()).data.base_model is None
    card = rendered(on_hub(), EVALUATION)
    data = ModelCard(card).data
    assert (data.base_model, data.base_model_relation) == ("openai-community/gpt2", "adapter")
    assert f"`openai-community/gpt2` at commit `{'c' * 40}`" in card
    assert "`mini`, which ships with secondary-learners" in with_figures()


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


WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1) | st.sampled_from(
    [
        "a\n---\nb",
        "---",
        "a\n---\nlicense: mit",
        "\ufeff",
        "a\u2028---",
        "no",
        "2024-02-30",
        "{{ x }}",
    ]
)


@settings(max_examples=100, deadline=None)
@given(name=WORDS, value=st.floats(-1, 1), license=WORDS)
def test_any_text_gives_metadata_that_reads_back(name: str, value: float, license: str) -> None:
    evaluation = {
        **EVALUATION,
        "held_out": {"linear": {"spearman": value, "r2": 0.5, "contexts": 10}},
    }
    text = rendered({**CONFIG, "name": name}, evaluation, license=license)
    for data in (read_front_matter(text), ModelCard(text).data.to_dict()):
        assert data["model-index"][0]["name"] == name
        assert license in (data["license"], data.get("license_name"))
        assert data["model-index"][0]["results"][0]["metrics"][0]["value"] == round(value, 4)


def test_energy_is_in_grams_for_the_hub_and_in_words_for_people() -> None:
    card = with_figures(energy=ENERGY)
    assert ModelCard(card).data.co2_eq_emissions == {
        "emissions": 0.5678,
        "source": "codecarbon 3.2",
        "geographical_location": "FRA",
        "hardware_used": "CPU, 2 threads",
    }
    assert "0.01234 kWh and 0.5678 g of CO₂ equivalent in 312 seconds of labelling" in card
    assert "by codecarbon 3.2 (CPU estimated)" in card
    assert "co2_eq_emissions" not in with_figures()
    assert "## Energy and CO₂\n\nNot measured." in with_figures()


def test_transfer_is_a_table_where_it_was_measured() -> None:
    assert row_starting(with_figures(transfer=[TRANSFER]), "other") == [
        "other",
        "1,200",
        "0.457",
        "3,000",
    ]
    assert "### Transfer\n\nNot measured" in with_figures()


def test_the_example_loads_from_where_the_learner_is() -> None:
    assert 'load_learner("tiny")' in with_figures()
    card = rendered(CONFIG, EVALUATION, reference="./mine")
    assert 'load_learner("./mine")' in card and 'load_learner("tiny")' not in card


def test_a_folder_of_the_maker_s_machine_is_named_without_its_path() -> None:
    for path in ("/home/me/base", "C:\\Users\\me\\base"):
        card = rendered({**CONFIG, "base_model": {"repo": path, "revision": None}}, EVALUATION)
        assert "`base`, in a folder on its maker's machine" in card
        assert path not in card


def test_values_are_data_and_never_templates() -> None:
    # A token, words and a command that look like jinja2's.
    evaluation = {
        **EVALUATION,
        "tokens": {"raise": ["{{ name }}", "{% raw %}"], "lower": ["``", "`"]},
        "command": "learners run tiny --corpus '{{ config }}'",
    }
    text = rendered(CONFIG, evaluation, summary="Finds {{ 7 * 7 }} {% include 'README.md' %}.")
    assert "Finds {{ 7 * 7 }} {% include 'README.md' %}." in text
    assert "`` {{ name }} ``, `` {% raw %} ``" in text
    assert "``` `` ```, `` ` ``" in text
    assert "learners run tiny --corpus '{{ config }}'" in text


def test_a_figure_that_is_missing_is_an_error_that_names_it() -> None:
    evaluation = {key: value for key, value in EVALUATION.items() if key != "tokens"}
    with pytest.raises(UndefinedError, match="tokens"):
        rendered(CONFIG, evaluation)
    broken = {**CONFIG, "optimizer": {"name": "adamw"}}
    with pytest.raises(UndefinedError, match="learning_rate"):
        rendered(broken, EVALUATION)


def test_a_pipe_does_not_break_a_table() -> None:
    rows = [{**ROWS[0], "arm": "a|b"}]
    text = with_figures(fine_tuning={**EVALUATION["fine_tuning"], "rows": rows})
    assert r"| a\|b | 123.46 ± 0.12 |" in text


def test_the_chosen_architecture_comes_first_with_its_figures() -> None:
    card = with_figures()
    assert row_starting(card, "linear") == ["linear", "0.612", "0.360", "1,500"]
    assert card.index("| linear |") < card.index("| conv |")
    assert "**0.988**" in card
    assert "12,345 contexts of 32 tokens" in card
    assert "seed 3" in card
    assert "linear, 2,025 parameters, 0.01 MB in float32" in card


def test_the_comparison_is_a_table_of_all_arms() -> None:
    card = with_figures()
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
    card = with_figures(fine_tuning=None, plot=False)
    assert "It was not tried in fine-tuning when it was made" in card
    assert "its use in fine-tuning is untested" in card
    assert "![" not in card
    assert "p (random)" not in card


@pytest.mark.parametrize(
    "card",
    [
        with_figures(),
        with_figures(energy=ENERGY, transfer=[TRANSFER]),
        with_figures(fine_tuning=None, plot=False),
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
    about = About(
        name="small", summary="A model.", license="apache-2.0", attribution="Prose: mine."
    )
    evaluation = BASE_EVALUATION | {"command": "learners run small"}
    text = render_card(card("base-model"), {}, evaluation, about)
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    for figure in ("4.567", "6.789", "0.673", "200,000", "4,765,000", "12,288,000", "77 seconds"):
        assert figure in text
    assert check_card(text) == []


@pytest.mark.parametrize("kind", CARDS)
def test_every_kind_of_card_ships_an_artifact_whose_figures_are_compared(kind: str) -> None:
    assert any(
        figures(card(kind), *data_of(entry)) for entry in SHIPPED if kind_of_card(entry) == kind
    )


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.name)
def test_energy_is_shown_whatever_was_made(entry: Entry, tmp_path: Path) -> None:
    folder = shutil.copytree(content("learners") / entry.name, tmp_path / entry.name)
    config, evaluation = data_of(entry)
    evaluation = {"command": "learners run x", **evaluation, "energy": ENERGY}
    about = About(name=entry.name, summary=entry.summary, license="mit")
    text = render_card(card(kind_of_card(entry)), config, evaluation, about)
    (folder / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    (folder / "README.md").write_text(text, encoding="utf-8")
    assert "0.01234 kWh and 0.5678 g" in text and text.count("## Energy and CO₂") == 1
    assert check_card(folder) == []


def kind_of_card(entry: Entry) -> str:
    (kind,) = (kind for kind in CARDS if card(kind) is card_of(content("learners") / entry.name))
    return kind


def data_of(entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    folder: Path = content("learners") / entry.name
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config, json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


def shipped(entry: Entry) -> tuple[str, dict[str, Any], dict[str, Any]]:
    text = (content("learners") / entry.name / "README.md").read_text(encoding="utf-8")
    return text, *data_of(entry)


def named(entries: list[Entry]) -> Any:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


def made_as(kind: str) -> list[Entry]:
    return [entry for entry in SHIPPED if kind_of_card(entry) == kind]


@named(SHIPPED)
def test_a_bundled_card_is_its_figures_rendered(entry: Entry) -> None:
    text, config, evaluation = shipped(entry)
    recipe = find_recipe(str(content("learners") / entry.name / "recipe.toml"))
    if entry.kind == "base-model":  # the command of one that was made before is in its card alone
        evaluation["command"] = re.findall(r"^learners run .*", text, re.MULTILINE)[0]
    about = About.of(recipe)
    assert text == render_card(card(kind_of_card(entry)), config, evaluation, about)
    assert (about.summary, about.license) == (entry.summary, entry.license)
    assert ModelCard(text).data.model_name == entry.name


@named(made_as("learner"))
def test_the_figures_in_a_bundled_learner_s_card_are_those_of_evaluation_json(
    entry: Entry,
) -> None:
    card, config, evaluation = shipped(entry)
    for name, measured in evaluation["held_out"].items():
        low_high = measured.get("interval")
        interval = "" if low_high is None else f" [{low_high[0]:.3f}, {low_high[1]:.3f}]"
        assert row_starting(card, name)[1] == f"{measured['spearman']:.3f}{interval}"
    exact = config["labels"]["spearman_with_exact"]
    assert (exact is None and "was not measured" in card) or f"**{exact:.3f}**" in card
    for row in evaluation["fine_tuning"]["rows"]:
        cells = row_starting(card, row["arm"])
        assert cells[1].split(" ± ")[0] == f"{row['perplexity']:.2f}"
    assert evaluation["fine_tuning"]["plain_words"] in card
    assert evaluation["command"] in card
    assert (content("learners") / entry.name / "comparison.png").is_file() == evaluation["plot"]


@named(made_as("learner"))
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


@named(made_as("distilled"))
def test_a_bundled_distilled_learner_s_card_has_its_figures(entry: Entry) -> None:
    card, config, evaluation = shipped(entry)
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


@named(made_as("base-model"))
def test_a_bundled_base_model_s_card_has_its_figures(entry: Entry) -> None:
    card, _, evaluation = shipped(entry)
    assert ModelCard(card).data.license == entry.license
    assert f"{evaluation['held_out_loss']:.3f} nats per token" in card
    assert f"{evaluation['loss_to_unigram_entropy']:.3f}" in card
    assert entry.summary in card


def test_a_precision_of_its_own_is_said() -> None:
    assert "passes in" not in with_figures()
    config = {**CONFIG, "labels": {**CONFIG["labels"], "precision": "bfloat16"}}
    assert "seed 3, the model's passes in bfloat16." in rendered(config, EVALUATION)
