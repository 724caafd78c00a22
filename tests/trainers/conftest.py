from __future__ import annotations

import pytest

from secondary_learners.learners.artifact import Learner
from tiny_models import learner_of_low


@pytest.fixture(scope="session")
def learner() -> Learner:
    return learner_of_low()
