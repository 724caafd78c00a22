"""transformers' Trainer with a filter: one import and one argument."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers.trainer_utils import TrainOutput

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.files import atomic_path
from secondary_learners.filtering.decisions import BatchFilter, RandomFilter
from secondary_learners.filtering.weights import ScoreWeights
from secondary_learners.trainers.buffer import Buffer
from secondary_learners.trainers.checks import (
    check_engine,
    check_filter,
    check_tokens,
    check_weights,
)
from secondary_learners.trainers.deciding import Decider, Forwards, Position
from secondary_learners.trainers.engine import TrainerEngine
from secondary_learners.trainers.layout import Layout
from secondary_learners.trainers.rows import Rows
from secondary_learners.trainers.savings import Savings
from secondary_learners.trainers.updating import back_propagate, plan_update

__all__ = ["FilteredTrainer"]

_STATE = "filter_{rank}.pt"
_log = logging.getLogger(__name__)


class FilteredTrainer(transformers.Trainer):
    """A `transformers.Trainer` that trains only on what a filter keeps.

        trainer = FilteredTrainer(model, args, train_dataset=..., filter=MultistageFilter())

    Args:
        filter: A `MultistageFilter`, `LearnerFilter`, `RandomFilter` or other `BatchFilter`; None
            is plain training. Every run begins with the filter as it was given, also a second
            `train()`, a trial of `hyperparameter_search` and a try of `auto_find_batch_size`.
        forwards: How examples are run whose loss the filter needs: see below.
        hold: How many forward passes may wait with their activations.
        columns: What columns of your own are, by name: "tokens" (cut and padded with them),
            "targets" (along a decoder's tokens), "value" (one for each row) or "positions" (places
            among the tokens).
        weights: How much examples count in the loss, by their scores, with a filter or without.
        sampler: The order of the examples instead of the Trainer's own, such as a `ScoreSampler`.

    Raises:
        SecondaryLearnersError: For `nn.DataParallel`, and for FSDP and DeepSpeed with a filter that
            needs losses; for something else than a filter; for weights together with label
            smoothing or a loss function of one's own; while training, for a column nobody declared
            and a loss that is not known.
        IncompatibleError: For a learner that was made for another tokenizer than that of
            `processing_class`, of the collator or, where neither has one, of a model with as many
            token embeddings.

    **Steps.** A step is what it is in the Trainer: one batch of *candidates*, so `global_step`,
    `max_steps`, epochs, warm-up, the learning-rate schedule, and the intervals of logging,
    evaluating and saving follow the position in the data. An epoch is one pass over the data, a
    schedule ends with the last batch of it whatever the filter keeps, and a run takes no more steps
    than without a filter. What is kept waits until it fills a whole batch (of all processes and
    accumulation steps); only then, and with whatever is left at the end of each epoch and of the
    run, the optimizer updates the weights: `savings.updates` counts that. In the steps between, the
    callbacks are called and the schedule moves on, at no cost. A run stopped earlier by a callback
    leaves what waits untrained (`savings.waiting`), and what was admitted and not yet run.

    **Forward passes.** A filter that needs an example's loss costs it a forward pass. What then
    happens to the examples kept is for `forwards` to say; let a forward pass of a batch of n cost n
    units and a backward pass 2n, and k be kept:

    - "again": the first pass runs without a graph (no activations are stored), and the kept are run
      again in full batches: n + 3k.
    - "same": the first pass stores its activations, and the kept are back-propagated from it: n +
      2n = 3n whenever k > 0, because a backward pass takes all rows of its batch, as kept or not
      they share every matrix product (measured with 8 rows: 65 ms for 1, 4 or 8 kept). Up to `hold`
      batches of activations wait in memory, besides the one in use; what is kept of further ones is
      run again. An update takes all that waits once that is 2/3 of a batch: what it left would need
      another pass, its weights having changed.
    - "auto": "same" while more than 2/3 of what is run is kept, which is where it is the cheaper
      one; else "again".

    What a predictor admitted is run once it fills a batch, or the epoch ends.

    Stage 0 of `MultistageFilter` and filters that need no losses take one forward pass an example
    in any case. All passes of training have dropout on, those that only decide included: a
    threshold learnt with dropout would not suit losses without it. "same" needs the Trainer's own
    loss (no label smoothing, loss function or subclass that computes its own), else it means
    "again".

    **Several processes.** Each filters its own shard with a filter state of its own. After each
    step they exchange counts, and update together when what they kept adds up to a whole batch:
    one that kept nothing takes part with a gradient of zero. Gradients are averaged in one go at
    the update, outside DistributedDataParallel. Under FSDP and DeepSpeed, filters that need no
    losses choose before the sharded model is run, and all processes run it equally often: one that
    kept nothing takes part with a row whose loss counts nothing.

    **Checkpoints** hold the filter and what waits for its batch, one file a process; a resumed run
    makes the same decisions and gets the same weights as an uninterrupted one.

    **Log.** Each line of the Trainer's log gets `filter_seen`, `filter_kept`,
    `filter_skipped_backward`, `filter_skipped_forward`, `filter_updates` and what the filter says
    of itself (`filter_stage`, `filter_threshold`); the last one what was saved. `loss` and
    `grad_norm` are those of updates: a step without one repeats the newest. `savings`, printed, is
    a table; `train` logs it.
    """

    def __init__(
        self,
        *args: Any,
        filter: BatchFilter | None = None,
        forwards: Forwards = "auto",
        hold: int = 2,
        columns: Mapping[str, str] | None = None,
        weights: ScoreWeights | None = None,
        sampler: Sampler[int] | None = None,
        **kwargs: Any,
    ) -> None:
        check_filter(filter)
        if filter is None and weights is not None:
            filter = RandomFilter(1.0)
        self.filter = filter
        self._weights, self._own_sampler = weights, sampler
        self.savings = Savings()
        self._own_columns = columns
        self._forwards: Forwards = forwards
        self._hold = hold
        self._fresh = {} if filter is None else copy.deepcopy(filter.state_dict())
        super().__init__(*args, **kwargs)
        if filter is not None:
            check_engine(filter, self)
            check_tokens(filter, self)
            if weights is not None:
                check_weights(self)
                check_tokens(weights, self)
            self._begin(filter)

    def _begin(self, filter: BatchFilter) -> None:
        """The state of a run before its first step."""
        self._filter = filter
        filter.load_state_dict(copy.deepcopy(self._fresh))
        self._seen_before = asdict(filter.counts)
        self._decider = Decider(
            filter, size=self._train_batch_size, forwards=self._forwards, hold=self._hold
        )
        self._kept = Buffer()
        self._layout = Layout.of_model(
            cast(nn.Module, self.model), self.processing_class, self._own_columns
        )
        self._left = False  # whether the collator pads on the left, once a batch shows it
        self._engine = TrainerEngine(self, filter, self._weights, super().floating_point_ops)
        self._loss, self._norm, self._updated = 0.0, None, False
        self.savings = Savings()

    # What the Trainer calls.

    def _inner_training_loop(
        self, batch_size: int | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        if self.filter is None:
            return super()._inner_training_loop(batch_size, *args, **kwargs)
        if batch_size is not None:  # auto_find_batch_size tries again with a smaller one
            self._train_batch_size = batch_size
        self._begin(self.filter)
        output = super()._inner_training_loop(batch_size, *args, **kwargs)
        if self.is_world_process_zero():
            _log.info("\n%s", self.savings)
        return output

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Decide on one batch of candidates, and update the weights when a whole batch is kept."""
        if self.filter is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()  # type: ignore[union-attr]
        batch = self._prepare_inputs(inputs)
        begun = time.perf_counter()
        rows = Rows.of(batch, self._layout)
        self._engine.begin(model, rows, counts_items=num_items_in_batch is not None)
        if rows.left_padded is not None:
            self._left = rows.left_padded
        self.savings.plain_flops += self._engine.training_flops(rows)
        state = self.accelerator.gradient_state
        step, total = self.state.global_step, self.state.max_steps
        ends = state.end_of_dataloader or step + 1 >= total
        # Both are known batches ahead of the last one of a step.
        at = Position(step, total, bool(ends and state.sync_gradients), self._left)
        self._decider.decide(rows, self._kept, self._engine.forward, at)
        self.savings.seconds_choosing += time.perf_counter() - begun
        if not state.sync_gradients:  # more batches belong to this step
            return torch.zeros((), device=self.args.device)
        begun = time.perf_counter()
        self._updated = self._update(at)
        self.savings.seconds_training += time.perf_counter() - begun
        # Without gradients to apply, the optimizer's step does nothing.
        state._set_sync_gradients(self._updated)
        return torch.tensor(self._loss, device=self.args.device)

    def floating_point_ops(self, inputs: dict[str, Tensor | Any]) -> int:
        """The operations spent since this was asked last, whatever `inputs` would have taken."""
        if self.filter is None:
            return int(super().floating_point_ops(inputs))
        return int(self._engine.take_flops())

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self._own_sampler is not None:
            return self._own_sampler
        return super()._get_train_sampler(train_dataset)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> Any:
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if self.filter is not None:
            # Torch would warn that the schedule moves before the first update, which is meant.
            cast(Any, scheduler).optimizer._opt_called = True
        return scheduler

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if self.filter is None:
            return super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if self._updated:
            self._norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        return self._norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        if self.filter is None or self._updated:
            norm = super()._get_grad_norm(  # type: ignore[no-untyped-call]
                model, grad_norm=grad_norm
            )
            self._norm = norm
        return self._norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.filter is not None and ("loss" in logs or "train_loss" in logs):
            logs.update(self.savings.log())
            logs.update({f"filter_{name}": value for name, value in self.filter.status().items()})
            if "train_loss" in logs:
                logs.update(self.savings.final_log())
        super().log(logs, start_time)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.filter is None:
            return
        # No graph can be saved; forgetting it here too keeps this run and a resumed one alike.
        self._kept.release()
        state = {
            **self._decider.state_dict(),
            "pending": self._kept.state_dict(),
            "left": self._left,
            "loss": self._loss,
            "norm": None if self._norm is None else float(self._norm),
            "savings": asdict(self.savings),
            "seen_before": self._seen_before,
            "processes": self.args.world_size,
        }
        with atomic_path(self._state_path(output_dir)) as path:
            torch.save(state, path)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or self.filter is None:
            return
        path = self._state_path(checkpoint)
        if not path.is_file():
            raise SecondaryLearnersError(
                f"{checkpoint} has no {path.name}, so the filter's state is not known. Resume from "
                "a checkpoint of FilteredTrainer with as many processes, or start without one."
            )
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state["processes"] != self.args.world_size:
            raise SecondaryLearnersError(
                f"{checkpoint} was saved by {state['processes']} processes, and these are "
                f"{self.args.world_size}. Resume with as many."
            )
        self._decider.load_state_dict(state, self._layout, self.args.device)
        self._kept.load_state_dict(state["pending"], self._layout, self.args.device)
        self._left, self._loss, self._norm = state["left"], state["loss"], state["norm"]
        self.savings = Savings(**state["savings"])
        self._seen_before = state["seen_before"]

    def _update(self, at: Position) -> bool:
        """Back-propagate a whole batch of what is kept, if there is one; True if so."""
        counts = self._count()
        waiting = counts[:, 0].tolist()
        args = self.args
        whole = self._train_batch_size * args.gradient_accumulation_steps * args.world_size
        quotas = plan_update(waiting, counts[:, 1].tolist(), whole, last=at.last)
        if quotas is None:
            return False
        taken = self._kept.take(quotas[args.process_index])
        engine = self._engine
        self._loss = back_propagate(taken, engine, size=self._train_batch_size, left=self._left)
        engine.average_gradients()
        if args.device.type == "cuda":  # else the time would be counted with the next choice
            torch.cuda.synchronize()
        self.savings.updates += 1
        self.savings.trained += sum(quotas)
        self.savings.waiting = sum(waiting) - sum(quotas)
        return True

    def _count(self) -> Tensor:
        """What waits in every process, and what of it with its graph [processes, 2 and more]."""
        now, before = asdict(self._filter.counts), self._seen_before
        names = ("seen", "skipped_forward", "skipped_backward")
        changes = [now[name] - before[name] for name in names]
        counts = self._engine.gather([len(self._kept), self._kept.held_examples, *changes]).long()
        for name, value in zip(names, counts[:, 2:].sum(dim=0).tolist(), strict=True):
            setattr(self.savings, name, value)
        self.savings.waiting = int(counts[:, 0].sum())
        return counts

    def _state_path(self, folder: str) -> Path:
        return Path(folder) / _STATE.format(rank=self.args.process_index)
