"""Which parameters a step moves: all of them, an adapter, the last blocks, or those of some names.

The memory of labelling grows with what is trained, not with the model: a gradient, a copy of the
weights and a step for each of these parameters. So large models are labelled on a small subset.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from secondary_learners.errors import MissingExtraError, SecondaryLearnersError, UnknownNameError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LORA_RANK", "Trainable", "blocks_of", "check_trainable", "trained"]

Trainable = str | Sequence[str] | None

LORA_RANK = 8
_LORA_SEED = 0
_LAST = "last-layers"
_KNOWN = ("all", "lora", _LAST, f"{_LAST}:2")


def check_trainable(trainable: Trainable) -> None:
    """Raise UnknownNameError or SecondaryLearnersError for what can be no subset of any model."""
    if isinstance(trainable, str):
        word, colon, count = trainable.partition(":")
        counted = word == _LAST and count.isdecimal() and int(count) > 0
        if not counted and (colon or word not in _KNOWN):
            raise UnknownNameError("trainable subset", trainable, _KNOWN, "learners gains --help")
    elif trainable is not None and not trainable:
        raise SecondaryLearnersError(
            "trainable is an empty list: name some parameters, or leave it out for all of them."
        )


@contextmanager
def trained(model: nn.Module, trainable: Trainable) -> Iterator[None]:
    """Inside the block exactly the parameters of the subset require gradients.

    Afterwards, also after an error, `requires_grad` of every parameter is what it was, and adapters
    that were put in are out. For the meaning of `trainable` see `information_gain`. Raises
    SecondaryLearnersError for a subset that `model` has not, MissingExtraError without peft.
    """
    check_trainable(trainable)
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    adapted = trainable == "lora" and not _adapter_parameters(model)
    try:
        with _new_adapters(model) if adapted else nullcontext():
            if trainable is not None:
                chosen = {id(parameter) for parameter in _subset(model, trainable)}
                for parameter in model.parameters():
                    parameter.requires_grad_(id(parameter) in chosen)
            elif not any(flag for _, flag in flags):
                raise SecondaryLearnersError(
                    "no parameter of the model requires a gradient, so no step can be taken. Try "
                    'trainable="all", or "lora".'
                )
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks in their order; empty where no stack of them is found."""
    import torch

    config: Any = getattr(model, "config", None)
    count = getattr(config, "num_hidden_layers", None)
    for module in model.modules():  # the outermost first: a block may hold lists of its own
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    return []


def _subset(model: nn.Module, trainable: str | Sequence[str]) -> list[nn.Parameter]:
    if not isinstance(trainable, str):
        return [parameter for glob in trainable for parameter in _matching(model, glob)]
    if trainable == "all":
        return [p for p in model.parameters() if p.is_floating_point()]
    if trainable == "lora":
        return _adapter_parameters(model)
    count = int(trainable.partition(":")[2] or 1)
    blocks = blocks_of(model)
    if count > len(blocks):
        raise SecondaryLearnersError(
            f"trainable={trainable!r}: {type(model).__name__} has {len(blocks)} blocks that are "
            f"known as such. {_names(model)}"
        )
    return [parameter for block in blocks[-count:] for parameter in block.parameters()]


def _matching(model: nn.Module, glob: str) -> list[nn.Parameter]:
    named = dict(model.named_parameters(remove_duplicate=False))  # a tied weight has two names
    matching = [parameter for name, parameter in named.items() if fnmatchcase(name, glob)]
    if not matching:
        near = get_close_matches(glob, named, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise SecondaryLearnersError(
            f"no parameter of the model is named {glob!r}: {hint}{_names(model)}"
        )
    return matching


def _names(model: nn.Module) -> str:
    names = [name for name, _ in model.named_parameters()]
    some = names[:: max(1, len(names) // 4)][:5]
    return (
        f"Some of its {len(names)} names: {', '.join(some)}. Try globs of names, such as "
        f"{some[-1].rpartition('.')[0] + '.*'!r}."
    )


def _adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Those of the active adapters that peft has put in, whatever flags they have."""
    return [
        parameter
        for module in model.modules()
        for kind in getattr(module, "adapter_layer_names", ())
        for adapter in getattr(module, "active_adapters", ())
        if adapter in (held := getattr(module, kind))
        for parameter in _parameters(held[adapter])
    ]


def _parameters(held: Any) -> list[nn.Parameter]:
    """Of a module, or the parameter itself: an embedding's adapter is one."""
    return list(held.parameters()) if hasattr(held, "parameters") else [held]


@contextmanager
def _new_adapters(model: nn.Module) -> Iterator[None]:
    """Fresh LoRA adapters in every linear layer but the head, in float32; the same ones each time.

    Hu et al. 2021 (arXiv 2106.09685): W + (alpha / r) · B A with A random and B zero.
    """
    import torch

    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise MissingExtraError("peft", "lora") from error
    config = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules="all-linear")
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")  # it then sets it
        torch.manual_seed(_LORA_SEED)
        tuner = LoraModel(model, config, "secondary_learners")
    try:
        for parameter in _adapter_parameters(model):
            parameter.data = parameter.data.float()
        yield
    finally:
        tuner.unload()
