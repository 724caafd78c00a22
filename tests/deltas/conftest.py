from __future__ import annotations

import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedModel

from secondary_learners.deltas.artifact import Delta, Origin, make_delta
from secondary_learners.deltas.layers import backbone_weights, freeze_except
from secondary_learners.deltas.making import fine_tune
from secondary_learners.deltas.settings import Training, Tuning
from secondary_learners.learners.config import Reference
from secondary_learners.tasks.classifier import classifier
from secondary_learners.tasks.encoding import Encoded
from tiny_models import tiny_gpt2

LAYERS = ("transformer.h.0.mlp.c_fc.weight", "transformer.h.1.attn.c_attn.weight")


@pytest.fixture(scope="session")
def base() -> GPT2LMHeadModel:
    # 20 wide, so that no number of weights is a multiple of 64
    return tiny_gpt2(n_embd=20).eval()


@pytest.fixture(scope="session")
def examples() -> Encoded:
    """The label says whether token 7 is in it."""
    generator = torch.Generator().manual_seed(1)
    ids, labels = [], []
    for number in range(120):
        tokens = torch.randint(10, 64, (4 + number % 5,), generator=generator).tolist()
        if number % 2:
            tokens[number % 3] = 7
        ids.append(tuple(tokens))
        labels.append(number % 2)
    return Encoded(tuple(ids), tuple(labels), ("no", "yes"))


@pytest.fixture
def model(base: PreTrainedModel) -> PreTrainedModel:
    return classifier(base, 2)


FAST = Training(epochs=3, batch_size=10, learning_rate=3e-3, score_learning_rate=0.3)


@pytest.fixture(scope="session")
def tuned(base: PreTrainedModel, examples: Encoded) -> dict[str, PreTrainedModel]:
    """A classifier of each kind after a little training; the mask is not merged."""
    mask = Tuning(kind="mask", sparsity=0.2, training=FAST)
    layers = Tuning(kind="layers", training=FAST)
    return {
        "mask": fine_tune(base, examples, mask, layers=LAYERS).model,
        "layers": fine_tune(base, examples, layers, layers=LAYERS).model,
    }


@pytest.fixture(scope="session")
def deltas(base: PreTrainedModel, tuned: dict[str, PreTrainedModel]) -> dict[str, Delta]:
    return {
        kind: make_delta(
            base,
            model,
            Origin(
                name=f"tiny-{kind}",
                base_model=("tiny", None),
                tokenizer=Reference("tiny", None, "0" * 64),
            ),
            classes=["no", "yes"],
            stored="float32",
        )
        for kind, model in tuned.items()
    }


@pytest.fixture
def trainable(model: PreTrainedModel) -> PreTrainedModel:
    freeze_except(model, list(backbone_weights(model)))
    return model
