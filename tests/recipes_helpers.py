"""Small text and a base model made in a second, for the tests of recipes, cards and the CLI."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from secondary_learners.recipes.data import own_recipe
from secondary_learners.recipes.pretrain import END_OF_TEXT, train_tokenizer
from secondary_learners.recipes.schema import LabelPlan, LearnerRecipe

_WANTED = "sea ship wave storm sail anchor captain harbour deck crew tide mast rope gull"
_OTHER = "tax form rule office page line table data code list value unit sum rate"
WANTED, OTHER = _WANTED.split(), _OTHER.split()
VOCABULARY = 320


def prose(words: list[str], characters: int, seed: int) -> str:
    """Sentences of `words`, unevenly often, in paragraphs divided by blank lines."""
    random = np.random.default_rng(seed)
    weights = np.arange(len(words), 0, -1.0)
    paragraphs = []
    while characters > 0:
        chosen = random.choice(words, 60, p=weights / weights.sum())
        paragraphs.append(" ".join(chosen).capitalize() + ".")
        characters -= len(paragraphs[-1])
    return "\n\n".join(paragraphs)


def write_text(folder: Path, characters: int = 26_000) -> tuple[Path, Path]:
    """An objective file and a pool file."""
    objective, pool = folder / "wanted.txt", folder / "pool.txt"
    objective.write_text(prose(WANTED, characters, seed=1))
    pool.write_text(prose(OTHER, characters, seed=2))
    return objective, pool


def write_base(folder: Path) -> Path:
    """A random GPT-2 of 2 layers x 32 with a byte-level tokenizer, as transformers saves them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = train_tokenizer([prose(WANTED, 4000, 3), prose(OTHER, 4000, 4)], VOCABULARY)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=32,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_OF_TEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def tiny_recipe(objective: Path, pool: Path, base: Path) -> LearnerRecipe:
    """200 contexts of 16 tokens from own text, 8 of them checked exactly."""
    labels = LabelPlan(contexts=200, objective_contexts=16, exact=8)
    recipe = own_recipe("tiny", objective, pool)
    return replace(recipe, base=str(base), context_length=16, labels=labels)
