"""A learner and its folder: five files, tensors and text only, written and read as a whole."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from secondary_learners.artifacts.folders import (
    parse_json,
    parse_tensors,
    read_folder,
    write_folder,
)
from secondary_learners.artifacts.layout import FILES
from secondary_learners.errors import (
    ArtifactError,
    IncompatibleError,
    SecondaryLearnersError,
)
from secondary_learners.files import json_bytes
from secondary_learners.learners.config import LearnerConfig
from secondary_learners.learners.nets import Net, build_net, round_to_half

__all__ = ["FILES", "Learner", "read_learner", "save_learner", "tokenizer_fingerprint"]


class HasVocabulary(Protocol):
    """Any tokenizer: of transformers, of tokenizers, or one's own."""

    def get_vocab(self) -> Mapping[str, int]: ...


def tokenizer_fingerprint(tokenizer: HasVocabulary) -> str:
    """The sha256 of the vocabulary, as compact JSON with sorted keys."""
    text = json.dumps(dict(tokenizer.get_vocab()), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Learner:
    """A fitted secondary learner: scores contexts by how much training on them should help.

    Token ids are a tensor, array or list [batch, length] of integers; `attention_mask` has the
    same shape, with zeros at padding, and may be left out. All results are float32, on the
    learner's device, without gradients. Contexts may be longer or shorter than the ones it was
    fitted on, and are never cut.

    Raises IncompatibleError for a token id outside its vocabulary.
    """

    def __init__(self, config: LearnerConfig, net: Net) -> None:
        self.config = config
        self.net: Net = net.eval().requires_grad_(False)
        self._checked: object = None

    def __repr__(self) -> str:
        config = self.config
        return f"<Learner {config.name!r}: {config.architecture}, for {config.base_model.repo}>"

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def to(self, device: str | torch.device) -> Self:
        """Move the weights, in place."""
        self.net.to(device)
        return self

    def score(self, input_ids: Any, attention_mask: Any = None) -> Tensor:
        """Scores [batch] in standard deviations of the predictions on held-out contexts.

        0 is the average candidate, so a threshold of 1 keeps what is one sd better than that.
        """
        calibration = self.config.calibration
        return (self._raw(input_ids, attention_mask) - calibration.mean) / calibration.sd

    def predict_gain(self, input_ids: Any, attention_mask: Any = None) -> Tensor:
        """Predicted gains [batch], in `config.score.unit`: of the objective, or for labels by the
        "swapped" method of the context itself, which ranks alike and is another scale.
        """
        score = self.config.score
        return self._raw(input_ids, attention_mask) * score.sd + score.mean

    def gain_of(self, score: float) -> float:
        """The predicted gain, in `config.score.unit`, that a score stands for."""
        calibration, labels = self.config.calibration, self.config.score
        return (score * calibration.sd + calibration.mean) * labels.sd + labels.mean

    def contributions(self, input_ids: Any, attention_mask: Any = None) -> Tensor:
        """What each token adds to its context's score [batch, length]; 0 at padding.

        Exact for a linear learner: a row adds up to its score less that of an empty context. For
        a convolutional one, gradient times input: the share in a first-order expansion.
        """
        ids, mask = self._prepare(input_ids, attention_mask)
        with torch.no_grad():
            return self.net.contributions(ids, mask) / self.config.calibration.sd

    def quantile(self, share: float) -> float:
        """The score that `share` (0 to 1) of the held-out contexts do not exceed."""
        if not 0 <= share <= 1:
            raise SecondaryLearnersError(f"a quantile is between 0 and 1, and this is {share!r}.")
        calibration = self.config.calibration
        raw = np.interp(share, np.linspace(0, 1, 101), calibration.quantiles)
        return (float(raw) - calibration.mean) / calibration.sd

    def check_tokenizer(self, tokenizer: HasVocabulary) -> None:
        """Raise IncompatibleError unless `tokenizer` has the vocabulary this learner was made for.

        The last tokenizer that passed is remembered, so this may be called for every batch.
        """
        if tokenizer is self._checked:
            return
        expected, actual = self.config.tokenizer, tokenizer_fingerprint(tokenizer)
        if actual != expected.fingerprint:
            raise IncompatibleError(
                f"the learner {self.config.name!r} reads token ids of {expected.repo} (vocabulary "
                f"{expected.fingerprint}), and this tokenizer's vocabulary is {actual}. Use the "
                f"tokenizer of {expected.repo} unchanged (without added tokens), or find a learner "
                "for yours with `learners list`."
            )
        self._checked = tokenizer

    def check_vocabulary(self, size: int) -> None:
        """Raise IncompatibleError for a model whose `size` token embeddings are not as many as the
        learner's tokens, or that number rounded up to a multiple of 128: for where no tokenizer is
        known.
        """
        tokens = int(self.config.sizes["vocabulary"])
        if not tokens <= size <= -(-tokens // 128) * 128:
            raise IncompatibleError(
                f"the learner {self.config.name!r} reads {tokens:,} token ids of "
                f"{self.config.tokenizer.repo}, and the model has {size:,} token embeddings. Find "
                "a learner for yours with `learners list`; if the tokenizer is the right one, give "
                "it: processing_class=tokenizer."
            )

    def _raw(self, input_ids: Any, attention_mask: Any) -> Tensor:
        ids, mask = self._prepare(input_ids, attention_mask)
        with torch.no_grad():
            raw: Tensor = self.net(ids, mask)
        return raw

    def _prepare(self, input_ids: Any, attention_mask: Any) -> tuple[Tensor, Tensor]:
        ids = _matrix("input_ids", input_ids)
        if attention_mask is None:
            mask = torch.ones_like(ids, dtype=torch.bool)
        else:
            mask = _matrix("attention_mask", attention_mask).bool()
        if mask.shape != ids.shape:
            raise SecondaryLearnersError(
                f"input_ids is {list(ids.shape)} and attention_mask {list(mask.shape)}: "
                "they need the same shape [batch, length]."
            )
        mask = mask.to(ids.device)
        ids = ids.masked_fill(~mask, 0)  # padding may hold any number, such as -100
        if ids.numel():
            low, high = (int(value) for value in ids.aminmax())
            if low < 0 or high >= self.net.vocabulary:
                raise IncompatibleError(
                    f"token id {low if low < 0 else high} is outside the vocabulary of the learner "
                    f"{self.config.name!r} (0 to {self.net.vocabulary - 1}). Use the tokenizer of "
                    f"{self.config.tokenizer.repo}, or find a learner for yours with "
                    "`learners list`."
                )
        device = self.device
        return ids.to(device), mask.to(device)


def _matrix(name: str, value: Any) -> Tensor:
    """`value` as an int64 tensor [batch, length]; of booleans and integers only."""
    if not isinstance(value, Tensor):
        try:
            array = np.array(value)  # a copy: torch warns about read-only arrays
            value = torch.from_numpy(array.astype(np.int64)) if array.dtype.kind in "biu" else array
        except ValueError as error:
            raise SecondaryLearnersError(
                f"the rows of {name} have different lengths. Pad them and give an attention_mask."
            ) from error
    if 0 in value.shape:  # an empty list has no type of its own
        value = torch.zeros((value.shape[0], 0 if value.ndim < 2 else value.shape[1])).long()
    if not isinstance(value, Tensor) or value.ndim != 2 or value.is_floating_point():
        raise SecondaryLearnersError(
            f"{name} must be integers [batch, length], and is {value.dtype} {list(value.shape)}."
        )
    return value.detach().long()


def save_learner(
    learner: Learner,
    folder: Path,
    *,
    recipe_toml: str,
    evaluation: Mapping[str, Any],
    readme: str,
    half: bool = False,
) -> dict[str, str]:
    """Write the artifact and return the sha256 of each of its files.

    half: store the weights in float16, half the size. Those of `learner` itself are rounded to it
    first, so that it goes on as the learner that `read_learner` gives; round them with
    `round_to_half` before anything is measured. A weight beyond float16 (65,504) is refused.

    A new folder appears whole or not at all; in one that exists, each file is replaced whole. The
    same content gives the same bytes. Raises ArtifactError for weights that are not finite.
    """
    tensors = {
        name: (tensor.half().float() if half else tensor).detach().cpu().contiguous()
        for name, tensor in learner.net.state_dict().items()
    }
    with torch.device("meta"):
        expected = build_net(learner.config.architecture, learner.config.sizes).state_dict()
    _check_tensors(learner.config, expected, tensors)
    if half:  # only what was found finite
        round_to_half(learner.net)
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    contents = {
        "README.md": readme.encode(),
        "config.json": json_bytes(learner.config.to_dict()),
        "evaluation.json": json_bytes(dict(evaluation)),
        "model.safetensors": safetensors.torch.save(tensors),
        "recipe.toml": recipe_toml.encode(),
    }
    return write_folder(folder, contents)


def read_learner(
    folder: Path, digests: Mapping[str, str] | None = None, *, remedy: str | None = None
) -> Learner:
    """The learner in `folder`, on the CPU. Nothing in the folder is ever run.

    digests: the recorded sha256 of each file, compared with the very bytes that are then read.
    remedy: what to do about a changed file, said in the error; by default for what pip installed.

    Raises DigestMismatchError for a file that was changed, IncompatibleError for a newer format,
    and ArtifactError for a folder that is not a whole and sound artifact.
    """
    contents = read_folder(folder, digests, remedy=remedy)
    config = LearnerConfig.from_dict(parse_json(folder, contents))
    tensors = {
        name: tensor.float() if tensor.dtype == torch.float16 else tensor
        for name, tensor in parse_tensors(folder, contents).items()
    }
    with torch.device("meta"):  # no memory, no random numbers: the weights come from the file
        net = build_net(config.architecture, config.sizes)
    _check_tensors(config, net.state_dict(), tensors)
    net.load_state_dict(tensors, assign=True)
    return Learner(config, net)


def _is_finite(tensor: Tensor) -> bool:
    # Eight times faster than isfinite().all(): nothing of the tensor's size is made.
    return tensor.numel() == 0 or all(map(math.isfinite, tensor.aminmax()))


def _check_tensors(
    config: LearnerConfig, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """The tensors are exactly those of the architecture, float32 (once widened) and finite."""
    if set(tensors) != set(expected):
        raise ArtifactError(
            f"the tensors of {config.name!r} are {', '.join(sorted(tensors))}, and a "
            f"{config.architecture} learner has {', '.join(sorted(expected))}. "
            "Rebuild it with `learners run RECIPE`."
        )
    for name, tensor in tensors.items():
        shape, right = list(tensor.shape), list(expected[name].shape)
        if shape != right or tensor.dtype != torch.float32:
            raise ArtifactError(
                f"the tensor {name!r} of {config.name!r} is {tensor.dtype} {shape}, and must be "
                f"torch.float32 (or float16) {right}. Rebuild it with `learners run RECIPE`."
            )
        if not _is_finite(tensor):
            raise ArtifactError(
                f"the tensor {name!r} of {config.name!r} holds numbers that are not finite. "
                "Rebuild it with `learners run RECIPE`."
            )
