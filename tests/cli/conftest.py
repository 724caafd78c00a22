from __future__ import annotations

import pytest

from cli_helpers import Tiny, learners, quick_options
from recipes_helpers import write_text
from tiny_models import write_base


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    objective, pool = write_text(tmp_path_factory.mktemp("text"))
    base = write_base(tmp_path_factory.mktemp("base"))
    out = tmp_path_factory.mktemp("runs") / "My Ships"
    made = learners("run", *quick_options(objective, pool, base), "--out", out, "--json")
    assert made.code == 0, made.err
    return Tiny(objective, pool, base, out, made)
