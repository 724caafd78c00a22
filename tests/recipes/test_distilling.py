from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from secondary_learners.errors import DivergedError
from secondary_learners.learners.nets import ConvNet
from secondary_learners.learners.statistics import spearman
from secondary_learners.recipes.distilled_learner.distilling import distil
from secondary_learners.recipes.distilled_learner.recipe import StudentPlan

VOCABULARY, LENGTH = 30, 8
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(0, VOCABULARY - 5, (600, LENGTH))
WORTH = RANDOM.normal(size=VOCABULARY)
TARGETS = np.tanh(WORTH[IDS].mean(axis=1) * 2)
EMBEDDINGS = np.c_[WORTH, RANDOM.normal(size=(VOCABULARY, 3))].astype(np.float32)
COUNTS = np.bincount(IDS.ravel(), minlength=VOCABULARY)
PLAN = StudentPlan(
    embedding=4,
    channels=12,
    hidden=8,
    epochs=12,
    batch_size=32,
    learning_rate=1e-2,
    embedding_learning_rate=3e-3,
)


def student(seed: int = 0, **changes: float) -> ConvNet:
    return distil(IDS, TARGETS, EMBEDDINGS, COUNTS, replace(PLAN, **changes), seed=seed)  # type: ignore[arg-type]


def answers(net: ConvNet, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        rows = torch.from_numpy(ids)
        return net(rows, torch.ones_like(rows, dtype=torch.bool)).numpy()


def test_the_student_says_what_the_teacher_said_of_contexts_that_it_never_met() -> None:
    net = student()
    unseen = RANDOM.integers(0, VOCABULARY - 5, (300, LENGTH))
    expected = np.tanh(WORTH[unseen].mean(axis=1) * 2)
    assert spearman(expected, answers(net, unseen)) > 0.9
    # Tokens that it never met begin where their likes do, and stay there.
    spread = np.sqrt(COUNTS / COUNTS.sum() @ (EMBEDDINGS.astype(np.float64) ** 2).mean(axis=1))
    kept = net.embedding.weight.detach().numpy()[VOCABULARY - 5 :]
    np.testing.assert_allclose(kept, EMBEDDINGS[VOCABULARY - 5 :] * 0.3 / spread, rtol=1e-5)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_one() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = (student(epochs=1).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = student(epochs=1, seed=1).state_dict()
    assert not torch.equal(first["output.weight"], other["output.weight"])


def test_a_loss_that_is_no_number_is_explained() -> None:
    with pytest.raises(DivergedError, match="Try a lower learning_rate"):
        student(learning_rate=1e18, embedding_learning_rate=1e18, epochs=3)
