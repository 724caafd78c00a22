"""What is checked before a filtered run: the filter, its tokenizer, the engine it runs in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.decisions import BatchFilter

__all__ = ["check_filter", "check_tokens", "refuse_engines"]


def check_filter(filter: Any) -> None:
    """Raise SecondaryLearnersError for what is not a filter, with the line that makes one."""
    if filter is None or hasattr(filter, "admit"):
        return
    if isinstance(filter, str | Path):
        wanted = f"LearnerFilter(load_learner({str(filter)!r}), 1.0)"
    elif hasattr(filter, "score"):
        wanted = "LearnerFilter(learner, 1.0)"
    else:
        wanted = "MultistageFilter()"
    raise SecondaryLearnersError(
        f"filter is {type(filter).__name__} {str(filter)[:60]!r}, and not a filter. "
        f"Write filter={wanted}; filter=None trains on everything."
    )


def check_tokens(filter: BatchFilter, trainer: transformers.Trainer) -> None:
    """Raise unless the filter reads the tokens that the model is given.

    The tokenizer is that of `processing_class` or of the collator; where neither has one, the model
    must have as many token embeddings as the learner's vocabulary has tokens.
    """
    if not filter.reads_tokens:
        return
    main = getattr(trainer.model, "main_input_name", "input_ids")
    if main != "input_ids":
        raise SecondaryLearnersError(
            f"the model's input is {main!r}, and {type(filter).__name__} reads token ids. Try a "
            "RandomFilter, or choose the examples before training."
        )
    collator = getattr(trainer, "data_collator", None)
    candidates = (
        trainer.processing_class,
        getattr(trainer.processing_class, "tokenizer", None),
        getattr(collator, "tokenizer", None),
    )
    for tokenizer in candidates:
        if tokenizer is not None and hasattr(tokenizer, "get_vocab"):
            filter.check_tokenizer(tokenizer)
            return
    embeddings = getattr(trainer.model, "get_input_embeddings", lambda: None)()
    if embeddings is not None:
        filter.check_vocabulary(embeddings.num_embeddings)


def refuse_engines(trainer: transformers.Trainer) -> None:
    """Raise SecondaryLearnersError for engines whose processes must run the model equally often."""
    for name, present in {
        "FSDP": trainer.is_fsdp_enabled,
        "DeepSpeed": trainer.is_deepspeed_enabled,
        "nn.DataParallel": trainer.args.n_gpu > 1,
    }.items():
        if present:
            raise SecondaryLearnersError(
                f"FilteredTrainer cannot run under {name}, where processes must run the model "
                "equally often. Try `accelerate launch --multi_gpu`, which gives each GPU a "
                "process with the whole model."
            )
