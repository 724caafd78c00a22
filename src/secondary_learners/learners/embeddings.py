"""Embeddings of tokens from what stands beside them: no language model, one core, seconds.

Positive pointwise mutual information of tokens and neighbors, with smoothed neighbors (Levy,
Goldberg and Dagan, 2015), factorised by a randomised SVD (Halko, Martinsson and Tropp, 2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.learners.sparse import no_csr_warning

__all__ = ["token_embeddings"]

# Neighbors at these distances are counted together: before, after, and further on either side.
_DISTANCES = ((-1,), (1,), (-4, -3, -2, 2, 3, 4))
_SMOOTHING = 0.75  # the power of the neighbors' counts
_RARE = 4.0  # a token seen this often gets half of its squared length
_OVERSAMPLING, _ITERATIONS = 32, 3

Integers = npt.NDArray[np.integer]


def token_embeddings(
    sequences: Sequence[tuple[Integers, float]],
    *,
    vocabulary: int,
    dimensions: int,
    neighbors: int,
    seed: int = 0,
) -> npt.NDArray[np.float32]:
    """An embedding of each token of the vocabulary [vocabulary, dimensions], float32.

    sequences: token ids [rows, length] and the weight that each of their pairs counts with; no
        pair crosses from one row into the next. neighbors: how many of the most frequent tokens
        count as neighbors. The mean over the tokens as they occur is 0; tokens that never occur
        have the zero vector less that mean. The same input gives the same numbers.

    Raises SecondaryLearnersError for fewer neighbors or tokens than dimensions.
    """
    counts = sum(np.bincount(ids.reshape(-1), minlength=vocabulary) for ids, _ in sequences)
    assert isinstance(counts, np.ndarray)
    met = int((counts > 0).sum())
    columns = np.argsort(-counts, kind="stable")[: min(neighbors, met)]
    if min(len(columns) * len(_DISTANCES), met) < dimensions + _OVERSAMPLING:
        raise SecondaryLearnersError(
            f"{dimensions} dimensions need {dimensions + _OVERSAMPLING} different tokens, and the "
            f"text has {met}. Add text, or lower `dimensions` in the recipe."
        )
    column = np.full(vocabulary, -1)
    column[columns] = np.arange(len(columns))
    parts = [_information(*_pairs(sequences, d, column, len(columns))) for d in _DISTANCES]
    rows = np.concatenate([keys // len(columns) for keys, _ in parts])
    places = np.concatenate([k % len(columns) + i * len(columns) for i, (k, _) in enumerate(parts)])
    values = np.concatenate([information for _, information in parts])
    # The fewer a token's neighbors, the more of its information is chance.
    values *= np.sqrt(counts / (counts + _RARE))[rows]
    shape = (vocabulary, len(columns) * len(_DISTANCES))
    table = _factors(
        _csr(rows, places, values, shape), _csr(places, rows, values, shape[::-1]), dimensions, seed
    )
    mean = torch.from_numpy(counts / counts.sum()).float() @ table
    embeddings: npt.NDArray[np.float32] = (table - mean).numpy()
    return embeddings


def _pairs(
    sequences: Sequence[tuple[Integers, float]],
    distances: Sequence[int],
    column: npt.NDArray[np.int64],
    width: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], int]:
    """The pairs of a token and a neighbor as token * width + column, their weights, the width."""
    keys, weights = [], []
    for ids, weight in sequences:
        for distance in distances:
            end = ids.shape[1]
            token = ids[:, max(0, -distance) : end - max(0, distance)].reshape(-1)
            neighbor = column[ids[:, max(0, distance) : end - max(0, -distance)].reshape(-1)]
            known = neighbor >= 0
            pair, times = np.unique(
                token[known].astype(np.int64) * width + neighbor[known], return_counts=True
            )
            keys.append(pair)
            weights.append(weight * times)
    pairs, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    together = np.bincount(inverse, weights=np.concatenate(weights))
    return pairs, together.astype(np.float64), width


def _information(
    keys: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The positive pointwise mutual information of pairs; those that have none are left out."""
    token, column = np.divmod(keys, width)
    total = weights.sum()
    tokens = np.bincount(token, weights=weights)
    neighbors = np.bincount(column, weights=weights, minlength=width) ** _SMOOTHING
    neighbors *= total / neighbors.sum()
    information = np.log(weights * total / (tokens[token] * neighbors[column]))
    information *= np.sqrt(weights / (weights + 1))  # one meeting may be chance
    positive = information > 0
    return keys[positive], information[positive]


def _csr(
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    shape: tuple[int, int],
) -> Tensor:
    where = torch.from_numpy(np.stack([rows, columns]))
    matrix = torch.sparse_coo_tensor(
        where, torch.from_numpy(values).float(), shape, check_invariants=True
    )
    with no_csr_warning():
        return matrix.coalesce().to_sparse_csr()


def _factors(matrix: Tensor, transposed: Tensor, rank: int, seed: int) -> Tensor:
    """The left factor U sqrt(S) of the best approximation of this rank [rows, rank]."""
    random = torch.Generator().manual_seed(seed)
    start = torch.randn(matrix.shape[1], rank + _OVERSAMPLING, generator=random)
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(matrix @ (transposed @ basis)).Q
    left, scale, _ = torch.linalg.svd((transposed @ basis).T, full_matrices=False)
    factors: Tensor = (basis @ left)[:, :rank] * scale[:rank].sqrt()
    return factors
