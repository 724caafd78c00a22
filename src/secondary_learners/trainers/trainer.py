"""transformers' Trainer with a filter: one import and one argument."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch
import transformers
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.trainer_utils import TrainOutput

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError
from secondary_learners.files import atomic_path
from secondary_learners.filtering.decisions import BatchFilter
from secondary_learners.trainers.losses import IGNORED, example_losses, loss_items
from secondary_learners.trainers.pending import Padding, Pending, Rows
from secondary_learners.trainers.savings import Savings

__all__ = ["FilteredTrainer", "Forwards", "shares"]

Forwards = Literal["auto", "again", "same"]
_STATE = "filter_{rank}.pt"
_log = logging.getLogger(__name__)


class FilteredTrainer(transformers.Trainer):
    """A `transformers.Trainer` that trains only on what a filter keeps.

        trainer = FilteredTrainer(model, args, train_dataset=..., filter=MultistageFilter())

    filter: a `MultistageFilter`, `LearnerFilter`, `RandomFilter` or other `BatchFilter`. It begins
        where it stands: give every run its own.

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
        filter: BatchFilter,
        forwards: Forwards = "auto",
        hold: int = 2,
        **kwargs: Any,
    ) -> None:
        if forwards not in ("auto", "again", "same"):
            raise UnknownNameError(
                "way of forward passes", str(forwards), ("auto", "again", "same"), "forwards='auto'"
            )
        super().__init__(*args, **kwargs)
        self.filter = filter
        self.savings = Savings()
        self._seen_before = asdict(filter.counts)
        self._forwards, self._hold = forwards, hold
        self._admitted, self._pending = Pending(), Pending()  # to decide on; to train on
        self._shares: deque[tuple[int, int]] = deque(maxlen=16)  # (kept, run) of recent batches
        self._flops = 0.0
        self._flops_per_token: float | None = None
        self._side = "right"  # where the collator pads, once a batch shows it
        self._loss, self._norm, self._updated = 0.0, None, False
        self._refuse()
        if self.processing_class is not None and hasattr(self.processing_class, "get_vocab"):
            filter.check_tokenizer(self.processing_class)

    # What the Trainer calls.

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> TrainOutput:
        self.savings = Savings()
        self._admitted, self._pending = Pending(), Pending()
        self._shares.clear()
        self._loss, self._norm = 0.0, None
        self._seen_before = asdict(self.filter.counts)
        output = super()._inner_training_loop(*args, **kwargs)
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
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()  # type: ignore[union-attr]
        network = model.module if isinstance(model, DistributedDataParallel) else model
        batch = self._prepare_inputs(inputs)
        begun = time.perf_counter()
        rows = Rows.of(batch, self._main)
        self.savings.plain_flops += self._training_flops(rows)
        self._choose(network, rows)
        self.savings.seconds_choosing += time.perf_counter() - begun
        state = self.accelerator.gradient_state
        if not state.sync_gradients:  # more batches belong to this step
            return torch.zeros((), device=self.args.device)
        begun = time.perf_counter()
        self._updated = self._update(network, rows, counted=num_items_in_batch is not None)
        self.savings.seconds_training += time.perf_counter() - begun
        # Without gradients to apply, the optimizer's step does nothing.
        state._set_sync_gradients(self._updated)
        return torch.tensor(self._loss, device=self.args.device)

    def floating_point_ops(self, inputs: dict[str, Tensor | Any]) -> int:
        """The operations spent since this was asked last, whatever `inputs` would have taken."""
        spent, self._flops = self._flops, 0.0
        return int(spent)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> Any:
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        # Torch would warn that the schedule moves before the first update, which is meant.
        cast(Any, scheduler).optimizer._opt_called = True
        return scheduler

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if self._updated:
            self._norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        return self._norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        if self._updated:
            self._norm = super()._get_grad_norm(  # type: ignore[no-untyped-call]
                model, grad_norm=grad_norm
            )
        return self._norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs or "train_loss" in logs:
            logs.update(self.savings.log())
            logs.update({f"filter_{name}": value for name, value in self.filter.status().items()})
        if "train_loss" in logs:
            logs.update(self.savings.final_log())
        super().log(logs, start_time)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        # No graph can be saved; forgetting it here too keeps this run and a resumed one alike.
        self._pending.release()
        state = {
            "filter": self.filter.state_dict(),
            "admitted": self._admitted.state_dict(),
            "pending": self._pending.state_dict(),
            "shares": list(self._shares),
            "side": self._side,
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
        if checkpoint is None:
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
        self.filter.load_state_dict(state["filter"])
        self._admitted.load_state_dict(state["admitted"], self._main, self.args.device)
        self._pending.load_state_dict(state["pending"], self._main, self.args.device)
        self._shares.extend(state["shares"])
        self._side = state["side"]
        self._loss, self._norm = state["loss"], state["norm"]
        self.savings = Savings(**state["savings"])
        self._seen_before = state["seen_before"]

    # Choosing.

    def _choose(self, network: nn.Module, rows: Rows) -> None:
        ids, mask = rows.tokens
        if not mask.all():
            self._side = "right" if mask[:, 0].all() else "left"
        step, total = self.state.global_step, self.state.max_steps
        admitted = self.filter.admit(ids, mask, step=step, total=total)
        self._admitted.add(rows.select(admitted))
        if not self.filter.needs_losses:
            for part in self._admitted.take(len(self._admitted)):
                self._pending.add(part)
            return
        size, last = self._train_batch_size, self._last
        while len(self._admitted) >= size or (len(self._admitted) and last):
            taken = self._admitted.take(min(size, len(self._admitted)))
            self._decide(network, Rows.joined(taken, self._padding).trimmed())

    def _decide(self, network: nn.Module, rows: Rows) -> None:
        """Run the rows, and put those that the filter keeps for their losses with the pending."""
        with_graph = self._with_graph()
        losses = self._losses(network, rows, with_graph)
        values = losses.detach().double().cpu().numpy()
        kept = self.filter.keep(values, *rows.tokens)
        self._shares.append((int(kept.sum()), len(kept)))
        if with_graph:
            rows = Rows(rows.columns, rows.main, losses, self._training_flops(rows))
        self._pending.add(rows.select(kept))

    def _with_graph(self) -> bool:
        """Whether the next forward pass stores its activations; see the class."""
        own_loss = type(self).compute_loss is not transformers.Trainer.compute_loss
        if self._forwards == "again" or self._pending.held >= self._hold:
            return False
        if own_loss or self.label_smoother is not None or self.compute_loss_func is not None:
            return False
        kept = sum(kept for kept, _ in self._shares)
        run = sum(run for _, run in self._shares)
        return self._forwards == "same" or 3 * kept > 2 * run

    def _losses(self, network: nn.Module, rows: Rows, with_graph: bool) -> Tensor:
        """The loss of each row [rows], in a forward pass of training."""
        inputs = dict(rows.columns)
        labels = self._labels(inputs)
        self._spend(self._training_flops(rows) / 3)
        with torch.set_grad_enabled(with_graph), self.compute_loss_context_manager():
            outputs = network(**inputs)
            return example_losses(outputs, labels, shifted=self._shifted)

    def _labels(self, inputs: dict[str, Tensor]) -> Tensor:
        if "labels" not in inputs:
            raise SecondaryLearnersError(
                f"a batch has no 'labels', only {', '.join(inputs)}; this filter decides by an "
                "example's loss. Try a LearnerFilter, which needs none, or rename the column."
            )
        return inputs.pop("labels")

    @property
    def _last(self) -> bool:
        """Whether this is the last batch of an epoch or of the run."""
        state = self.accelerator.gradient_state
        ends = state.end_of_dataloader or self.state.global_step + 1 >= self.state.max_steps
        return bool(ends and state.sync_gradients)  # both are known batches ahead of the last

    def _training_flops(self, rows: Rows) -> float:
        """What a forward and a backward pass of the rows take; a third of it is forward."""
        numel = rows.columns[rows.main].numel()
        if self._flops_per_token is None:  # counting the parameters takes long
            self._flops_per_token = super().floating_point_ops(rows.columns) / max(1, numel)
        return self._flops_per_token * numel

    def _spend(self, flops: float, *, training: bool = False) -> None:
        self._flops += flops
        self.savings.flops += flops
        self.savings.training_flops += flops * training

    # Updating.

    def _update(self, network: nn.Module, latest: Rows, *, counted: bool) -> bool:
        """Back-propagate a whole batch of what is pending, if there is one; True if so."""
        counts = self._count()
        waiting = counts[:, 0].tolist()
        held = bool((counts[:, 0] == counts[:, 1]).all())
        args = self.args
        whole = self._train_batch_size * args.gradient_accumulation_steps * args.world_size
        enough = 3 * sum(waiting) >= 2 * whole if held else sum(waiting) >= whole
        if not sum(waiting) or not (enough or self._last):
            return False
        quotas = waiting if held or self._last else shares(waiting, whole)
        taken = self._pending.take(quotas[args.process_index])
        self._loss = self._backward(network, taken, latest, counted)
        self._average_gradients(network)
        if args.device.type == "cuda":  # else the time would be counted with the next choice
            torch.cuda.synchronize()
        self.savings.updates += 1
        self.savings.trained += sum(quotas)
        self.savings.waiting = sum(waiting) - sum(quotas)
        return True

    def _backward(
        self, network: nn.Module, taken: Sequence[Rows], latest: Rows, counted: bool
    ) -> float:
        """Add the gradients of this process's share of the batch; its part of the logged loss."""
        size = self._train_batch_size
        fresh = [part for part in taken if part.losses is None]
        batches: list[Rows] = []
        if fresh:
            joined = Rows.joined(fresh, self._padding)
            batches = [
                joined.part(begin, begin + size).trimmed() for begin in range(0, len(joined), size)
            ]
        items = [self._items(part) for part in taken]
        sums = self._gather([sum(int(part.sum()) for part in items), len(batches)])
        total, most = int(sums[:, 0].sum()), int(sums[:, 1].max())
        processes = self.args.world_size
        loss = 0.0
        for batch in batches:
            loss += self._step_on(network, batch, total, counted)
        for _ in range(most - len(batches)):
            self._stand_in(network, latest, total, counted)
        held = [
            (part.losses * self._terms(part, shifted=self._shifted)).sum()
            for part in taken
            if part.losses is not None
        ]
        if held:
            value = torch.stack(held).sum() * (processes / max(1, total))
            self.accelerator.backward(value)
            loss += float(value.detach())
            backward = sum(part.flops for part in taken if part.losses is not None) * 2 / 3
            self._spend(backward, training=True)
        return loss

    def _step_on(self, network: nn.Module, batch: Rows, total: int, counted: bool) -> float:
        """Back-propagate one batch's part of the mean loss over `total` terms of all processes."""
        self._spend(self._training_flops(batch), training=True)
        outputs: list[Any] = []
        hook = None
        if not self.filter.needs_losses and "labels" in batch.columns:
            hook = network.register_forward_hook(lambda *call: outputs.append(call[-1]))
        try:
            with self.compute_loss_context_manager():
                loss = self._scaled_loss(network, batch, total, counted)
        finally:
            if hook is not None:
                hook.remove()
        self.accelerator.backward(loss)
        if outputs:
            with torch.no_grad():
                losses = example_losses(outputs[-1], batch.columns["labels"], shifted=self._shifted)
            self.filter.observe(losses.double().cpu().numpy())
        return float(loss.detach())

    def _scaled_loss(self, network: nn.Module, batch: Rows, total: int, counted: bool) -> Tensor:
        """The loss whose gradients, averaged over processes, add up to those of the mean."""
        args = self.args
        count: Tensor | None = None
        if counted:
            terms = total if args.average_tokens_across_devices else total / args.world_size
            count = torch.tensor(terms, device=args.device)
        self.current_gradient_accumulation_steps = 1
        loss = self.compute_loss(network, dict(batch.columns), num_items_in_batch=count)
        assert isinstance(loss, Tensor)
        scaled = getattr(self, "loss_is_scaled_for_ga", None)
        if scaled is None:
            scaled = counted and (self.model_accepts_loss_kwargs or self.compute_loss_func)
        if not scaled:  # the mean of this batch alone
            loss = loss * (int(self._items(batch).sum()) * args.world_size / max(1, total))
        return loss

    def _stand_in(self, network: nn.Module, latest: Rows, total: int, counted: bool) -> None:
        """Compute a loss for nothing, as often as other processes compute theirs.

        A subclass may exchange its metrics while it computes a loss, as TRL's SFTTrainer does, and
        would wait for ever. The labels are such that no loss and no metric counts them.
        """
        row = latest.part(0, 1)
        labels = row.columns.get("labels")
        if labels is not None and not labels.is_floating_point():
            row = Rows({**row.columns, "labels": torch.full_like(labels, IGNORED)}, row.main)
        with torch.no_grad(), self.compute_loss_context_manager():
            self._scaled_loss(network, row, total, counted)

    def _items(self, rows: Rows) -> Tensor:
        """The terms of each row [rows], counted as the Trainer counts them."""
        return self._terms(rows, shifted=bool(getattr(self, "_loss_shifts_labels", False)))

    def _terms(self, rows: Rows, *, shifted: bool) -> Tensor:
        labels = rows.columns.get("labels")
        if labels is None:
            return torch.ones(len(rows), dtype=torch.int64, device=self.args.device)
        return loss_items(labels, shifted=shifted)

    # Several processes.

    def _count(self) -> Tensor:
        """What waits in every process, and what of it with its graph [processes, 2 and more]."""
        now, before = asdict(self.filter.counts), self._seen_before
        names = ("seen", "skipped_forward", "skipped_backward")
        changes = [now[name] - before[name] for name in names]
        counts = self._gather([len(self._pending), self._pending.held_examples, *changes])
        for name, value in zip(names, counts[:, 2:].sum(dim=0).tolist(), strict=True):
            setattr(self.savings, name, value)
        self.savings.waiting = int(counts[:, 0].sum())
        return counts

    def _gather(self, values: Sequence[int]) -> Tensor:
        """The values of every process [processes, values]."""
        if self.args.world_size == 1:
            return torch.tensor([values])
        mine = torch.tensor([values], device=self.args.device)
        return cast(Tensor, self.accelerator.gather(mine)).cpu()

    def _average_gradients(self, network: nn.Module) -> None:
        if self.args.world_size == 1:
            return
        waits = []
        gradients = []
        for parameter in network.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
                waits.append(torch.distributed.all_reduce(parameter.grad, async_op=True))
        for wait in waits:
            wait.wait()
        torch._foreach_div_(gradients, self.args.world_size)

    # Facts.

    @property
    def _main(self) -> str:
        return getattr(self.model, "main_input_name", "input_ids")

    @cached_property
    def _shifted(self) -> bool:
        """Whether the model's logits of a position are for the label of the next one."""
        config = getattr(self.model, "config", None)
        loss = getattr(self.model, "loss_function", None)
        return loss is ForCausalLMLoss and not getattr(config, "is_encoder_decoder", False)

    @property
    def _padding(self) -> Padding:
        tokenizer = self.processing_class
        config = getattr(self.model, "config", None)
        candidates = (
            getattr(tokenizer, "pad_token_id", None),
            getattr(config, "pad_token_id", None),
        )
        token = next((number for number in candidates if number is not None), 0)
        return Padding(token, self._side)

    def _state_path(self, folder: str) -> Path:
        return Path(folder) / _STATE.format(rank=self.args.process_index)

    def _refuse(self) -> None:
        for name, present in {
            "FSDP": self.is_fsdp_enabled,
            "DeepSpeed": self.is_deepspeed_enabled,
            "nn.DataParallel": self.args.n_gpu > 1,
        }.items():
            if present:
                raise SecondaryLearnersError(
                    f"FilteredTrainer cannot run under {name}, where processes must run the model "
                    "equally often. Try `accelerate launch --multi_gpu`, which gives each GPU a "
                    "process with the whole model."
                )


def shares(waiting: Sequence[int], whole: int) -> list[int]:
    """How many examples each process gives to a batch of `whole`, as evenly as they have them.

    >>> shares([9, 1, 4], 8)
    [4, 1, 3]
    """
    given = [0] * len(waiting)
    left = whole
    while left:
        open_ = [place for place, count in enumerate(waiting) if given[place] < count]
        each = max(
            1, min([left // len(open_), *(waiting[place] - given[place] for place in open_)])
        )
        for place in open_[:left]:
            given[place] += each
            left -= each
    return given
