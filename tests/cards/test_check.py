from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.cards.check import CardFault, check_card, machine_paths
from secondary_learners.content import content

SHIPPED = sorted(path.parent for path in content("learners").glob("*/README.md"))
CARD = (content("learners") / "books-mini" / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a shipped learner that may be spoilt."""
    return shutil.copytree(content("learners") / "books-mini", tmp_path / "books")


def kinds(card: str | Path) -> set[CardFault]:
    return {CardFault(problem.kind) for problem in check_card(card)}


def without(key: str) -> str:
    """The card without a key of one line of its metadata."""
    lines = CARD.splitlines(keepends=True)
    assert any(line.startswith(f"{key}:") for line in lines)
    return "".join(line for line in lines if not line.startswith(f"{key}:"))


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.name)
def test_the_cards_that_ship_are_right(shipped: Path) -> None:
    assert check_card(shipped) == []
    assert check_card(shipped / "README.md") == []


def test_a_card_is_right_by_itself_too() -> None:
    assert check_card(CARD) == []


SPOILT: list[tuple[CardFault, Callable[[str], str], str]] = [
    (CardFault.METADATA, lambda card: card.removeprefix("---\n"), "no metadata"),
    (CardFault.METADATA, lambda card: card.replace("license: ", "license: [", 1), "not YAML"),
    (CardFault.METADATA, lambda card: "---\n- one\n---\n" + card, "not a table"),
    (CardFault.METADATA, lambda card: without("library_name"), "library_name"),
    (CardFault.METADATA, lambda card: card.replace("tags:\n", "tags: one\nmore:\n", 1), "tags"),
    (
        CardFault.METADATA,
        lambda card: card.replace("---\n", "---\nco2_eq_emissions: much\n", 1),
        "grams",
    ),
    (CardFault.LICENSE, lambda card: without("license"), "nobody has said"),
    (CardFault.LICENSE, lambda card: card.replace(": apache-2.0", ": unknown", 1), "nobody"),
    (CardFault.LICENSE, lambda card: card.replace(": apache-2.0", ": Apache", 1), "'Apache'"),
    (CardFault.LICENSE, lambda card: card.replace(": apache-2.0", ": other", 1), "license_name"),
    (
        CardFault.IDENTIFIER,
        lambda card: card.replace("---\n", "---\nbase_model: ../base\n", 1),
        "'../base'",
    ),
    (
        CardFault.IDENTIFIER,
        lambda card: card.replace("---\n", "---\ndatasets:\n- a/b\n- my files\n", 1),
        "'my files'",
    ),
    (CardFault.IDENTIFIER, lambda card: card.replace(": en\n", ": English\n", 1), "'English'"),
    (CardFault.RESULTS, lambda card: card.replace("model-index:", "index:", 1), "no figures"),
    (CardFault.RESULTS, lambda card: card.replace("type: books-general", "kind: x", 1), "type"),
    (CardFault.RESULTS, lambda card: card.replace("books-general", "books+general"), "+general"),
    (CardFault.RESULTS, lambda card: card.replace("value: 0.804", "value: good", 1), "'good'"),
    (
        CardFault.SECTION,
        lambda card: card.replace("## Intended use and limits", "## More"),
        "inten",
    ),
    (CardFault.SECTION, lambda card: card.replace("## License", "## End"), "license"),
    (CardFault.SECTION, lambda card: card.replace("load_learner(", "get("), "load_learner"),
    (CardFault.PLACEHOLDER, lambda card: card + "\n{{ summary }}\n", "{{ summary }}"),
    (CardFault.PLACEHOLDER, lambda card: card + "\n{% endif %}\n", "endif"),
    (CardFault.PLACEHOLDER, lambda card: card + "\n[More Information Needed]\n", "Needed"),
    (CardFault.PATH, lambda card: card + "\nsee /home/me/text.txt\n", "/home/me/text.txt"),
    (CardFault.PATH, lambda card: card + "\nsee `C:\\Users\\me`\n", "Users"),
]


@pytest.mark.parametrize(("kind", "spoil", "words"), SPOILT)
def test_what_is_wrong_is_said(kind: CardFault, spoil: Callable[[str], str], words: str) -> None:
    text = spoil(CARD)
    assert text != CARD
    said = [problem.message for problem in check_card(text) if problem.kind == kind]
    assert any(words in message for message in said), check_card(text)


READ_DIFFERENTLY: list[tuple[Callable[[str], str], str]] = [
    (lambda card: card.replace("tags:\n", "license: mit\ntags:\n", 1), "'license' comes twice"),
    (lambda card: card.replace("- type: spear", "- type: x\n      type: spear", 1), "'type' comes"),
    (lambda card: card.replace("tags:\n", "created: 2024-02-30\ntags:\n", 1), "'2024-02-30'"),
    (lambda card: card.replace("tags:\n", f"size: {'9' * 5000}\ntags:\n", 1), "'9999"),
    (lambda card: card.replace("tags:\n", f"x: {'[' * 3000}\ntags:\n", 1), "deeply"),
    (lambda card: "\ufeff" + card, "byte order mark"),
    (lambda card: "\ufeff\ufeff" + card, "byte order mark"),
    (lambda card: card.replace("---\n", "---\n\ufeff", 1), "byte order mark"),
]


@pytest.mark.parametrize(("spoil", "words"), READ_DIFFERENTLY)
def test_metadata_that_readers_may_read_differently_is_named_alone(
    spoil: Callable[[str], str], words: str
) -> None:
    text = spoil(CARD)
    assert text != CARD
    (problem,) = check_card(text)
    assert problem.kind is CardFault.METADATA and words in problem.message


def test_a_byte_order_mark_in_the_file_is_named(folder: Path) -> None:
    (folder / "README.md").write_text(CARD, encoding="utf-8-sig")
    (problem,) = check_card(folder)
    assert "byte order mark" in problem.message


def test_a_language_that_yaml_reads_as_false_is_explained() -> None:
    (problem,) = check_card(CARD.replace("language: en", "language: no", 1))
    assert problem.kind is CardFault.IDENTIFIER and "in quotes" in problem.message
    assert check_card(CARD.replace("language: en", 'language: "no"', 1)) == []


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.name)
@pytest.mark.parametrize("tag", ["delta", "distilled", "loss-prediction", "base-model", "learner"])
def test_a_tag_does_not_say_what_the_folder_is(shipped: Path, tag: str, tmp_path: Path) -> None:
    folder = shutil.copytree(shipped, tmp_path / shipped.name)
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("\ntags:\n", f"\ntags:\n- {tag}\n", 1), encoding="utf-8")
    assert check_card(folder) == []
    path.write_text(text.replace("\ntags:\n", f"\ntags:\n- {tag}\nx:\n", 1), encoding="utf-8")
    assert check_card(folder) == []  # nor do those that are taken away


def test_the_sections_asked_for_are_those_of_the_artifact(folder: Path) -> None:
    text = CARD.replace("## What it looks for", "## More").replace("## Energy and CO₂", "## Also")
    (folder / "README.md").write_text(text, encoding="utf-8")
    assert [problem.kind for problem in check_card(folder)] == [CardFault.SECTION] * 2
    assert check_card(text) == []  # by itself nobody knows what it is a card of


def test_a_figure_is_not_found_inside_another(folder: Path) -> None:
    path = folder / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["energy"] = {"kwh": 0.5, "co2_kg": 0.1}
    path.write_text(json.dumps(evaluation))
    for shown, right in (("0.5 kWh", True), ("10.5 kWh", False), ("2,0.5 kWh", False)):
        card = CARD.replace("Not measured. `learners run", f"{shown}. `learners run", 1)
        (folder / "README.md").write_text(card, encoding="utf-8")
        assert (check_card(folder) == []) is right


def test_a_token_may_look_like_a_placeholder() -> None:
    assert check_card(CARD + "\n`` {{ summary }} ``, `` TODO ``\n") == []


def test_a_maker_may_word_headings_otherwise() -> None:
    assert check_card(CARD.replace("## Use\n", "## How to use it\n")) == []


def test_every_problem_is_found_at_once(folder: Path) -> None:
    text = without("license").replace("| linear | 0.804", "| linear | 0.904")
    (folder / "README.md").write_text(text + "[a](gone.png) {{ base }}", encoding="utf-8")
    assert kinds(folder) == {
        *(CardFault.LICENSE, CardFault.FIGURE, CardFault.LINK, CardFault.PLACEHOLDER)
    }


@pytest.mark.parametrize(
    ("figure", "other"),
    [
        ("| linear | 0.804 |", "| linear | 0.840 |"),
        ("**0.973**", "**0.993**"),
        ("| constant:1 | 115.43 ± 0.07 |", "| constant:1 | 105.43 ± 0.07 |"),
        ("value: 115.43", "value: 105.43"),
        ("| random constant:1 |", "| blind |"),
    ],
)
def test_a_figure_that_is_not_the_measured_one(folder: Path, figure: str, other: str) -> None:
    assert figure in CARD
    (folder / "README.md").write_text(CARD.replace(figure, other), encoding="utf-8")
    assert kinds(folder) == {CardFault.FIGURE}
    assert check_card(CARD.replace(figure, other)) == []  # by itself nobody can tell


def test_a_base_model_s_figures_are_compared_too(tmp_path: Path) -> None:
    folder = shutil.copytree(content("learners") / "mini", tmp_path / "mini")
    card = folder / "README.md"
    card.write_text(card.read_text().replace("3.938 nats", "2.938 nats"), encoding="utf-8")
    assert kinds(folder) == {CardFault.FIGURE}


def test_figures_that_are_missing_are_named(folder: Path) -> None:
    path = folder / "evaluation.json"
    evaluation = json.loads(path.read_text())
    del evaluation["held_out"]
    path.write_text(json.dumps(evaluation))
    (problem,) = check_card(folder)
    assert problem.kind is CardFault.FIGURE and "held_out" in problem.message


def test_a_link_leads_somewhere(folder: Path) -> None:
    (folder / "comparison.png").unlink()
    (problem,) = check_card(folder)
    assert problem.kind is CardFault.LINK and "comparison.png" in problem.message


def test_a_license_file_is_there(folder: Path) -> None:
    own = "license: other\nlicense_name: ships-1.0\nlicense_link: LICENSE\n"
    (folder / "README.md").write_text(CARD.replace("license: apache-2.0\n", own), encoding="utf-8")
    assert kinds(folder) == {CardFault.LICENSE}
    (folder / "LICENSE").write_text("do as you like")
    assert check_card(folder) == []


def test_a_card_that_is_not_text(folder: Path) -> None:
    (folder / "README.md").write_bytes(b"\xff\xfe")
    assert kinds(folder) == {CardFault.METADATA}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("https://arxiv.org/abs/2005.00175 and/or a/b/c ../x/y </b></i>", []),
        ("`/tmp/x/y.txt` (/home/me) and /home/me again", ["/tmp/x/y.txt", "/home/me"]),
        ('{"files": "/data/books"}', ["/data/books"]),
        ("~/text/mine.txt", ["~/text/mine.txt"]),
        ("nats / token, 1/2", []),
    ],
)
def test_paths_of_a_machine(text: str, paths: list[str]) -> None:
    assert machine_paths(text) == paths


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    assert check_card(text)
    assert check_card(f"---\n{text}\n---\n")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["license", "tags", "model-index", "base_model", "datasets", "co2_eq_emissions"]
        ),
        JSON,
    )
)
def test_any_metadata_is_judged(data: dict[str, object]) -> None:
    assert check_card(f"---\n{json.dumps(data)}\n---\n# x\n")
