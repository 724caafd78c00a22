"""A learner and its folder: five files, tensors and text only, written and read as a whole.

torch is loaded by what reads token ids, when it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from secondary_learners.artifacts.folders import parse_json, read_folder, write_folder
from secondary_learners.artifacts.layout import FILES
from secondary_learners.errors import IncompatibleError, SecondaryLearnersError
from secondary_learners.files import json_bytes
from secondary_learners.learners.config import LearnerConfig, Reference

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from secondary_learners.learners.nets import Net

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
        from secondary_learners.learners.token_ids import raw_of

        calibration = self.config.calibration
        return (raw_of(self, input_ids, attention_mask) - calibration.mean) / calibration.sd

    def predict_gain(self, input_ids: Any, attention_mask: Any = None) -> Tensor:
        """Predicted gains [batch], in `config.score.unit`: of the objective, or for labels by the
        "swapped" method of the context itself, which ranks alike and is another scale.
        """
        from secondary_learners.learners.token_ids import raw_of

        score = self.config.score
        return raw_of(self, input_ids, attention_mask) * score.sd + score.mean

    def gain_of(self, score: float) -> float:
        """The predicted gain, in `config.score.unit`, that a score stands for."""
        calibration, labels = self.config.calibration, self.config.score
        return (score * calibration.sd + calibration.mean) * labels.sd + labels.mean

    def contributions(self, input_ids: Any, attention_mask: Any = None) -> Tensor:
        """What each token adds to its context's score [batch, length]; 0 at padding.

        Exact for a linear learner: a row adds up to its score less that of an empty context. For
        a convolutional one, gradient times input: the share in a first-order expansion.
        """
        from secondary_learners.learners.token_ids import contributions_of

        return contributions_of(self, input_ids, attention_mask) / self.config.calibration.sd

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
        expected, actual = self.tokenizer_reference, tokenizer_fingerprint(tokenizer)
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
                f"{self.tokenizer_reference.repo}, and the model has {size:,} token embeddings. "
                "Find a learner for yours with `learners list`; if the tokenizer is the right one, "
                "give it: processing_class=tokenizer."
            )

    def score_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Scores [texts], as `score` gives them, of a learner without a tokenizer.

        Raises IncompatibleError for one that reads token ids.
        """
        return self.scores_and_words(texts)[0]

    def scores_and_words(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The same, and the number of words of each text [texts]."""
        repo = self.tokenizer_reference.repo
        raise IncompatibleError(
            f"the learner {self.config.name!r} reads token ids of {repo}, not text. Try "
            f"`learners score FILE -l {self.config.name}`, which tokenizes, or a learner without a "
            "tokenizer: `learners list --base any`."
        )

    def text_contributions(self, text: str) -> list[tuple[str, float]]:
        """Each word of a text and what it adds to its score, of a learner without a tokenizer.

        Raises IncompatibleError for one that reads token ids.
        """
        self.score_texts([text])
        raise AssertionError

    def stored(self, *, half: bool) -> bytes:
        """model.safetensors; half: in float16, to which its own weights are rounded first."""
        from secondary_learners.learners.stored_net import net_bytes

        return net_bytes(self.config, self.net, half=half)

    @property
    def tokenizer_reference(self) -> Reference:
        """Whose token ids it reads."""
        assert self.config.tokenizer is not None
        return self.config.tokenizer


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
    contents = {
        "README.md": readme.encode(),
        "config.json": json_bytes(learner.config.to_dict()),
        "evaluation.json": json_bytes(dict(evaluation)),
        "model.safetensors": learner.stored(half=half),
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
    if config.reads_text:
        from secondary_learners.learners.text_learner import TextLearner, read_text_net

        return TextLearner(config, read_text_net(config, folder, contents))
    from secondary_learners.learners.stored_net import read_net

    return Learner(config, read_net(config, folder, contents))
