"""Masks as packed bits: one bit a weight, eight a byte."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["pack_bits", "packed_size", "unpack_bits"]


def packed_size(shape: Sequence[int]) -> int:
    """How many bytes a mask of this shape takes."""
    return -(-math.prod(shape) // 8)


def pack_bits(mask: Tensor) -> Tensor:
    """A boolean tensor as uint8 [bytes]: row by row, the first number in the lowest bit.

    What is left of the last byte is 0, so that equal masks have equal bytes.
    """
    flat = mask.detach().cpu().bool().contiguous().view(-1).numpy()
    return torch.from_numpy(np.packbits(flat, bitorder="little"))


def unpack_bits(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """The boolean tensor of this shape that `pack_bits` packed.

    Raises ValueError for another number of bytes, or for bits after the last number.
    """
    count = math.prod(shape)
    if packed.dtype != torch.uint8 or list(packed.shape) != [packed_size(shape)]:
        raise ValueError(
            f"{packed.dtype} {list(packed.shape)} is not a mask of {count:,} bits, which is "
            f"torch.uint8 [{packed_size(shape)}]"
        )
    bits = np.unpackbits(packed.cpu().numpy(), bitorder="little")
    if bits[count:].any():
        raise ValueError(f"there are bits after the last of {count:,}")
    return torch.from_numpy(bits[:count].astype(np.bool_)).view(*shape)
