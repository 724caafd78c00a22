"""A delta: what a task changed of a base model, as a folder of five files like a learner's.

`make_delta` finds what changed, `save_delta` and `read_delta` are the folder, and `Delta.apply`
puts it on a model, from which `Applied.remove` takes it off again, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import safetensors.torch
import torch
from torch import Tensor

from secondary_learners.artifacts.folders import (
    parse_json,
    parse_tensors,
    read_folder,
    write_folder,
)
from secondary_learners.deltas.bits import pack_bits, packed_size, unpack_bits
from secondary_learners.deltas.config import DeltaConfig, StoredType
from secondary_learners.deltas.fingerprints import base_fingerprint
from secondary_learners.deltas.layers import (
    backbone_prefix,
    backbone_weights,
    head_weights,
)
from secondary_learners.deltas.masks import masks_of
from secondary_learners.errors import ArtifactError, IncompatibleError, SecondaryLearnersError
from secondary_learners.files import json_bytes
from secondary_learners.learners.config import Reference

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Applied", "Delta", "Origin", "make_delta", "read_delta", "save_delta"]

_TYPES = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32")}
_WAY_OUT = "Get the delta again from where it came, or make it again with `learners delta make`."


class Delta:
    """What a task changed: a config, and tensors by the names of the weights that they are for.

    tensors: as stored. Of kind "layers", the new values; of kind "mask", packed bits; and the head.
    Raises ArtifactError for tensors that are not those of the config.
    """

    def __init__(self, config: DeltaConfig, tensors: Mapping[str, Tensor]) -> None:
        self.config = config
        self.tensors = dict(tensors)
        _check_tensors(config, self.tensors)

    def __repr__(self) -> str:
        config = self.config
        return f"<Delta {config.name!r}: {config.kind}, for {config.base_model.repo}>"

    def masks(self) -> dict[str, Tensor]:
        """Of kind "mask": True where a number of the weight stays. Else empty."""
        if self.config.kind != "mask":
            return {}
        return {
            name: unpack_bits(self.tensors[name], shape)
            for name, shape in self.config.layers.items()
        }

    def apply(self, model: PreTrainedModel) -> Applied:
        """Put the delta on `model`, in place; `remove()` of what is returned takes it off again.

        model: the base model with a head of the right shape, such as
        `classifier(base, 2)` makes. Its class keeps, so it saves, trains and predicts as
        before; `with delta.apply(model):` removes the delta at the end of the block.

        Everything is checked before anything changes. Raises IncompatibleError for another base
        model, also one whose embedding is the same, for one that a delta is applied to already, for
        masks that are not merged, and for weights of other shapes.
        """
        return Applied(self, model, self._checked(model))

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """`model` with the delta written into its weights for good; a plain model. As `apply`."""
        weights = self._checked(model)
        _write(weights, self._values(weights))
        _set_classes(model, self.config.classes)
        return model

    def _checked(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """The model's own tensors that the delta changes, once the delta is sure to fit."""
        config = self.config
        if masks_of(model):
            raise IncompatibleError(
                "this model has masks that are being learnt. Call merge_masks or remove_masks "
                f"before the delta {config.name!r} is applied."
            )
        backbone, head = backbone_weights(model), head_weights(model)
        if set(head) != set(config.head):
            raise IncompatibleError(
                f"the delta {config.name!r} is for a {config.architecture} with the head "
                f"{_list(config.head)} ({len(config.classes)} classes), and this "
                f"{type(model).__name__} has {_list(head)}. Try "
                f"`classifier(model, {len(config.classes)})`, or `load_delta` without a model."
            )
        for name, shape in (config.layers | config.head).items():
            weight = (head if name in config.head else backbone).get(name)
            if weight is None or list(weight.shape) != shape:
                has = "none" if weight is None else str(list(weight.shape))
                raise IncompatibleError(
                    f"the delta {config.name!r} is for a weight {name!r} of shape {shape}, and "
                    f"this {type(model).__name__} has {has}. Load {config.base_model.repo}."
                )
        if model.config.num_labels != len(config.classes):
            raise IncompatibleError(
                f"the delta {config.name!r} has {len(config.classes)} classes "
                f"({', '.join(config.classes)}), and this model has {model.config.num_labels}. "
                f"{_WAY_OUT}"
            )
        fingerprint = base_fingerprint(model)
        if fingerprint != config.base_model.fingerprint:
            kinds = {str(weight.dtype) for weight in backbone.values()}
            raise IncompatibleError(
                f"the delta {config.name!r} is for the weights of {config.base_model.repo} "
                f"({config.base_model.fingerprint}), and this model's are {fingerprint} "
                f"({' and '.join(sorted(kinds))}). Load {config.base_model.repo} unchanged, in a "
                "type that holds its numbers (float32), and remove another delta first."
            )
        wanted = config.layers | config.head
        return {name: (head if name in config.head else backbone)[name] for name in wanted}

    def _values(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the weights become, in their own type and on their own device."""
        masks = self.masks()
        return {
            name: weight.detach().masked_fill(~masks[name].to(weight.device), 0)
            if name in masks
            else self.tensors[name].to(weight.device, weight.dtype)
            for name, weight in weights.items()
        }


class Applied:
    """A delta that is on a model, until `remove()`."""

    def __init__(self, delta: Delta, model: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
        self.delta, self.model = delta, model
        self._before = {name: weight.detach().clone() for name, weight in weights.items()}
        self._classes = (model.config.id2label, model.config.label2id)
        self._weights: Mapping[str, Tensor] | None = weights
        _write(weights, delta._values(weights))
        _set_classes(model, delta.config.classes)

    def __repr__(self) -> str:
        return f"<{'Applied' if self._weights else 'Removed'} {self.delta!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Give the model back every bit of the weights that it had; nothing when it has."""
        if self._weights is not None:
            _write(self._weights, self._before)
            self.model.config.id2label, self.model.config.label2id = self._classes
            self._weights, self._before = None, {}


def _write(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])


def _set_classes(model: PreTrainedModel, classes: list[str]) -> None:
    model.config.id2label = dict(enumerate(classes))
    model.config.label2id = {name: number for number, name in enumerate(classes)}


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a delta comes from, for its config.json.

    name: its own. base_model: where the base is (repo, revision). task, training: what it was made
    from and how.
    """

    name: str
    base_model: tuple[str, str | None]
    tokenizer: Reference
    task: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


def make_delta(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    origin: Origin,
    *,
    classes: list[str],
    stored: StoredType = "float16",
) -> Delta:
    """The delta from `base` to `tuned`, which has the same backbone and a head of its own.

    Of kind "mask" when `tuned` has masks (see `mask_layers`), of kind "layers" when it has none:
    then every weight that differs is in it.

    stored: the type for changed weights. In 16 bits they are rounded, so measure what is applied,
    not what was trained; masks and heads are exact.

    Raises IncompatibleError when the two have other weights, SecondaryLearnersError for another
    number of classes than `tuned` has or when weights beside the masks changed, and ArtifactError
    for weights that the stored type cannot hold.
    """
    if len(classes) != tuned.config.num_labels:
        raise SecondaryLearnersError(
            f"this model has {tuned.config.num_labels} classes, and {len(classes)} are named: "
            f"{', '.join(classes)}. Name each once, in the order of its logits."
        )
    prefix = backbone_prefix(tuned)
    old = _own_names(base)
    new = _own_names(tuned)
    if {n: w.shape for n, w in old.items()} != {n: w.shape for n, w in new.items()}:
        raise IncompatibleError(
            f"a {type(tuned).__name__} with other weights than this {type(base).__name__} has no "
            "delta to it. Give the base model that it was fine-tuned from."
        )
    changed = {
        f"{prefix}{n}": weight.detach() for n, weight in new.items() if not _same(old[n], weight)
    }
    masks = masks_of(tuned)
    if masks and changed:
        raise SecondaryLearnersError(
            f"beside its masks this model has other changed weights, such as {min(changed)!r}. "
            "Freeze them before training: freeze_except(model, [])."
        )
    tensors = (
        {n: pack_bits(mask) for n, mask in masks.items()}
        if masks
        else {n: _stored(weight, _TYPES[stored]) for n, weight in changed.items()}
    )
    head = {n: _stored(w.detach(), torch.float32) for n, w in head_weights(tuned).items()}
    import transformers

    config = DeltaConfig(
        kind="mask" if masks else "layers",
        name=origin.name,
        base_model=Reference(*origin.base_model, base_fingerprint(base)),
        tokenizer=origin.tokenizer,
        architecture=type(tuned).__name__,
        layers={n: list((masks or changed)[n].shape) for n in sorted(tensors)},
        head={n: list(head[n].shape) for n in sorted(head)},
        stored=stored,
        classes=classes,
        task=dict(origin.task),
        training=dict(origin.training),
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
    )
    return Delta(config, tensors | head)


def _own_names(model: PreTrainedModel) -> dict[str, Tensor]:
    """The backbone's weights by their names within the backbone, masks apart."""
    prefix = backbone_prefix(model)
    return {name.removeprefix(prefix): weight for name, weight in backbone_weights(model).items()}


def _same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.detach().cpu(), second.detach().cpu())


def _stored(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.cpu().to(dtype, copy=True).contiguous()


def save_delta(
    delta: Delta,
    folder: Path,
    *,
    recipe_toml: str,
    evaluation: Mapping[str, Any],
    readme: str,
) -> dict[str, str]:
    """Write the artifact and return the sha256 of each of its files.

    A new folder appears whole or not at all. The same content gives the same bytes.
    """
    return write_folder(
        folder,
        {
            "README.md": readme.encode(),
            "config.json": json_bytes(delta.config.to_dict()),
            "evaluation.json": json_bytes(dict(evaluation)),
            "model.safetensors": safetensors.torch.save(delta.tensors),
            "recipe.toml": recipe_toml.encode(),
        },
    )


def read_delta(
    folder: Path, digests: Mapping[str, str] | None = None, *, remedy: str | None = None
) -> Delta:
    """The delta in `folder`. Nothing in the folder is ever run.

    digests: the recorded sha256 of each file, compared with the very bytes that are then read.
    remedy: what to do about a changed file, said in the error.

    Raises DigestMismatchError for a file that was changed, IncompatibleError for a newer format,
    and ArtifactError for a folder that is not a whole and sound delta.
    """
    contents = read_folder(folder, digests, remedy=remedy)
    config = DeltaConfig.from_dict(parse_json(folder, contents))
    return Delta(config, parse_tensors(folder, contents))


def _check_tensors(config: DeltaConfig, tensors: Mapping[str, Tensor]) -> None:
    """The tensors are exactly those of the config: names, shapes, types, finite, no stray bits."""
    wanted = config.layers | config.head
    if set(tensors) != set(wanted):
        differing = sorted(set(tensors) ^ set(wanted))
        raise ArtifactError(
            f"the tensors of {config.name!r} are not those in its config.json: {differing[0]!r} "
            f"is in one of them only. {_WAY_OUT}"
        )
    for name, shape in wanted.items():
        tensor = tensors[name]
        if config.kind == "mask" and name in config.layers:
            right, dtype = [packed_size(shape)], torch.uint8
        else:
            right = shape
            dtype = torch.float32 if name in config.head else _TYPES[config.stored]
        if list(tensor.shape) != right or tensor.dtype != dtype:
            raise ArtifactError(
                f"the tensor {name!r} of {config.name!r} is {tensor.dtype} {list(tensor.shape)}, "
                f"and must be {dtype} {right}. {_WAY_OUT}"
            )
        if dtype is torch.uint8:
            _check_bits(config, name, tensor, shape)
        elif not bool(tensor.isfinite().all()):
            raise ArtifactError(
                f"the tensor {name!r} of {config.name!r} holds numbers that are not finite in "
                f"{dtype}. {_WAY_OUT}"
            )


def _check_bits(config: DeltaConfig, name: str, tensor: Tensor, shape: list[int]) -> None:
    try:
        unpack_bits(tensor[-1:], [(math.prod(shape) - 1) % 8 + 1])
    except ValueError as error:
        raise ArtifactError(
            f"the mask {name!r} of {config.name!r} is damaged: {error}. {_WAY_OUT}"
        ) from error
