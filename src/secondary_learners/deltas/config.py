"""`config.json` of a delta: what it changes, of which base model. Pure data, checked when made."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from secondary_learners.artifacts.checks import ConfigChecks
from secondary_learners.errors import ArtifactError
from secondary_learners.learners.config import Reference

__all__ = ["DELTA_FORMAT_VERSION", "DeltaConfig", "DeltaKind", "StoredType"]

DELTA_FORMAT_VERSION = 2  # 1 called the classes "labels"
DeltaKind = Literal["layers", "mask"]
StoredType = Literal["bfloat16", "float16", "float32"]
_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_NUMBERS = 2**40
_CHECKS = ConfigChecks(
    "delta",
    DELTA_FORMAT_VERSION,
    "Get the delta again from where it came, or make it again with `learners delta make`.",
)
_fail = _CHECKS.failure


@dataclass(frozen=True, kw_only=True)
class DeltaConfig:
    """Everything `config.json` says. Raises ArtifactError naming the field that is wrong.

    kind: "layers" (new values for some weights) or "mask" (which numbers of some weights stay).
    base_model: `fingerprint` is the sha256 of all weights of the backbone, see `base_fingerprint`.
    architecture: the class of the model with its head. layers: the shape of each changed or masked
    weight. head: the shape of each tensor of the task's head, stored in float32. stored: the type
    of changed weights. classes: their names, in the order of the logits.
    task, training, versions: what it was made from and how.
    """

    format_version: int = DELTA_FORMAT_VERSION
    kind: DeltaKind
    name: str
    base_model: Reference
    tokenizer: Reference
    architecture: str
    layers: dict[str, list[int]]
    head: dict[str, list[int]]
    stored: StoredType
    classes: list[str]
    task: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, Any]

    def __post_init__(self) -> None:
        _CHECKS.version(self.format_version)
        if self.kind not in ("layers", "mask"):
            raise _fail("kind", "'layers' or 'mask'", self.kind)
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise _fail("name", "lower-case words joined by - . or _", self.name)
        for field in ("base_model", "tokenizer"):
            _check_reference(field, getattr(self, field))
        if not isinstance(self.architecture, str) or not self.architecture.isidentifier():
            raise _fail("architecture", "the name of a class", self.architecture)
        if self.stored not in ("bfloat16", "float16", "float32"):
            raise _fail("stored", "'bfloat16', 'float16' or 'float32'", self.stored)
        for field in ("layers", "head"):
            _check_shapes(field, getattr(self, field))
        if both := set(self.layers) & set(self.head):
            raise _fail("head", "apart from the layers", sorted(both)[0])
        _check_classes(self.classes)
        for field in ("task", "training", "versions"):
            if not isinstance(getattr(self, field), dict):
                raise _fail(field, "an object", getattr(self, field))

    def to_dict(self) -> dict[str, Any]:
        """The value of `config.json`; `from_dict` gives an equal config back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> DeltaConfig:
        """Raises IncompatibleError for a newer format and ArtifactError for a wrong field."""
        if not isinstance(data, dict):
            raise ArtifactError(f"config.json holds no JSON object. {_CHECKS.way_out}")
        if data.get("kind") not in ("layers", "mask"):
            raise _fail("kind", "'layers' or 'mask', as a delta's is", data.get("kind"))
        _CHECKS.version(data.get("format_version"))  # a newer one may have other fields
        if data["format_version"] == 1:
            data = {"classes" if name == "labels" else name: data[name] for name in data}
        values = _CHECKS.fields("", cls, data)
        for name in ("base_model", "tokenizer"):
            values[name] = Reference(**_CHECKS.fields(f"{name}.", Reference, data[name]))
        return cls(**values)


def _check_reference(field: str, reference: Reference) -> None:
    for part in ("repo", "revision"):
        value = getattr(reference, part)
        if not (isinstance(value, str) and value) and not (part == "revision" and value is None):
            raise _fail(f"{field}.{part}", "a non-empty string", value)
    print_ = reference.fingerprint
    if not isinstance(print_, str) or not _SHA256.fullmatch(print_):
        raise _fail(f"{field}.fingerprint", "a sha256", print_)


def _check_shapes(field: str, shapes: object) -> None:
    if not isinstance(shapes, dict):
        raise _fail(field, "an object of names and shapes", shapes)
    for name, shape in shapes.items():
        if not isinstance(name, str) or not name:
            raise _fail(field, "an object of names and shapes", shapes)
        sizes = isinstance(shape, list) and all(type(size) is int and size >= 1 for size in shape)
        if not sizes or math.prod(shape) > _MOST_NUMBERS:
            raise _fail(f"{field}.{name}", "a list of sizes", shape)


def _check_classes(classes: object) -> None:
    good = (
        isinstance(classes, list)
        and all(isinstance(name, str) and name for name in classes)
        and len(set(classes)) == len(classes)
        and len(classes) >= 2
    )
    if not good:
        raise _fail("classes", "a list of two different names or more", classes)
