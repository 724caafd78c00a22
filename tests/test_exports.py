"""What `from secondary_learners import …` offers."""

from __future__ import annotations

import importlib
import importlib.metadata
from types import ModuleType

import pytest

import secondary_learners


def test_all_is_sorted_and_names_each_export_once() -> None:
    assert secondary_learners.__all__ == sorted(set(secondary_learners.__all__))


def test_all_equals_the_visible_names() -> None:
    for name in secondary_learners.__all__:
        getattr(secondary_learners, name)
    held = {
        name
        for name, value in vars(secondary_learners).items()
        if not isinstance(value, ModuleType) and not name.startswith("_")
    }
    assert {*held, "__version__"} == set(secondary_learners.__all__)
    assert dir(secondary_learners) == secondary_learners.__all__


@pytest.mark.parametrize("name", sorted({*secondary_learners.__all__} - {"__version__"}))
def test_each_name_is_public_where_it_is_defined(name: str) -> None:
    value = getattr(secondary_learners, name)
    assert value.__name__ == name
    assert value.__module__.startswith("secondary_learners.")
    assert name in importlib.import_module(value.__module__).__all__


def test_version_is_the_installed_one() -> None:
    assert secondary_learners.__version__ == importlib.metadata.version("secondary-learners")


def test_a_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'lod_learner'"):
        _ = secondary_learners.lod_learner  # type: ignore[attr-defined]
