from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.deltas.bits import pack_bits, packed_size, unpack_bits

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=3)


@given(SHAPES, st.integers(0, 2**32))
def test_masks_come_back(shape: list[int], seed: int) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    packed = pack_bits(mask)
    assert packed.numel() == packed_size(shape) == -(-mask.numel() // 8)
    assert torch.equal(unpack_bits(packed, shape), mask)
    assert torch.equal(pack_bits(unpack_bits(packed, shape)), packed)


def test_the_layout_is_fixed() -> None:
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]], dtype=torch.bool)
    assert pack_bits(mask).tolist() == [0b10000101, 0b0010]
    assert pack_bits(mask.T).tolist() == pack_bits(mask.T.contiguous()).tolist()


@pytest.mark.parametrize(
    "packed",
    [
        torch.zeros(1, dtype=torch.uint8),
        torch.zeros(3, dtype=torch.uint8),
        torch.zeros(2, dtype=torch.int8),
        torch.tensor([0, 0b10000], dtype=torch.uint8),
    ],
)
def test_other_bytes_are_refused(packed: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="bits"):
        unpack_bits(packed, (3, 4))
