"""Every model, tokenizer and learner that tests make: small enough to be made in a moment.

Weights are random and the same every time. transformers is imported when a builder is called.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from secondary_learners.learners.artifact import Learner
from secondary_learners.learners.config import Calibration, LearnerConfig, Reference, Score
from secondary_learners.learners.nets import LinearNet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from secondary_learners.learners.text_learner import TextLearner

VOCABULARY = 64  # of learners and models, unless a test needs another
BASE_VOCABULARY = 320  # of `write_base`: every byte, end-of-text, and some pairs


# Models


def tiny_gpt2(
    vocabulary: int = VOCABULARY, *, seed: int = 0, head: str = "LMHeadModel", **settings: Any
) -> Any:
    """A GPT-2 of 2 layers x 32 for 16 positions, with the dropout of 0.1 that real models have.

    head: what comes after "GPT2" in the name of its class. settings: of `GPT2Config`.
    """
    import transformers

    defaults = {"n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(seed)
    config = transformers.GPT2Config(vocab_size=vocabulary, **{**defaults, **ends, **settings})
    return getattr(transformers, f"GPT2{head}")(config)


def tiny_llama(vocabulary: int = VOCABULARY, *, seed: int = 0, **settings: Any) -> Any:
    """A Llama of 2 layers x 32 for 24 positions, with one head of keys and values for two."""
    import transformers

    torch.manual_seed(seed)
    sizes = _sizes(vocabulary) | {"num_key_value_heads": 1} | settings
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))


def tiny_neox(vocabulary: int = VOCABULARY, *, seed: int = 0, **settings: Any) -> Any:
    """A GPT-NeoX of 2 layers x 32 for 24 positions."""
    import transformers

    torch.manual_seed(seed)
    sizes = _sizes(vocabulary) | settings
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**sizes))


def _sizes(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


class BigramModel(nn.Module):
    """A language model of one matrix product, without transformers."""

    def __init__(self, vocabulary: int = 97, seed: int = 0) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=vocabulary)
        random = torch.Generator().manual_seed(seed)
        self.embedding = nn.Parameter(torch.randn(vocabulary, 8, generator=random))
        self.head = nn.Parameter(torch.randn(8, vocabulary, generator=random))

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        return SimpleNamespace(logits=self.embedding[input_ids] @ self.head)


# Tokenizers


class Vocabulary:
    """All that a learner asks of a tokenizer: the tokens t0, t1, ... and a padding token."""

    pad_token_id = 0

    def __init__(self, size: int = VOCABULARY) -> None:
        self.asked, self.size = 0, size

    def get_vocab(self) -> dict[str, int]:
        self.asked += 1
        return {f"t{number}": number for number in range(self.size)}


def word_tokenizer(words: list[str], unknown: str, **tokens: Any) -> PreTrainedTokenizerFast:
    """A tokenizer whose token n is words[n], between spaces; tokens: as pad_token, eos_token."""
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = words_backend(words, unknown)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)


def words_backend(words: list[str], unknown: str) -> Any:
    """A `tokenizers.Tokenizer` whose token n is words[n], and that divides nothing."""
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unknown))


# A base model as a folder


def write_base(folder: Path, texts: list[str] | None = None) -> Path:
    """`tiny_gpt2` for 32 positions with a byte-level tokenizer of `texts`, as transformers saves.

    texts: prose of tests by default.
    """
    from recipes_helpers import OTHER, WANTED, prose
    from secondary_learners.recipes.base_model.training import END_OF_TEXT, train_tokenizer

    texts = texts or [prose(WANTED, 4000, 3), prose(OTHER, 4000, 4)]
    tokenizer = train_tokenizer(texts, BASE_VOCABULARY)
    end = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    tiny_gpt2(BASE_VOCABULARY, n_positions=32, **end).save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_OF_TEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


# Learners


def tiny_config(**changes: Any) -> LearnerConfig:
    """Of a linear learner of 64 tokens, whose scores are its raw predictions; with `changes`."""
    vocabulary = {"vocabulary": VOCABULARY, "bigrams": 0, "counts": "sqrt"}
    reference = Reference("tiny/base", None, "0" * 64)
    values: dict[str, Any] = {
        "name": "tiny",
        "architecture": "linear",
        "sizes": vocabulary,
        "score": Score(0.0, 1.0, "nats per token"),
        "calibration": Calibration(0.0, 1.0, tuple(np.linspace(-2, 2, 101).tolist())),
        "context_length": 8,
        "base_model": reference,
        "tokenizer": reference,
        **{key: {} for key in ("objective", "corpus", "optimizer", "labels", "versions")},
    }
    return LearnerConfig(**{**values, **changes})


def learner_of_low() -> Learner:
    """Likes "low": its score is about +1.5 there and about -0.6 elsewhere."""
    net = LinearNet(VOCABULARY, counts="frequency")
    with torch.no_grad():
        net.weight[:32] = 1.0
        net.weight += 0.05 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1))
    config = tiny_config(
        sizes={"vocabulary": VOCABULARY, "bigrams": 0, "counts": "frequency"},
        calibration=Calibration(0.3, 0.46, tuple(np.linspace(0, 1, 101).tolist())),
    )
    return Learner(config, net)


def text_learner() -> TextLearner:
    """One without a tokenizer, of random weights."""
    from secondary_learners.learners.hashed_text import HashedText
    from secondary_learners.learners.text_learner import TextLearner

    weight = np.random.default_rng(3).normal(size=96).astype(np.float16).astype(np.float32)
    config = tiny_config(
        architecture="hashed-text",
        sizes={"words": 64, "grams": 32},
        context_length=3,
        tokenizer=None,
        labels={"teacher": "tiny", "count": 1},
    )
    return TextLearner(config, HashedText(weight, 0.25, words=64, length=3))
