"""Models and learners so small that a test makes them."""

from __future__ import annotations

import numpy as np
import torch

from secondary_learners.learners.artifact import Learner
from secondary_learners.learners.config import Calibration, LearnerConfig, Reference, Score
from secondary_learners.learners.nets import LinearNet

VOCABULARY = 64


def learner_of_low() -> Learner:
    """Likes "low": its score is about +1.5 there and about -0.6 elsewhere."""
    net = LinearNet(VOCABULARY, counts="frequency")
    with torch.no_grad():
        net.weight[:32] = 1.0
        net.weight += 0.05 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1))
    return Learner(
        LearnerConfig(
            name="tiny",
            architecture="linear",
            sizes={"vocabulary": VOCABULARY, "bigrams": 0, "counts": "frequency"},
            score=Score(0.0, 1.0, "nats per token"),
            calibration=Calibration(0.3, 0.46, tuple(np.linspace(0, 1, 101).tolist())),
            context_length=8,
            base_model=Reference("tiny/base", None, "0" * 64),
            tokenizer=Reference("tiny/base", None, "0" * 64),
            objective={},
            corpus={},
            optimizer={},
            labels={},
            versions={},
        ),
        net,
    )
