"""What all tests share. Fixtures import when they are asked for: many tests need no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from secondary_learners.learners.artifact import Learner

# Before anything imports transformers, whose bars would be in the output that tests compare.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the registries and records of whoever runs it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECONDARY_LEARNERS_HOME", str(home))
        for name in ("SECONDARY_LEARNERS_LOCK", "SECONDARY_LEARNERS_LOCKED"):
            patch.delenv(name, raising=False)
        yield home


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base model with its tokenizer."""
    from tiny_models import write_base

    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def model() -> PreTrainedModel:
    """A GPT-2 to measure gains of: in train mode, and with dropout, which must be turned off."""
    from gains_helpers import VOCABULARY
    from tiny_models import tiny_gpt2

    model: PreTrainedModel = tiny_gpt2(VOCABULARY, seed=3, n_positions=24)
    return model


@pytest.fixture(scope="session")
def learner() -> Learner:
    """A learner that likes the lower half of its vocabulary."""
    from tiny_models import learner_of_low

    return learner_of_low()
