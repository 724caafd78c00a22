"""A teacher for small learners: kernel ridge regression on whole contexts, exact and slow.

The gain of a context goes with the share of its gradient that each token gets, so contexts are
compared by angle: the arc-cosine kernel of order 1 (Cho and Saul, 2009) of the cosine between their
features. A learner cannot ship it, as it keeps every labelled context; it can be taught by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.learners.nets import pair_buckets, row_counts
from secondary_learners.learners.sparse import no_csr_warning

__all__ = ["ContextKernel", "KernelRidge", "arc_cosine", "fit_kernel_ridge", "position_waves"]

# Chosen for wikitext-gpt2 by cross-validation. The features of a context are weighted by these
# powers of the frequency of their token or pair, and c occurrences count as c to the second power.
_WEIGHT, _TOKENS, _PAIRS = 0.25, 0.6, 0.5
_OWN = 20.0  # a token of the labelled contexts counts as so many of other text
_BUCKETS = 2**18  # of hashed pairs
_REACH, _WAVES = 6.0, 5  # positions: how far their likeness goes, and how many functions of them
# Mean squared length of the four kinds: tokens, pairs, tokens by position, embeddings.
_SHARES = (1.0, 0.35, 0.35, 0.3)
# Features in more than this share of the contexts are a dense matrix, where products are cheaper.
_FREQUENT = 0.03
_BLOCK = 1024  # contexts at a time

Integers = npt.NDArray[np.integer]


def position_waves(length: int) -> Tensor:
    """Smooth functions of the position [length, at most 5], float64, longest first.

    The leading eigenvectors of exp(-|i - j| / 6), each as long as the root of its eigenvalue.
    """
    place = torch.arange(length, dtype=torch.float64)
    likeness = torch.exp(-(place[:, None] - place[None]).abs() / _REACH)
    values, vectors = torch.linalg.eigh(likeness)
    waves: Tensor = (vectors * values.clamp(min=0).sqrt()).flip(1)[:, :_WAVES]
    return waves


def arc_cosine(cosine: Tensor) -> Tensor:
    """The arc-cosine kernel of order 1 of vectors with this cosine, between 0 and 1."""
    cosine = cosine.clamp(-1, 1)
    root = (1 - cosine.square()).sqrt()
    return (root + (math.pi - cosine.arccos()) * cosine) / math.pi


class ContextKernel:
    """The kernel between any contexts and the ones it was made with. All contexts are as long.

    input_ids: int64 [n, length], the labelled contexts. counts: how often each token occurs in
    other text [vocabulary]. embeddings: of the tokens [vocabulary, dimensions].
    """

    def __init__(
        self,
        input_ids: Integers,
        counts: npt.NDArray[np.number],
        embeddings: npt.NDArray[np.floating],
    ) -> None:
        self.input_ids = torch.from_numpy(np.array(input_ids, np.int64))
        self._vocabulary = len(counts)
        self._embeddings = torch.from_numpy(np.array(embeddings, np.float32))
        own = torch.bincount(self.input_ids.flatten(), minlength=self._vocabulary)
        total = torch.from_numpy(np.array(counts, np.float64)) + _OWN * own
        self._weights = (((total + 1) / total.sum()) ** _WEIGHT).float()
        pairs = torch.bincount(pair_buckets(self.input_ids, _BUCKETS).flatten(), minlength=_BUCKETS)
        self._pair_weights = ((pairs + 1.0) ** _WEIGHT).float()
        self._waves = position_waves(self.input_ids.shape[1]).float()
        self._scales = torch.ones(4)
        self._scales = self._equal_scales()
        sparse, dense = self._features(self.input_ids)
        contexts = torch.bincount(sparse.indices()[1], minlength=sparse.shape[1])
        frequent = contexts > _FREQUENT * len(self.input_ids)
        self._slot = torch.where(frequent, frequent.cumsum(0) - 1, -1)
        self._lengths = _lengths(sparse, dense)
        self._dense, rare = self._divide(sparse, dense)
        self._rare = rare.t().coalesce()

    def __len__(self) -> int:
        return len(self.input_ids)

    def __call__(self, input_ids: Tensor) -> Tensor:
        """Similarity, from 0 to 1, of contexts [m, length] with its own: float32 [m, n]."""
        sparse, dense = self._features(input_ids)
        left, rare = self._divide(sparse, dense)
        product = left @ self._dense.T
        with no_csr_warning():
            product += torch.sparse.mm(rare, self._rare).to_dense()
        return arc_cosine(product / _lengths(sparse, dense)[:, None] / self._lengths)

    def _equal_scales(self) -> Tensor:
        """What makes the mean squared lengths those of `_SHARES`."""
        sparse, dense = self._features(self.input_ids)
        kind = torch.bucketize(
            sparse.indices()[1],
            torch.tensor([self._vocabulary, self._vocabulary + _BUCKETS]),
            right=True,
        )
        squares = torch.bincount(kind, weights=sparse.values().double().square(), minlength=3)
        squares = torch.cat([squares, dense.double().square().sum().view(1)])
        return (torch.tensor(_SHARES) * len(self.input_ids) / squares).sqrt().float()

    def _features(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens, pairs and tokens by position, sparse [m, columns]; embeddings [m, dimensions]."""
        if ids.shape[1] != len(self._waves):
            raise SecondaryLearnersError(
                f"contexts of {ids.shape[1]} tokens were given to a kernel on contexts of "
                f"{len(self._waves)}. Cut the text again."
            )
        scales, weights = self._scales, self._weights[ids]
        counts = row_counts(ids).float()
        pairs = pair_buckets(ids, _BUCKETS)
        # Equal columns of a row add up, and so c occurrences give c times c ** (power - 1).
        values = [
            scales[0] * weights * counts ** (_TOKENS - 1),
            scales[1] * self._pair_weights[pairs] * row_counts(pairs).float() ** (_PAIRS - 1),
            scales[2] * (weights[:, :, None] * self._waves).flatten(1),
        ]
        start = self._vocabulary + _BUCKETS
        waves = start + self._vocabulary * torch.arange(self._waves.shape[1])
        by_position = (ids[:, :, None] + waves).flatten(1)
        columns = torch.cat([ids, self._vocabulary + pairs, by_position], dim=1)
        width = start + self._vocabulary * self._waves.shape[1]
        rows = torch.arange(len(ids)).unsqueeze(1).expand_as(columns)
        where = torch.stack([rows.flatten(), columns.flatten()])
        sparse = _sparse(where, torch.cat(values, dim=1).flatten(), (len(ids), width))
        embedded = self._embeddings[ids] * counts.rsqrt().unsqueeze(2)
        return sparse.coalesce(), scales[3] * embedded.sum(dim=1)

    def _divide(self, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """The frequent features beside the dense ones, and the others as they were."""
        (rows, columns), values = sparse.indices(), sparse.values()
        slot = self._slot[columns]
        frequent = slot >= 0
        left = torch.zeros(len(dense), int(self._slot.max()) + 1)
        left[rows[frequent], slot[frequent]] = values[frequent]
        where = torch.stack([rows, columns])[:, ~frequent]
        rare = _sparse(where, values[~frequent], (sparse.shape[0], sparse.shape[1]))
        return torch.cat([left, dense], dim=1), rare


def _sparse(where: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(where, values, shape, check_invariants=True)


def _lengths(sparse: Tensor, dense: Tensor) -> Tensor:
    squares = dense.square().sum(dim=1)
    return squares.index_add(0, sparse.indices()[0], sparse.values().square()).sqrt()


@dataclass(frozen=True, eq=False)
class KernelRidge:
    """Several regressions on one kernel. dual: float32 [n, fits]; means: of their labels [fits]."""

    kernel: ContextKernel
    dual: Tensor
    means: Tensor

    def predict(self, input_ids: Integers, *, progress: bool = False) -> npt.NDArray[np.float32]:
        """What each regression says of contexts [m, length]: float32 [m, fits]."""
        blocks = torch.from_numpy(np.array(input_ids, np.int64)).split(_BLOCK)
        bar = tqdm(blocks, desc="teaching", unit="block", disable=not progress)
        parts = [self.kernel(block) @ self.dual + self.means for block in bar]
        predictions: npt.NDArray[np.float32] = torch.cat(parts).numpy()
        return predictions


def fit_kernel_ridge(
    kernel: ContextKernel, labels: npt.NDArray[np.floating], fold: Integers, *, strength: float
) -> KernelRidge:
    """Kernel ridge on all labels [n], and then once without each of the folds 0, 1, ... [n].

    Minimises |y - m - K a|^2 + strength a'Ka with m the mean of the labels used.
    """
    gram = torch.cat([kernel(block) for block in kernel.input_ids.split(_BLOCK)])
    targets, part = torch.from_numpy(np.array(labels, np.float32)), torch.from_numpy(fold)
    used = [torch.ones_like(part, dtype=torch.bool)]
    used += [part != number for number in range(int(part.max()) + 1)]
    dual, means = torch.zeros(len(kernel), len(used)), torch.zeros(len(used))
    for fit, chosen in enumerate(used):
        rows = chosen.nonzero().squeeze(1)
        matrix = gram[rows][:, rows]
        matrix.diagonal().add_(strength)
        means[fit] = targets[rows].mean()
        factor = torch.linalg.cholesky(matrix)
        dual[rows, fit] = torch.cholesky_solve((targets[rows] - means[fit])[:, None], factor)[:, 0]
    return KernelRidge(kernel, dual, means)
