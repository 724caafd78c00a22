"""Dealing whole documents to parts, so that few and unequal ones still come out near the shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["deal"]


def deal(sizes: Sequence[int], shares: Sequence[float], *, seed: int) -> npt.NDArray[np.int64]:
    """The part [documents] that each document goes to, a position in `shares`.

    sizes: of the documents, in any unit. In a seeded order each document goes to the part that is
    furthest below its share.
    """
    filled = [0] * len(shares)
    parts = np.empty(len(sizes), dtype=np.int64)
    for document in np.random.default_rng([seed, len(sizes)]).permutation(len(sizes)):
        part = min(range(len(shares)), key=lambda i: filled[i] / shares[i])
        parts[document] = part
        filled[part] += sizes[document]
    return parts
