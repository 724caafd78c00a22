"""transformers' Trainer with a filter: one import and one argument."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.trainer_utils import TrainOutput

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.files import atomic_path
from secondary_learners.filtering.decisions import BatchFilter
from secondary_learners.trainers.buffer import Buffer
from secondary_learners.trainers.checks import check_filter, check_tokens, refuse_engines
from secondary_learners.trainers.deciding import Decider, Forwards, Pass, Position
from secondary_learners.trainers.layout import Layout
from secondary_learners.trainers.losses import IGNORED, example_losses, loss_items
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

    Raises:
        SecondaryLearnersError: For FSDP, DeepSpeed and `nn.DataParallel`; for something else than
            a filter; while training, for a column nobody declared and a loss that is not known.
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
    the update, outside DistributedDataParallel. FSDP, DeepSpeed and `nn.DataParallel` are refused.

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
        **kwargs: Any,
    ) -> None:
        check_filter(filter)
        self.filter = filter
        self.savings = Savings()
        self._own_columns = columns
        self._forwards: Forwards = forwards
        self._hold = hold
        self._fresh = {} if filter is None else copy.deepcopy(filter.state_dict())
        super().__init__(*args, **kwargs)
        if filter is not None:
            refuse_engines(self)
            check_tokens(filter, self)
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
        self._flops = 0.0
        self._flops_per_token: float | None = None
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
        self._network = model.module if isinstance(model, DistributedDataParallel) else model
        self._counts_items = num_items_in_batch is not None
        batch = self._prepare_inputs(inputs)
        begun = time.perf_counter()
        rows = self._latest = Rows.of(batch, self._layout)
        if rows.left_padded is not None:
            self._left = rows.left_padded
        self.savings.plain_flops += self._training_flops(rows)
        state = self.accelerator.gradient_state
        step, total = self.state.global_step, self.state.max_steps
        ends = state.end_of_dataloader or step + 1 >= total
        # Both are known batches ahead of the last one of a step.
        at = Position(step, total, bool(ends and state.sync_gradients), self._left)
        self._decider.decide(rows, self._kept, self._pass, at)
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
        spent, self._flops = self._flops, 0.0
        return int(spent)

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

    # Deciding: the forward pass of candidates.

    @property
    def _pass(self) -> Pass:
        """A forward pass of training."""
        plain = type(self).compute_loss is transformers.Trainer.compute_loss
        plain = plain and self.label_smoother is None and self.compute_loss_func is None
        return Pass(self._losses, self._training_flops, can_store=plain)

    def _losses(self, rows: Rows, with_graph: bool) -> Tensor:
        """The loss of each row [rows], in a forward pass of training."""
        inputs = dict(rows.columns)
        labels = {name: inputs.pop(name) for name in self.label_names if name in inputs}
        self._spend(self._training_flops(rows) / 3)
        if set(labels) == {"labels"} and rows.encodes_targets:
            inputs |= labels  # the decoder's input is made from them
        with torch.set_grad_enabled(with_graph), self.compute_loss_context_manager():
            outputs = self._network(**inputs)
            return example_losses(outputs, labels, shifted=self._shifted)

    def _training_flops(self, rows: Rows) -> float:
        """What a forward and a backward pass of the rows take; a third of it is forward."""
        numel = rows.main.numel()
        if self._flops_per_token is None:  # counting the parameters takes long
            flops = super().floating_point_ops(cast(Any, rows.columns))
            self._flops_per_token = flops / max(1, numel)
        return self._flops_per_token * numel

    def _spend(self, flops: float, *, training: bool = False) -> None:
        self._flops += flops
        self.savings.flops += flops
        self.savings.training_flops += flops * training

    # Updating: what `updating.Engine` asks of this process.

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
        self._loss = back_propagate(taken, self, size=self._train_batch_size, left=self._left)
        self._average_gradients()
        if args.device.type == "cuda":  # else the time would be counted with the next choice
            torch.cuda.synchronize()
        self.savings.updates += 1
        self.savings.trained += sum(quotas)
        self.savings.waiting = sum(waiting) - sum(quotas)
        return True

    @property
    def processes(self) -> int:
        return int(self.args.world_size)

    def loss(self, batch: Rows, total: int) -> Tensor:
        self._spend(self._training_flops(batch), training=True)
        outputs: list[Any] = []
        hook = None
        labels = {name: batch.columns[name] for name in self.label_names if name in batch.columns}
        if labels and not self._filter.needs_losses and self._filter.observes:
            hook = self._network.register_forward_hook(lambda *call: outputs.append(call[-1]))
        try:
            with self.compute_loss_context_manager():
                loss = self._scaled_loss(batch, total)
        finally:
            if hook is not None:
                hook.remove()
        if outputs:
            with torch.no_grad():
                losses = example_losses(outputs[-1], labels, shifted=self._shifted)
            self._filter.observe(losses.double().cpu().numpy())
        return loss

    def _scaled_loss(self, batch: Rows, total: int) -> Tensor:
        """The loss whose gradients, averaged over processes, add up to those of the mean."""
        args = self.args
        count: Tensor | None = None
        if self._counts_items:
            terms = total if args.average_tokens_across_devices else total / args.world_size
            count = torch.tensor(terms, device=args.device)
        self.current_gradient_accumulation_steps = 1
        loss = self.compute_loss(
            self._network, cast(Any, dict(batch.columns)), num_items_in_batch=count
        )
        assert isinstance(loss, Tensor)
        scaled = getattr(self, "loss_is_scaled_for_ga", None)
        if scaled is None:
            scaled = self._counts_items and (
                self.model_accepts_loss_kwargs or self.compute_loss_func
            )
        if not scaled:  # the mean of this batch alone
            loss = loss * (int(self.counted(batch).sum()) * args.world_size / max(1, total))
        return loss

    def stand_in(self, total: int) -> None:
        """Compute a loss for nothing, as often as other processes compute theirs.

        A subclass may exchange its metrics while it computes a loss, as TRL's SFTTrainer does, and
        would wait for ever. The labels are such that no loss and no metric counts them.
        """
        row = self._latest.part(0, 1)
        labels = row.columns.get("labels")
        if isinstance(labels, Tensor) and not labels.is_floating_point():
            row = Rows({**row.columns, "labels": torch.full_like(labels, IGNORED)}, row.layout)
        with torch.no_grad(), self.compute_loss_context_manager():
            self._scaled_loss(row, total)

    def counted(self, rows: Rows) -> Tensor:
        return self._terms(rows, shifted=bool(getattr(self, "_loss_shifts_labels", False)))

    def terms(self, rows: Rows) -> Tensor:
        return self._terms(rows, shifted=self._shifted)

    def _terms(self, rows: Rows, *, shifted: bool) -> Tensor:
        labels = rows.columns.get("labels")
        if not isinstance(labels, Tensor):
            return torch.ones(len(rows), dtype=torch.int64, device=self.args.device)
        return loss_items(labels, shifted=shifted)

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def spend(self, flops: float) -> None:
        self._spend(flops, training=True)

    def gather(self, values: Sequence[int]) -> Tensor:
        if self.args.world_size == 1:
            return torch.tensor([values])
        mine = torch.tensor([values], device=self.args.device)
        return cast(Tensor, self.accelerator.gather(mine)).cpu()

    def _count(self) -> Tensor:
        """What waits in every process, and what of it with its graph [processes, 2 and more]."""
        now, before = asdict(self._filter.counts), self._seen_before
        names = ("seen", "skipped_forward", "skipped_backward")
        changes = [now[name] - before[name] for name in names]
        counts = self.gather([len(self._kept), self._kept.held_examples, *changes])
        for name, value in zip(names, counts[:, 2:].sum(dim=0).tolist(), strict=True):
            setattr(self.savings, name, value)
        self.savings.waiting = int(counts[:, 0].sum())
        return counts

    def _average_gradients(self) -> None:
        if self.args.world_size == 1:
            return
        waits = []
        gradients = []
        for parameter in self._network.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
                waits.append(torch.distributed.all_reduce(parameter.grad, async_op=True))
        for wait in waits:
            wait.wait()
        torch._foreach_div_(gradients, self.args.world_size)

    @cached_property
    def _shifted(self) -> bool:
        """Whether the model's logits of a position are for the label of the next one."""
        config = getattr(self.model, "config", None)
        loss = getattr(self.model, "loss_function", None)
        return loss is ForCausalLMLoss and not getattr(config, "is_encoder_decoder", False)

    def _state_path(self, folder: str) -> Path:
        return Path(folder) / _STATE.format(rank=self.args.process_index)
