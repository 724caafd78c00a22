from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recipes_helpers import OTHER, WANTED, prose
from secondary_learners.errors import CorpusError
from secondary_learners.recipes.gain_learner.data import (
    finetuning_data,
    labelling_data,
    portable,
    read_splits,
)
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe, own_recipe
from secondary_learners.recipes.parsing import parse_recipe, recipe_toml
from secondary_learners.recipes.sources import describe_sources
from secondary_learners.registry.load import load_base
from secondary_learners.text.corpus import Source


def test_splits_share_no_document_and_lose_none(recipe: LearnerRecipe) -> None:
    splits = read_splits(recipe, None)
    names = {name: {document.name for document in part} for name, part in splits.items()}
    everything = sorted(name for part in names.values() for name in part)
    assert len(everything) == len(set(everything))
    assert set(splits) == {"objective", "labels", "stream", "test"}
    assert {document.domain for part in splits.values() for document in part} == {
        "objective",
        "pool",
    }


def test_contexts_of_labels_and_of_fine_tuning_come_from_other_documents(
    recipe: LearnerRecipe,
) -> None:
    _, tokenizer = load_base(recipe.base)
    splits = read_splits(recipe, None)
    labels = labelling_data(recipe, splits, tokenizer)
    tuning = finetuning_data(recipe, splits, tokenizer)
    seen = {row.tobytes() for row in labels.candidates.input_ids}
    seen |= {row.tobytes() for row in labels.objective.input_ids}
    fresh = np.concatenate([tuning.stream.input_ids, tuning.test.input_ids])
    # Made-up prose may repeat a run of 16 tokens now and then; a shared document would be rows.
    assert sum(row.tobytes() in seen for row in fresh) <= len(fresh) // 100

    assert len(labels.candidates) == 200
    assert len(labels.objective) == recipe.labels.objective_contexts
    for mixed in (labels.candidates, tuning.stream):
        assert len(mixed.in_domain("objective")) / len(mixed) == pytest.approx(0.3, abs=0.01)
    assert set(tuning.test.domains) == set(labels.objective.domains) == {"objective"}


def test_the_same_seed_deals_the_same_and_another_deals_otherwise(recipe: LearnerRecipe) -> None:
    first, again = read_splits(recipe, None), read_splits(recipe, None)
    assert first == again
    assert read_splits(replace(recipe, seed=1), None) != first


def test_less_text_than_asked_for_is_used_with_a_warning(
    recipe: LearnerRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    greedy = replace(recipe, labels=replace(recipe.labels, contexts=1_000_000))
    _, tokenizer = load_base(recipe.base)
    data = labelling_data(greedy, read_splits(greedy, None), tokenizer)
    assert 200 < len(data.candidates) < 1_000_000
    assert f"the text holds {len(data.candidates)} of the 1000000 contexts" in caplog.text


def test_too_few_documents_of_the_objective_name_the_use_left_empty(tmp_path: Path) -> None:
    objective, pool = tmp_path / "wanted.txt", tmp_path / "pool.txt"
    objective.write_text(prose(WANTED, 4500, 1))  # two documents, for four uses
    pool.write_text(prose(OTHER, 40_000, 2))
    with pytest.raises(CorpusError, match=r"too few documents of 'objective'.*left for"):
        read_splits(own_recipe("x", objective, pool), None)


def test_a_pool_without_enough_documents_is_refused(recipe: LearnerRecipe, tmp_path: Path) -> None:
    pool = tmp_path / "pool.txt"
    pool.write_text(prose(OTHER, 300, 2))
    sources = (recipe.sources[0], replace(recipe.sources[1], files=str(pool)))
    small = replace(recipe, sources=sources)
    _, tokenizer = load_base(recipe.base)
    with pytest.raises(CorpusError, match="add text"):
        finetuning_data(small, read_splits(small, None), tokenizer)


@pytest.mark.parametrize("content", ["", " \n\n "])
def test_an_empty_file_is_a_corpus_error(
    recipe: LearnerRecipe, tmp_path: Path, content: str
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text(content)
    sources = (replace(recipe.sources[0], files=str(empty)), recipe.sources[1])
    with pytest.raises(CorpusError, match=r"empty\.txt"):
        read_splits(replace(recipe, sources=sources), None)


def test_own_text_gives_a_recipe_that_survives_its_file(text: tuple[Path, Path]) -> None:
    recipe = own_recipe("mine", *text)
    assert parse_recipe(recipe_toml(recipe)) == recipe
    assert recipe.evaluation.seeds == 0
    assert all(Path(str(source.files)).is_absolute() for source in recipe.sources)
    assert str(text[0]) in describe_sources(recipe.sources)


def test_a_published_recipe_names_own_text_without_the_paths_of_this_machine(
    text: tuple[Path, Path], tmp_path: Path
) -> None:
    published = portable(own_recipe("mine", *text))
    assert [source.files for source in published.sources] == ["wanted.txt", "pool.txt"]
    assert portable(published) == published
    assert read_splits(published, text[0].parent) == read_splits(own_recipe("mine", *text), None)

    twice = own_recipe("mine", tmp_path / "a" / "text.txt", tmp_path / "b" / "text.txt")
    assert [source.files for source in portable(twice).sources] == ["a/text.txt", "b/text.txt"]

    globbed = replace(published, sources=(published.sources[0], Source("b", files="b/*.txt")))
    assert portable(globbed) == globbed


def test_own_text_in_folders_is_found_below_a_corpus_folder(
    recipe: LearnerRecipe, text: tuple[Path, Path], tmp_path: Path
) -> None:
    for name, words in (("mixed [1]", OTHER), ("wanted*", WANTED)):
        (tmp_path / name / "deeper").mkdir(parents=True)
        for number in range(6):
            file = tmp_path / name / "deeper" / f"{number}.txt"
            file.write_text(prose(words, 4000, number))
    own = own_recipe("mine", tmp_path / "wanted*", tmp_path / "mixed [1]")
    assert read_splits(portable(own), tmp_path) == read_splits(own, None)


def test_a_folder_of_files_is_own_text_too(
    recipe: LearnerRecipe, text: tuple[Path, Path], tmp_path: Path
) -> None:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(prose(WANTED, 300, number))
    own = own_recipe("mine", tmp_path, text[1])
    splits = read_splits(own, None)
    found = {d.name for part in splits.values() for d in part if d.domain == "objective"}
    assert len(found) == 8
