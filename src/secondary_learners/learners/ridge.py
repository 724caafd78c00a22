"""Ridge regression on very sparse features, several at once, its strength by cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.learners.sparse import no_csr_warning
from secondary_learners.learners.targets import Targets

__all__ = ["Features", "RidgeFit", "fit_ridge", "ridge"]

# Relative to the mean squared norm of a centered context; the best is usually between 1 and 10.
_STRENGTHS = np.geomspace(0.1, 100, 10)


@dataclass(frozen=True, eq=False)
class Features:
    """A sparse float64 matrix [n, d], its transpose, and the transpose of its squares."""

    matrix: Tensor
    transposed: Tensor
    squared: Tensor

    @classmethod
    def build(cls, columns: Tensor, values: Tensor, width: int) -> Features:
        """From columns and values [n, positions]; equal columns of a row add up."""
        rows, places = values.nonzero(as_tuple=True)  # padding has no value
        where = torch.stack([rows, columns[rows, places]])
        return cls.of(where, values[rows, places], (len(columns), width))

    @classmethod
    def of(cls, where: Tensor, values: Tensor, shape: tuple[int, int]) -> Features:
        """From the row and column of each value [2, entries]; of equal places they add up."""
        matrix = torch.sparse_coo_tensor(where, values, shape, check_invariants=True).coalesce()
        transposed = matrix.t().coalesce()
        squared = torch.sparse_coo_tensor(
            transposed.indices(), transposed.values() ** 2, transposed.shape, check_invariants=True
        )
        with no_csr_warning():
            return cls(*(part.to_sparse_csr() for part in (matrix, transposed, squared)))

    def spread(self, rows: Tensor) -> Tensor:
        """The mean squared distance of these rows (bool [n]) from their mean."""
        share = (rows / rows.sum()).double().unsqueeze(1)
        return (self.squared @ share - (self.transposed @ share) ** 2).sum()


def _choose(features: Features, targets: Targets, strengths: Tensor) -> Tensor:
    """The strength with the least squared error over the folds of the training documents."""
    train, fold = torch.from_numpy(~targets.held_out), torch.from_numpy(targets.fold)
    members = [train & (fold == number) for number in fold[train].unique()]
    tested = torch.stack(members, dim=1).repeat_interleave(len(strengths), dim=1)
    trained = (train.unsqueeze(1) & ~tested).double()
    weights, bias = ridge(
        features, targets.labels, trained, strengths.repeat(len(members)), tolerance=1e-4
    )
    errors = (features.matrix @ weights + bias - targets.labels.unsqueeze(1)) ** 2 * tested
    return strengths[errors.sum(dim=0).view(len(members), -1).sum(dim=0).argmin()]


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """weights [d] and intercept, fitted on every row; predictions: of the rows held out [m]."""

    weights: Tensor
    bias: Tensor
    predictions: npt.NDArray[np.float64]
    strength: float


def fit_ridge(features: Features, targets: Targets) -> RidgeFit:
    """Ridge regression whose strength is chosen by cross-validation over documents.

    The rows held out are predicted by a regression without them; what is kept is then fitted on
    everything with the strength chosen without them.
    """
    train = torch.from_numpy(~targets.held_out)
    strengths = torch.from_numpy(_STRENGTHS) * features.spread(train)
    best = _choose(features, targets, strengths)
    # Both in one solution: for the report, and to keep.
    weights, bias = ridge(
        features,
        targets.labels,
        torch.stack([train, torch.ones_like(train)], dim=1).double(),
        best.expand(2),
    )
    predictions = (features.matrix @ weights[:, :1] + bias[0])[~train, 0].numpy()
    return RidgeFit(weights[:, 1], bias[1], predictions, float(best))


def ridge(
    features: Features,
    labels: Tensor,
    rows: Tensor,
    strengths: Tensor,
    tolerance: float = 1e-10,
) -> tuple[Tensor, Tensor]:
    """k ridge regressions at once: weights [d, k] and intercepts [k], in float64.

    rows: 1.0 for the contexts that each regression uses, else 0.0 [n, k]. strengths: [k].

    Minimises |y - Xw - b|^2 + strength |w|^2 over its rows. Conjugate gradients, preconditioned by
    the diagonal, take a few dozen products with a very sparse X: far less than any factorisation.
    """
    sizes = rows.sum(dim=0)

    def centered(values: Tensor) -> Tensor:
        used = values * rows
        return used - rows * (used.sum(dim=0) / sizes)

    def normal(weights: Tensor) -> Tensor:
        return features.transposed @ centered(features.matrix @ weights) + strengths * weights

    diagonal = features.squared @ rows - (features.transposed @ rows) ** 2 / sizes + strengths
    residual = features.transposed @ centered(labels.unsqueeze(1))
    limit = tolerance * residual.norm(dim=0)
    weights = torch.zeros_like(residual)
    direction = residual / diagonal
    product = (residual * direction).sum(dim=0)
    for _ in range(2000):
        if bool((residual.norm(dim=0) <= limit).all()):
            break
        image = normal(direction)
        # A finished regression has nothing left to divide by.
        step = (product / (direction * image).sum(dim=0)).nan_to_num(0.0, 0.0, 0.0)
        weights += step * direction
        residual -= step * image
        scaled = residual / diagonal
        before, product = product, (residual * scaled).sum(dim=0)
        direction = scaled + (product / before).nan_to_num(0.0, 0.0, 0.0) * direction
    else:
        raise SecondaryLearnersError(
            "the ridge regression did not converge in 2,000 steps. Check the labels for outliers."
        )
    prediction = features.matrix @ weights
    return weights, ((labels.unsqueeze(1) - prediction) * rows).sum(dim=0) / sizes
