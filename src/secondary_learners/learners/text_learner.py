"""A learner that reads text: no tokenizer, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from secondary_learners.artifacts.folders import parse_arrays
from secondary_learners.errors import ArtifactError, IncompatibleError
from secondary_learners.learners.architectures import text_architecture
from secondary_learners.learners.artifact import HasVocabulary, Learner
from secondary_learners.learners.config import LearnerConfig, Reference
from secondary_learners.learners.hashed_text import HashedText

if TYPE_CHECKING:
    import torch

__all__ = ["TextLearner", "read_text_net"]


class TextLearner(Learner):
    """A learner that scores texts as they are, for whatever model they are then tokenized.

    What needs token ids raises IncompatibleError.
    """

    def __init__(self, config: LearnerConfig, hashed: HashedText) -> None:
        self.config, self.hashed = config, hashed

    def __repr__(self) -> str:
        return f"<Learner {self.config.name!r}: {self.config.architecture}, for any model>"

    def scores_and_words(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Scores and numbers of words, both [texts].

        A text of any length has the mean score of its windows, each weighted by its words.
        """
        calibration = self.config.calibration
        raw, words = self.hashed.raw(texts)
        return (raw - calibration.mean) / calibration.sd, words

    def text_contributions(self, text: str) -> list[tuple[str, float]]:
        """Each word of a text, with what follows up to the next, and what it adds to its score.

        Exact: they add up to the score less that of a text without a word.
        """
        sd = self.config.calibration.sd
        return [(word, share / sd) for word, share in self.hashed.shares(text)]

    def stored(self, *, half: bool) -> bytes:
        weight = self.hashed.weight
        if half:
            weight = weight.astype(np.float16)
            self.hashed.weight = weight.astype(np.float32)
        bias = np.array(self.hashed.bias, np.float32)
        tensors = {"weight": weight, "bias": bias}
        _check(self.config, tensors)
        return safetensors.numpy.save(tensors)

    def to(self, device: str | torch.device) -> Self:
        """Nothing: it is always on the CPU."""
        return self

    @property
    def tokenizer_reference(self) -> Reference:
        self._refuse("has no tokenizer")

    def score(self, input_ids: Any, attention_mask: Any = None) -> NoReturn:
        """Raises IncompatibleError."""
        self._refuse("does not read token ids")

    def predict_gain(self, input_ids: Any, attention_mask: Any = None) -> NoReturn:
        """Raises IncompatibleError."""
        self._refuse("does not read token ids")

    def contributions(self, input_ids: Any, attention_mask: Any = None) -> NoReturn:
        """Raises IncompatibleError."""
        self._refuse("does not read token ids")

    def check_tokenizer(self, tokenizer: HasVocabulary) -> None:
        """Raises IncompatibleError."""
        self._refuse("does not read token ids")

    def check_vocabulary(self, size: int) -> None:
        """Raises IncompatibleError."""
        self._refuse("does not read token ids")

    def _refuse(self, why: str) -> NoReturn:
        teacher = self.config.labels.get("teacher")
        one = f", such as {teacher!r}, which taught it" if teacher else ""
        raise IncompatibleError(
            f"the learner {self.config.name!r} {why}: it reads text. Score the texts before they "
            f'are tokenized, with `learner.score_texts(texts)`, ScoreColumn(learner, key="text") '
            f"or `learners score`, or load a learner of token ids{one}."
        )


def read_text_net(config: LearnerConfig, folder: Path, contents: Mapping[str, bytes]) -> HashedText:
    """The net of an artifact; raises ArtifactError."""
    tensors = parse_arrays(folder, contents)
    _check(config, tensors)
    wide = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    architecture = text_architecture(config.architecture)
    return architecture.build(config.sizes, wide, config.context_length)


def _check(config: LearnerConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """The tensors are those of the architecture, float32 or float16, and finite."""
    expected = text_architecture(config.architecture).shapes(config.sizes)
    for name in sorted(expected.keys() | tensors.keys()):
        tensor = tensors.get(name)
        sound = tensor is not None and tensor.dtype in (np.float16, np.float32)
        if tensor is None or not sound or tensor.shape != expected.get(name):
            shape = "absent" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise ArtifactError(
                f"the tensor {name!r} of {config.name!r} is {shape}, and the tensors of a "
                f"{config.architecture} learner are float32 or float16 {expected}. Rebuild it with "
                "`learners run RECIPE`."
            )
        if not np.isfinite(tensor).all():
            raise ArtifactError(
                f"the tensor {name!r} of {config.name!r} holds numbers that are not finite. "
                "Rebuild it with `learners run RECIPE`."
            )
