"""A weight for each token and each hashed pair of neighbors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from secondary_learners.learners.config import check_buckets, check_counts, check_vocabulary

if TYPE_CHECKING:
    from secondary_learners.learners.fitting import Fit
    from secondary_learners.learners.nets import Net

__all__ = ["SIZES", "build", "fit", "options"]

SIZES = {"vocabulary": check_vocabulary, "bigrams": check_buckets, "counts": check_counts}


def build(sizes: Mapping[str, Any]) -> Net:
    from secondary_learners.learners.nets import LinearNet

    return LinearNet(**sizes)


def fit(*data: Any, **options: Any) -> Fit:
    from secondary_learners.learners.fitting import fit_linear

    return fit_linear(*data, **options)


def options(plan: Any) -> dict[str, int | str]:
    return {"bigrams": plan.bigrams, "counts": plan.counts}
