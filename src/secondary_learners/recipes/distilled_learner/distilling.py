"""A small convolutional net that learns what a teacher says of many unlabelled contexts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from tqdm import tqdm

from secondary_learners.errors import DivergedError
from secondary_learners.learners.nets import ConvNet
from secondary_learners.recipes.distilled_learner.recipe import StudentPlan

__all__ = ["distil"]

_SPREAD = 0.3  # of the embeddings that training begins with: root mean square of a coordinate

Integers = npt.NDArray[np.integer]


def distil(
    input_ids: Integers,
    targets: npt.NDArray[np.floating],
    embeddings: npt.NDArray[np.floating],
    counts: npt.NDArray[np.number],
    plan: StudentPlan,
    *,
    seed: int,
    progress: bool = False,
) -> ConvNet:
    """A net that answers `targets` [n] for contexts [n, length], by AdamW on the squared error.

    embeddings: what the net's own begin as, [vocabulary, plan.embedding]; tokens that never occur
    keep theirs, which is why it may still score them. counts: how often each token occurs in text
    [vocabulary]. The global random state is left alone. Raises DivergedError for a loss that is not
    finite.
    """
    present, places = np.unique(input_ids, return_inverse=True)
    ids = torch.from_numpy(places.reshape(input_ids.shape))
    answers = torch.from_numpy(np.array(targets, np.float32))
    share = counts / counts.sum()
    spread = math.sqrt(share @ np.square(embeddings, dtype=np.float64).mean(axis=1))
    start = torch.from_numpy(np.array(embeddings * (_SPREAD / spread), np.float32))
    shape = (plan.embedding, plan.channels, plan.kernel, plan.hidden)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        small = ConvNet(len(present), *shape)
        with torch.no_grad():
            small.embedding.weight.copy_(start[present])
        others = [p for name, p in small.named_parameters() if name != "embedding.weight"]
        rates = [plan.learning_rate, plan.embedding_learning_rate]
        groups: list[dict[str, Any]] = [
            {"params": others},
            {"params": [small.embedding.weight]},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        steps = plan.epochs * math.ceil(len(ids) / plan.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rates, total_steps=steps, pct_start=0.1
        )
        mask = torch.ones(1, ids.shape[1], dtype=torch.bool)
        with tqdm(total=steps, desc="distilling", unit="step", disable=not progress) as bar:
            for _ in range(plan.epochs):
                for batch in torch.randperm(len(ids)).split(plan.batch_size):
                    prediction = small(ids[batch], mask.expand(len(batch), -1))
                    loss = functional.mse_loss(prediction, answers[batch])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    bar.update()
                if not math.isfinite(loss.item()):
                    raise DivergedError(
                        f"the student's loss is {loss.item()}. Try a lower learning_rate in the "
                        "recipe."
                    )
    with torch.device("meta"):  # no random numbers
        net = ConvNet(len(start), *shape)
    with torch.no_grad():
        start[present] = small.embedding.weight
    net.load_state_dict(small.state_dict() | {"embedding.weight": start}, assign=True)
    return net.eval()
