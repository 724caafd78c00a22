from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.content import content
from secondary_learners.deltas.settings import Training
from secondary_learners.errors import RecipeError, UnknownNameError
from secondary_learners.recipes.base_model.recipe import PretrainRecipe
from secondary_learners.recipes.delta.recipe import DeltaRecipe
from secondary_learners.recipes.gain_learner.recipe import (
    EvaluationPlan,
    InstructionPlan,
    LabelPlan,
    LearnerPlan,
    LearnerRecipe,
    Shares,
    TokenizerPlan,
)
from secondary_learners.recipes.loss_learner.recipe import MultistageRecipe
from secondary_learners.recipes.parsing import find_recipe, parse_recipe, recipe_names, recipe_toml
from secondary_learners.text.corpus import Source

LEARNER = """
name = "x"
summary = "A learner."
objective_domain = "a"
[[sources]]
domain = "a"
files = "a/*.txt"
[[sources]]
domain = "b"
builtin = "unicode-names"
"""
BASE = """
kind = "base-model"
name = "x"
summary = "A model."
[[sources]]
domain = "a"
files = "a/*.txt"
"""


def test_there_are_bundled_recipes() -> None:
    assert {"mini", "python-docs-mini", "books-mini"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_bundled_recipe_parses_under_its_own_name_and_round_trips(name: str) -> None:
    recipe = find_recipe(name)
    # A multistage recipe is called after what it does, and its name is the learner's.
    assert recipe.name == name or isinstance(recipe, MultistageRecipe)
    assert parse_recipe(recipe_toml(recipe)) == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_a_bundled_recipe_begins_with_its_command(name: str) -> None:
    first = (content("recipes") / f"{name}.toml").read_text().splitlines()[0]
    assert first.startswith(f"# learners run {name}")
    recipe = find_recipe(name)
    sources = getattr(recipe, "sources", ())  # what is fetched has none
    needs_files = isinstance(recipe, DeltaRecipe) or any(source.files for source in sources)
    assert ("--corpus" in first) == needs_files


@pytest.mark.parametrize("name", recipe_names())
def test_the_shipped_artifact_was_made_by_the_bundled_recipe_of_its_name(name: str) -> None:
    shipped = content("learners") / find_recipe(name).name / "recipe.toml"
    if shipped.is_file():
        made, recipe = find_recipe(str(shipped)), find_recipe(name)
        assert type(made) is type(recipe)
        if isinstance(made, DeltaRecipe):
            assert made == recipe
        else:
            assert made.sources == recipe.sources


def test_defaults_fill_what_a_recipe_leaves_out() -> None:
    recipe = parse_recipe(LEARNER)
    assert isinstance(recipe, LearnerRecipe)
    assert (recipe.split, recipe.labels, recipe.learner) == (Shares(), LabelPlan(), LearnerPlan())
    assert isinstance(parse_recipe(BASE), PretrainRecipe)


names = st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+){0,2}", fullmatch=True)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
positive = st.floats(1e-9, 1e6)


@given(
    name=names,
    summary=words,
    domain=words,
    files=words,
    separator=st.none() | words,
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**40),
    shares=st.builds(Shares, positive, positive, positive, positive),
    rate=positive,
    trainable=st.sampled_from([None, "lora", "last-layers:3", ("*.mlp.*", "lm_head.weight")]),
    architectures=st.sampled_from([("linear",), ("conv",), ("linear", "conv")]),
    thresholds=st.sampled_from([(), ("1",), ("shifting:1,-1,10", "quantile:0.3")]),
    embedding=st.none() | st.integers(1, 100),
    tokenizer=st.none() | st.builds(TokenizerPlan, words, st.just("0123456789abcdef" * 4)),
)
def test_any_recipe_survives_its_file(
    name: str,
    summary: str,
    domain: str,
    files: str,
    separator: str | None,
    share: float,
    seed: int,
    shares: Shares,
    rate: float,
    trainable: str | tuple[str, ...] | None,
    architectures: tuple[str, ...],
    thresholds: tuple[str, ...],
    embedding: int | None,
    tokenizer: TokenizerPlan | None,
) -> None:
    recipe = LearnerRecipe(
        name=name,
        summary=summary,
        objective_domain=domain,
        sources=(Source(domain, files=files, separator=separator), Source("b", builtin="x")),
        in_domain_share=share,
        seed=seed,
        split=shares,
        labels=LabelPlan(learning_rate=rate, trainable=trainable),
        learner=LearnerPlan(architectures=architectures, embedding=embedding),
        evaluation=EvaluationPlan(thresholds=thresholds),
        tokenizer=tokenizer,
    )
    assert parse_recipe(recipe_toml(recipe)) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("color = 1", r"x\.toml: unknown field 'color'; known are attribution, base, "),
        ("context_length = '32'", r"x\.toml: context_length is '32', and should be a whole number"),
        ("context_length = true", "context_length is True, and should be a whole number"),
        ("context_length = 1", "context_length 1 is too short"),
        ("base = 3", "base is 3, and should be a string"),
        ("in_domain_share = 'x'", "in_domain_share is 'x', and should be a number"),
        ("in_domain_share = 1", "in_domain_share 1.0 must lie between 0 and 1"),
        ("in_domain_share = nan", "in_domain_share nan must lie between 0 and 1"),
        ("labels = 3", r"x\.toml: labels is 3, and should be a table"),
        ("labels.color = 1", r"x\.toml: labels: unknown field 'color'"),
        ("labels.method = 'guess'", "labels: method is 'guess'.*exact, per-example, swapped"),
        ("labels.optimizer = 'lion'", "labels: optimizer is 'lion'.*adamw, sgd"),
        ("labels.trainable = 'last'", "labels: no trainable subset named 'last': did you mean"),
        ("labels.trainable = []", "labels: trainable is an empty list"),
        ("labels.trainable = 3", "labels: trainable is 3, and should be a string"),
        ("labels.trainable = [3]", "labels: trainable is 3, and should be a string"),
        ("labels.contexts = 0", "labels: contexts is 0, and must be above 0"),
        ("split.test = 0", "split: test is 0.0, and must be above 0"),
        ("learner.architectures = 'conv'", "architectures is 'conv', and should be a list"),
        ("learner.architectures = [1]", "architectures is 1, and should be a string"),
        ("learner.architectures = ['tree']", "architectures is 'tree'.*conv, linear"),
        ("learner.architectures = []", "learner: architectures is empty"),
        ("learner.bigrams = 1000", "bigrams is 1000: it must be 0 or a power of two"),
        ("learner.embedding = 0", "learner: embedding is 0, and must be above 0"),
        ("tokenizer = 'gpt2'", "tokenizer is 'gpt2', and should be a table"),
        ("tokenizer.repo = 'gpt2'", "tokenizer: the field 'fingerprint' is missing"),
        (
            "tokenizer = {repo = 'gpt2', fingerprint = 'e35'}",
            "tokenizer: fingerprint 'e35' is not a sha256",
        ),
        ("evaluation.thresholds = ['high']", "evaluation: no threshold named 'high'"),
        ("evaluation.thresholds = ['quantile:2']", r"x\.toml: evaluation: "),
        ("kind = 'forest'", r"x\.toml: kind 'forest' is not one of base-model, "),
        ("kind = ['learner']", "is not one of base-model, "),
        ("= 3", r"x\.toml is not TOML"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(f"{change}\n{LEARNER}", "x.toml")


@pytest.mark.parametrize("field", ["name", "summary", "objective_domain"])
def test_a_missing_field_is_named(field: str) -> None:
    text = "\n".join(line for line in LEARNER.splitlines() if not line.startswith(field))
    with pytest.raises(RecipeError, match=rf"x\.toml: the field '{field}' is missing"):
        parse_recipe(text, "x.toml")


def test_a_recipe_without_sources_says_so() -> None:
    with pytest.raises(RecipeError, match="the field 'sources' is missing"):
        parse_recipe(BASE.split("[[")[0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "x"', 'name = "My Learner"', "'My Learner' must be lower-case words"),
        ('objective_domain = "a"', 'objective_domain = "c"', r"'c' is not one of .* \(a, b\)"),
        ('files = "a/*.txt"', "", "'a' needs exactly one of files, dataset and builtin"),
        ('files = "a/*.txt"', 'file = "a"', "sources: unknown field 'file'"),
        ('files = "a/*.txt"', "files = 1", "sources: files is 1, and should be a string"),
    ],
)
def test_values_that_do_not_fit_together(old: str, new: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(LEARNER.replace(old, new, 1))


@pytest.mark.parametrize("vocabulary", [256, 65_537])
def test_a_vocabulary_that_cannot_be_stored_is_refused(vocabulary: int) -> None:
    with pytest.raises(RecipeError, match=f"vocabulary {vocabulary} must lie between"):
        parse_recipe(f"vocabulary = {vocabulary}\n{BASE}")


def test_whole_numbers_are_taken_for_numbers() -> None:
    recipe = parse_recipe("labels.learning_rate = 1\n" + LEARNER)
    assert isinstance(recipe, LearnerRecipe)
    assert isinstance(recipe.labels.learning_rate, float)


def test_a_recipe_is_found_by_name_or_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(LEARNER)
    assert find_recipe(str(path)) == parse_recipe(LEARNER)
    with pytest.raises(UnknownNameError, match=r"no recipe named 'minni': did you mean mini"):
        find_recipe("minni")
    with pytest.raises(UnknownNameError, match=r"learners list --recipes"):
        find_recipe(str(tmp_path / "absent.toml"))


def test_a_changed_recipe_is_checked_as_well() -> None:
    recipe = parse_recipe(LEARNER)
    assert isinstance(recipe, LearnerRecipe)
    with pytest.raises(RecipeError, match="in_domain_share"):
        replace(recipe, in_domain_share=0.0)


DELTA = """
kind = "delta"
name = "ships"
task = "ships"
train = "train.tsv"
test = "test.tsv"
"""


def test_a_delta_recipe_round_trips_with_what_it_leaves_out() -> None:
    recipe = parse_recipe(DELTA + '[tuning]\nkind = "layers"\nshare = 0.25\nlayers = ["h.0"]\n')
    assert isinstance(recipe, DeltaRecipe)
    assert (recipe.tuning.share, recipe.tuning.layers) == (0.25, ("h.0",))
    assert recipe.tuning.training == Training()
    assert parse_recipe(recipe_toml(recipe)) == recipe


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('stored = "int8"', "stored is 'int8', and must be one of bfloat16, float16, float32"),
        ("examples = -1", "examples is -1"),
        ("max_length = 0", "max_length is 0"),
        ('[tuning]\nkind = "veil"', "tuning: kind is 'veil'"),
        ("[tuning]\nstart = 1", "start is 1, and must be one of magnitude, random"),
        ("[tuning]\nshare = 2.0", "share 2.0"),
        ("[tuning.training]\nepochs = 0", "epochs is 0"),
        ("[tuning.training]\nwhen = 1", "unknown field 'when'"),
    ],
)
def test_what_a_delta_recipe_may_not_say(more: str, words: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(words)):
        parse_recipe(f"{DELTA}{more}\n", "x.toml")


def test_a_recipe_of_instructions_survives_its_file_and_is_checked() -> None:
    seeds = "evaluation.seeds = 0\n"
    recipe = parse_recipe(seeds + "instructions.completion = 'answer'\n" + LEARNER)
    assert isinstance(recipe, LearnerRecipe)
    assert recipe.instructions == InstructionPlan(completion="answer")
    assert parse_recipe(recipe_toml(recipe)) == recipe
    assert "[instructions]" not in recipe_toml(parse_recipe(LEARNER))
    for change, message in (
        ("instructions.truncate = 'right'", "truncate is 'right', and must be one of left, refuse"),
        ("instructions.prompt = 'completion'", "must be two names"),
        ("instructions.color = 1", "instructions: unknown field 'color'"),
        ("instructions = true", "instructions is True, and should be a table"),
    ):
        with pytest.raises(RecipeError, match=message):
            parse_recipe(seeds + change + "\n" + LEARNER)
    with pytest.raises(RecipeError, match=r"evaluation\.seeds is 5.*FilteredSFTTrainer"):
        parse_recipe("instructions.prompt = 'a'\n" + LEARNER)
