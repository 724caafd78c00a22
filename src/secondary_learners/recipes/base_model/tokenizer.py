"""The tokenizer of a base model: trained on its text, or read from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondary_learners.errors import CorpusError, RecipeError
from secondary_learners.recipes.base_model.recipe import PretrainRecipe

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

__all__ = ["END_OF_TEXT", "read_tokenizer", "train_tokenizer"]

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: Any, vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE over `texts`, so that no text is ever unknown; one special token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _for_transformers(tokenizer)


def read_tokenizer(recipe: PretrainRecipe, corpus: Path | None) -> PreTrainedTokenizerFast:
    """The tokenizer in the recipe's file, unchanged save that it never cuts or pads.

    Raises CorpusError for a file that is missing or no tokenizer, and RecipeError for one whose
    tokens are not those that the recipe counts on.
    """
    from tokenizers import Tokenizer

    assert recipe.tokenizer is not None
    path = (corpus or Path()) / recipe.tokenizer
    if not path.is_file():
        raise CorpusError(
            f"there is no file {path}, and recipe {recipe.name!r} takes its tokenizer from it. "
            "Try `--corpus FOLDER` with the folder that holds it."
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower one
        raise CorpusError(
            f"{path} is not a tokenizer of the tokenizers library: {error}. "
            "Give its tokenizer.json."
        ) from error
    vocabulary = tokenizer.get_vocab()
    size = max(vocabulary.values(), default=-1) + 1
    if size > 2**16:
        raise RecipeError(
            f"{path} has token ids up to {size - 1:,}, and they are kept in two bytes: up to "
            "65,535. Take a smaller tokenizer."
        )
    if size != recipe.vocabulary:
        raise RecipeError(
            f"recipe {recipe.name!r} has vocabulary {recipe.vocabulary}, and {path} has token ids "
            f"up to {size - 1}. Write `vocabulary = {size}`, or give the right file."
        )
    if END_OF_TEXT not in vocabulary:
        raise RecipeError(
            f"{path} has no token {END_OF_TEXT}, which divides documents. Take another tokenizer."
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _for_transformers(tokenizer)


def _for_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
    )
