"""What is checked before a filtered run: the filter, its tokenizer, the engine it runs in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import transformers

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.decisions import BatchFilter

__all__ = ["check_engine", "check_filter", "check_tokens", "check_weights"]


class _Reader(Protocol):
    """What reads token ids, or does not."""

    reads_tokens: bool

    def check_tokenizer(self, tokenizer: Any) -> None: ...

    def check_vocabulary(self, size: int) -> None: ...


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


def check_tokens(reader: _Reader, trainer: transformers.Trainer) -> None:
    """Raise unless a filter, or weights, read the tokens that the model is given.

    The tokenizer is that of `processing_class` or of the collator; where neither has one, the model
    must have as many token embeddings as the learner's vocabulary has tokens.
    """
    if not reader.reads_tokens:
        return
    main = getattr(trainer.model, "main_input_name", "input_ids")
    if main != "input_ids":
        raise SecondaryLearnersError(
            f"the model's input is {main!r}, and {type(reader).__name__} reads token ids. Try a "
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
            reader.check_tokenizer(tokenizer)
            return
    embeddings = getattr(trainer.model, "get_input_embeddings", lambda: None)()
    if embeddings is not None:
        reader.check_vocabulary(embeddings.num_embeddings)


def check_engine(filter: BatchFilter, trainer: transformers.Trainer) -> None:
    """Raise SecondaryLearnersError for an engine in which the filter cannot work."""
    way = "`accelerate launch --multi_gpu`, which gives each GPU a process with the whole model"
    if trainer.args.n_gpu > 1:
        raise SecondaryLearnersError(
            "FilteredTrainer cannot run under nn.DataParallel, which runs the model itself. "
            f"Try {way}."
        )
    name = "DeepSpeed" if trainer.is_deepspeed_enabled else "FSDP"
    sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
    if sharded and (filter.needs_losses or filter.observes):
        raise SecondaryLearnersError(
            f"{type(filter).__name__} decides by losses, and under {name} all processes must run "
            f"the model equally often. Try a LearnerFilter or a RandomFilter, or {way}."
        )


def check_weights(trainer: transformers.Trainer) -> None:
    """Raise SecondaryLearnersError for a loss that is not the mean of the examples' own."""
    config = getattr(trainer.model, "config", None)
    for what, present in {
        "label_smoothing_factor": trainer.label_smoother is not None,
        "compute_loss_func": trainer.compute_loss_func is not None,
        "loss_type": getattr(trainer.args, "loss_type", "nll") != "nll",
        "output_router_logits": getattr(config, "output_router_logits", False),
    }.items():
        if present:
            raise SecondaryLearnersError(
                f"weights of examples do not go with {what}, which makes another loss of theirs. "
                "Leave out one of the two."
            )
