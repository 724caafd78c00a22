"""The bundled recipes on the real corpora, where those are beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from secondary_learners.recipes.gain_learner.data import read_splits
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.text.corpus import read_documents

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not (DATA / "books.tar.xz").is_file(), reason="the corpora are not beside this checkout"
)


def test_books_and_general_text_are_split_by_whole_documents() -> None:
    recipe = find_recipe("books-mini")
    assert isinstance(recipe, LearnerRecipe)
    documents = read_documents(recipe.sources, DATA)
    books = [document for document in documents if document.domain == "books"]
    assert len(books) == 84
    for document in documents:
        assert not set("\n\t\u2019\u201c") & set(document.text), document.name
    splits = read_splits(recipe, DATA)
    names = [(d.domain, d.name) for part in splits.values() for d in part]
    assert len(names) == len(set(names)) == len(documents)
    sizes = {
        name: sum(len(d.text) for d in part if d.domain == "books") for name, part in splits.items()
    }
    assert sizes["labels"] / sum(sizes.values()) == pytest.approx(recipe.split.labels, abs=0.05)
