"""A weight for each hashed word of a text and each hashed run of three of its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from secondary_learners.learners.config import check_buckets, check_word_buckets

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from secondary_learners.learners.hashed_text import HashedText

__all__ = ["SIZES", "build", "shapes"]

SIZES = {"words": check_word_buckets, "grams": check_buckets}


def shapes(sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {"weight": (sizes["words"] + sizes["grams"],), "bias": ()}


def build(
    sizes: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[np.float32]], length: int
) -> HashedText:
    from secondary_learners.learners.hashed_text import HashedText

    bias = float(tensors["bias"])
    return HashedText(tensors["weight"], bias, words=sizes["words"], length=length)
