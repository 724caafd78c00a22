"""A classifier on a pretrained backbone, with a new head."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor

from secondary_learners.errors import SecondaryLearnersError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Backbone", "Head", "classifier"]

_DROPOUTS = ("embd_pdrop", "resid_pdrop", "attn_pdrop")


@dataclass(frozen=True)
class Head:
    """What a classifier has beside its backbone.

    classes: how many. seed: the new layers are drawn from it, and nothing else is. pad: the token
    to pad with, by default the backbone's own, or the one that ends a text. dropout: of the
    backbone, by default as it is.
    """

    classes: int
    seed: int = 0
    pad: int | None = None
    dropout: float | None = None


@dataclass(frozen=True)
class Backbone:
    """The pretrained layers without any head, in float32, for processes that start from them."""

    config: Any
    weights: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Backbone:
        """Of any model of transformers; its own head, such as a language model's, is left out."""
        weights: dict[str, npt.NDArray[Any]] = {
            name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy().copy()
            for name, tensor in model.base_model.state_dict().items()
        }
        return cls(copy.deepcopy(model.config), weights)

    def classifier(self, head: Head) -> PreTrainedModel:
        """A new classifier on the CPU; raises as the function `classifier`."""
        # numpy memory is shared with no one: load_state_dict copies.
        weights = {name: torch.from_numpy(array) for name, array in self.weights.items()}
        return _classifier(self.config, weights, head, torch.float32)


def classifier(base: PreTrainedModel, classes: int, *, seed: int = 0) -> PreTrainedModel:
    """A sequence classifier on a copy of the weights of `base`, its head drawn from `seed`.

    Raises SecondaryLearnersError when transformers has none for this kind of model.
    """
    model = _classifier(base.config, base.base_model.state_dict(), Head(classes, seed), base.dtype)
    torch.nn.Module.to(model, base.device)  # PreTrainedModel.to lost its types
    return model


def _classifier(
    config: Any, weights: Mapping[str, Tensor], head: Head, dtype: torch.dtype
) -> PreTrainedModel:
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(config)
    config.num_labels = head.classes
    config.problem_type = "single_label_classification"
    if head.pad is not None:
        config.pad_token_id = head.pad
    elif config.pad_token_id is None:
        end = config.eos_token_id
        config.pad_token_id = end[0] if isinstance(end, list) else end
    if head.dropout is not None:
        for name in _DROPOUTS:
            setattr(config, name, head.dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(head.seed)
        try:
            model: PreTrainedModel = AutoModelForSequenceClassification.from_config(
                config, dtype=dtype
            )
        except ValueError as error:
            raise SecondaryLearnersError(
                f"transformers has no classifier for a {config.model_type} model: {error}"
            ) from error
    loaded = model.base_model.load_state_dict(weights, strict=False)
    if loaded.unexpected_keys:
        raise SecondaryLearnersError(
            f"the classifier of {config.model_type} has no place for the base model's "
            f"{', '.join(loaded.unexpected_keys[:3])}. Give the base model itself."
        )
    model.eval()
    return model
