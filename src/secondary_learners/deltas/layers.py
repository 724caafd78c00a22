"""Which weights are tuned: their names, freezing the others, parameter groups for optimizers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "backbone_prefix",
    "backbone_weights",
    "freeze_except",
    "head_weights",
    "is_scores",
    "matching",
    "owner_of",
    "parameter_groups",
    "plain_name",
]

_PARAMETRISED = re.compile(r"parametrizations\.([^.]+)\.original$")


def plain_name(name: str) -> str:
    """The name that a weight has without masks: of "….parametrizations.weight.original", too."""
    return _PARAMETRISED.sub(r"\1", name)


def backbone_prefix(model: PreTrainedModel) -> str:
    """What the names of the backbone's weights begin with in `model`."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def backbone_weights(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The pretrained parameters by their plain names in `model`, without any head or scores."""
    prefix = backbone_prefix(model)
    return {
        plain_name(name): parameter
        for name, parameter in model.named_parameters()
        if name.startswith(prefix) and not is_scores(name)
    }


def head_weights(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The parameters outside the backbone: what a task adds, such as `score.weight`."""
    prefix = backbone_prefix(model)
    return {
        plain_name(name): parameter
        for name, parameter in model.named_parameters()
        if not name.startswith(prefix) and not is_scores(name)
    }


def is_scores(name: str) -> bool:
    """Whether a parameter of this name is what a mask is learnt by."""
    return ".parametrizations." in f".{name}" and name.endswith(".scores")


def matching(names: Iterable[str], patterns: Iterable[str]) -> tuple[str, ...]:
    """The names in which any of the regular expressions is found, in their order.

    Raises UnknownNameError for a pattern that is found in none, and SecondaryLearnersError for one
    that is not a regular expression.
    """
    names, chosen = list(names), set()
    for pattern in patterns:
        try:
            matches = [name for name in names if re.search(pattern, name)]
        except re.error as error:
            raise SecondaryLearnersError(
                f"{pattern!r} is not a regular expression: {error}. Try one such as `mlp.*weight`."
            ) from error
        if not matches:
            raise UnknownNameError("layer", pattern, names, "learners delta distances")
        chosen.update(matches)
    return tuple(name for name in names if name in chosen)


def owner_of(model: nn.Module, name: str, *, alone: bool = False) -> tuple[nn.Module, str]:
    """The module that has the weight `name`, and what it calls it.

    alone: refuse a weight that another module shares. Raises SecondaryLearnersError for that and
    UnknownNameError for a weight that there is not.
    """
    path, _, last = name.rpartition(".")
    try:
        module = model.get_submodule(path)
        weight = getattr(module, last)
    except AttributeError as error:
        known = (plain_name(known) for known, _ in model.named_parameters())
        raise UnknownNameError("weight", name, known, "learners delta distances") from error
    if alone:
        every = model.named_parameters(remove_duplicate=False)
        others = sorted(plain_name(other) for other, value in every if value is weight)
        if len(others) > 1:
            raise SecondaryLearnersError(
                f"the weight {name!r} is shared ({' and '.join(others)}), and would be parted. "
                "Choose other layers."
            )
    return module, last


def freeze_except(model: PreTrainedModel, names: Iterable[str]) -> None:
    """Freeze all of `model` but the weights `names`, its head and the scores of its masks.

    names: plain names, as `critical_layers` gives them. A masked weight stays frozen under its
    mask. Raises UnknownNameError for a name that is none of the backbone's weights.
    """
    known = backbone_weights(model)
    wanted = set(names)
    for name in sorted(wanted - set(known)):
        raise UnknownNameError("weight", name, known, "learners delta distances")
    heads = head_weights(model)
    for name, parameter in model.named_parameters():
        plain = plain_name(name)
        masked = plain != name
        parameter.requires_grad_(
            is_scores(name) or plain in heads or (plain in wanted and not masked)
        )


def parameter_groups(
    model: PreTrainedModel,
    *,
    learning_rate: float,
    head_learning_rate: float | None = None,
    score_learning_rate: float | None = None,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """What of `model` is trained, as parameter groups for any torch optimizer.

    `Trainer(..., optimizers=(torch.optim.AdamW(parameter_groups(model, ...)), None))` trains with
    them, and keeps its own schedule. Groups: "weights" (pretrained ones that are not frozen),
    "head" and "scores", each with its learning rate, by default `learning_rate`; scores and vectors
    have no weight decay. Raises SecondaryLearnersError when all is frozen.
    """
    heads = head_weights(model)
    rates: Mapping[str, float] = {
        "weights": learning_rate,
        "head": learning_rate if head_learning_rate is None else head_learning_rate,
        "scores": learning_rate if score_learning_rate is None else score_learning_rate,
    }
    groups: dict[tuple[str, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = "scores" if is_scores(name) else "head" if name in heads else "weights"
            decays = kind != "scores" and parameter.ndim > 1
            groups.setdefault((kind, decays), []).append(cast(Tensor, parameter))
    if not groups:
        raise SecondaryLearnersError("every weight of this model is frozen: there is no training.")
    return [
        {
            "name": kind,
            "params": parameters,
            "lr": rates[kind],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (kind, decays), parameters in groups.items()
    ]
