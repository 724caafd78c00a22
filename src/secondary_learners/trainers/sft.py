"""TRL's SFTTrainer with a filter. Needs the extra `trl`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from secondary_learners.errors import MissingExtraError
from secondary_learners.trainers.trainer import FilteredTrainer

try:
    from trl import SFTTrainer
except ImportError as error:
    raise MissingExtraError("trl", "trl") from error

__all__ = ["FilteredSFTTrainer"]


class FilteredSFTTrainer(FilteredTrainer, SFTTrainer):  # type: ignore[misc]
    """A `trl.SFTTrainer` that trains only on what a filter keeps: see `FilteredTrainer`.

        trainer = FilteredSFTTrainer(model, args, train_dataset=..., filter=LearnerFilter(...))

    Everything else is SFTTrainer's: data preparation, PEFT, its loss and its metrics, which are
    those of updates. Examples must be told apart, so packing into padding-free batches is refused
    at the first of them.

    Args:
        filter: which examples are run and trained on; see `FilteredTrainer`, whose other arguments
            it has too.
        **kwargs: those of SFTTrainer.

    Raises:
        MissingExtraError: on import, without the extra `trl`.
        SecondaryLearnersError: as `FilteredTrainer` does.
    """

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        with self.maybe_activation_offload_context:
            return super().training_step(*args, **kwargs)
