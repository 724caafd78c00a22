"""The floors that the benchmarks compare with are the operations torch counts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from secondary_learners.gains.labels import labeller
from secondary_learners.gains.objective import evaluation_mode
from secondary_learners.gains.rows import Rows
from secondary_learners.gains.settings import LabelSettings
from tiny_models import tiny_gpt2

PATH = Path(__file__).parents[1] / "benchmarks" / "floors.py"
specification = importlib.util.spec_from_file_location("floors", PATH)
assert specification and specification.loader
floors: Any = importlib.util.module_from_spec(specification)
sys.modules["floors"] = floors  # its dataclasses look themselves up there
specification.loader.exec_module(floors)

SIZES = floors.Sizes(layers=3, width=64, vocabulary=500, positions=32)


@pytest.fixture(scope="module")
def model() -> Any:
    # Eager attention: torch does not count what its fused kernels do on a CPU, nor what oneDNN does
    # with float32.
    sizes = {"n_positions": 32, "n_embd": 64, "n_layer": 3, "n_head": 4}
    return tiny_gpt2(500, **sizes, attn_implementation="eager").double()


def test_parameters(model: Any) -> None:
    assert sum(parameter.numel() for parameter in model.parameters()) == SIZES.parameters


@pytest.mark.parametrize(("method", "labels"), [("exact", 1), ("swapped", 5)])
def test_operations_are_those_that_torch_counts(model: Any, method: str, labels: int) -> None:
    ids = torch.randint(0, 500, (12, 20), generator=torch.Generator().manual_seed(0))
    settings = LabelSettings(method=method)
    label = labeller(model, Rows(ids[:7]), settings, batch_size=4)
    with evaluation_mode(model), FlopCounterMode(display=False) as counter:
        label.measure(Rows(ids[7 : 7 + labels]))
    floor = floors.label_floor(SIZES, method, objective=7, length=20, batch=4)
    assert counter.get_total_flops() == labels * floor.operations


def test_a_floor_is_the_slower_of_arithmetic_and_memory() -> None:
    floor = floors.Floor(operations=100, bytes=10)
    assert floor.seconds(50, 1) == 10
    assert floor.seconds(5, 100) == 20


def test_gpt2_small_by_hand() -> None:
    small = floors.Sizes(layers=12, width=768, vocabulary=50257, positions=1024)
    assert small.parameters == 124_439_808
    floor = floors.label_floor(small, "exact", objective=160, length=32, batch=333)
    per_token = 2 * (12 * 12 * 768**2 + 50257 * 768) + 12 * 4 * 32 * 768
    assert floor.operations == 163 * 32 * per_token
    weights, logits = 4 * small.parameters, 8 * 32 * 50257
    assert floor.bytes == 9 * weights + 162 * logits
