from __future__ import annotations

import math

import numpy as np
import pytest

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.learners.embeddings import token_embeddings

VOCABULARY = 60
RANDOM = np.random.default_rng(1)
SHARE = 1 / np.arange(1, VOCABULARY)  # the last token never occurs
TEXT = RANDOM.choice(VOCABULARY - 1, (1, 3000), p=SHARE / SHARE.sum())
ROWS = RANDOM.choice(VOCABULARY - 1, (20, 8), p=SHARE / SHARE.sum())
SEQUENCES = [(TEXT, 1.0), (ROWS, 3.0)]


def plain_table(neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """The weighted information of tokens and neighbors, from loops, and the tokens' counts."""
    counts = np.zeros(VOCABULARY)
    for ids, _ in SEQUENCES:
        for row in ids:
            for token in row:
                counts[token] += 1
    columns = list(np.argsort(-counts, kind="stable")[:neighbors])
    blocks = []
    for distances in ((-1,), (1,), (-4, -3, -2, 2, 3, 4)):
        met = np.zeros((VOCABULARY, neighbors))
        for ids, weight in SEQUENCES:
            for row in ids.tolist():
                for i, token in enumerate(row):
                    for distance in distances:
                        if 0 <= i + distance < len(row) and row[i + distance] in columns:
                            met[token, columns.index(row[i + distance])] += weight
        total, tokens = met.sum(), met.sum(axis=1)
        smooth = met.sum(axis=0) ** 0.75
        smooth *= total / smooth.sum()
        block = np.zeros_like(met)
        for t, c in zip(*np.nonzero(met), strict=True):
            information = math.log(met[t, c] * total / (tokens[t] * smooth[c]))
            block[t, c] = max(0.0, information) * math.sqrt(met[t, c] / (met[t, c] + 1))
        blocks.append(block)
    return np.hstack(blocks) * np.sqrt(counts / (counts + 4))[:, None], counts


def test_embeddings_are_the_singular_vectors_of_the_information() -> None:
    dimensions = 3
    found = token_embeddings(
        SEQUENCES, vocabulary=VOCABULARY, dimensions=dimensions, neighbors=40
    ).astype(np.float64)
    table, counts = plain_table(40)
    left, scale, _ = np.linalg.svd(table, full_matrices=False)
    expected = left[:, :dimensions] * np.sqrt(scale[:dimensions])
    expected -= counts @ expected / counts.sum()
    # Each vector has a sign of its own, so products are compared.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=2e-3 * scale[0])
    np.testing.assert_allclose(counts @ found / counts.sum(), 0, atol=1e-5)


def test_the_same_text_gives_the_same_bytes() -> None:
    common = {"vocabulary": VOCABULARY, "dimensions": 3, "neighbors": 40}
    once = token_embeddings(SEQUENCES, **common)
    assert once.tobytes() == token_embeddings(SEQUENCES, **common).tobytes()
    assert once.shape == (VOCABULARY, 3)
    assert np.isfinite(once).all()


def test_too_few_tokens_are_explained() -> None:
    with pytest.raises(SecondaryLearnersError, match=r"need 132 different tokens.*has 59"):
        token_embeddings(SEQUENCES, vocabulary=VOCABULARY, dimensions=100, neighbors=40)
