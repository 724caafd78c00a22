"""Embedded tokens, one convolution, and what is largest and what is usual of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from secondary_learners.learners.config import check_kernel, check_vocabulary, check_width

if TYPE_CHECKING:
    from secondary_learners.learners.fitting import Fit
    from secondary_learners.learners.nets import Net

__all__ = ["SIZES", "build", "fit", "options"]

SIZES = {
    "vocabulary": check_vocabulary,
    "embedding": check_width,
    "channels": check_width,
    "kernel": check_kernel,
    "hidden": check_width,
}


def build(sizes: Mapping[str, Any]) -> Net:
    from secondary_learners.learners.nets import ConvNet

    return ConvNet(**sizes)


def fit(*data: Any, **options: Any) -> Fit:
    from secondary_learners.learners.fitting import fit_conv

    return fit_conv(*data, **options)


def options(plan: Any) -> dict[str, int | str]:
    return {} if plan.embedding is None else {"embedding": plan.embedding}
