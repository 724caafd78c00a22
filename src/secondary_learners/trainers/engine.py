"""The engine of updates in a Trainer: its losses, their gradients and its processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers.loss.loss_utils import ForCausalLMLoss

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.decisions import BatchFilter
from secondary_learners.filtering.weights import ScoreWeights
from secondary_learners.trainers.deciding import Pass
from secondary_learners.trainers.losses import IGNORED, example_losses, loss_items
from secondary_learners.trainers.rows import Rows

if TYPE_CHECKING:
    from secondary_learners.trainers.trainer import FilteredTrainer

__all__ = ["TrainerEngine"]


class TrainerEngine:
    """What `updating.Engine` asks of this process, and the forward passes that decide.

    flops_of: the Trainer's own estimate of what training on a batch takes.
    """

    def __init__(
        self,
        trainer: FilteredTrainer,
        filter: BatchFilter,
        weights: ScoreWeights | None,
        flops_of: Callable[[Any], int],
    ) -> None:
        self._trainer, self._filter, self._weights = trainer, filter, weights
        self._flops_of = flops_of
        self._flops_per_token: float | None = None
        self._flops = 0.0
        # Of a sharded model every pass takes all processes, and averages gradients itself.
        self._sharded = bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)

    def begin(self, model: nn.Module, rows: Rows, *, counts_items: bool) -> None:
        """Take note of a batch of candidates, and of whether the Trainer counts loss terms."""
        # Of DistributedDataParallel, which averages after every pass, the model inside is run; a
        # sharded model exchanges its weights with other processes whenever it is run.
        self._network = model.module if isinstance(model, DistributedDataParallel) else model
        self._latest, self._counts_items = rows, counts_items

    @property
    def processes(self) -> int:
        return int(self._trainer.args.world_size)

    # Deciding: the forward pass of candidates.

    @property
    def forward(self) -> Pass:
        """A forward pass of training."""
        trainer = self._trainer
        plain = type(trainer).compute_loss is transformers.Trainer.compute_loss
        plain = plain and trainer.label_smoother is None and trainer.compute_loss_func is None
        return Pass(self._losses, self.training_flops, can_store=plain)

    def _losses(self, rows: Rows, with_graph: bool) -> Tensor:
        """The loss of each row [rows], in a forward pass of training."""
        if self._sharded:
            raise SecondaryLearnersError(
                f"{type(self._filter).__name__} asks for losses, and all processes must run a "
                "sharded model equally often. Try a LearnerFilter or a RandomFilter."
            )
        inputs, labels = dict(rows.columns), self._labels(rows)
        for name in labels:
            del inputs[name]
        self._count_flops(self.training_flops(rows) / 3)
        if set(labels) == {"labels"} and rows.encodes_targets:
            inputs |= labels  # the decoder's input is made from them
        with torch.set_grad_enabled(with_graph), self._trainer.compute_loss_context_manager():
            return example_losses(self._network(**inputs), labels, shifted=self._shifted)

    def _labels(self, rows: Rows) -> dict[str, Any]:
        names = self._trainer.label_names
        return {name: rows.columns[name] for name in names if name in rows.columns}

    def training_flops(self, rows: Rows) -> float:
        """What a forward and a backward pass of the rows take; a third of it is forward."""
        numel = rows.main.numel()
        if self._flops_per_token is None:  # counting the parameters takes long
            self._flops_per_token = self._flops_of(rows.columns) / max(1, numel)
        return self._flops_per_token * numel

    def take_flops(self) -> float:
        """The operations spent since this was asked last."""
        spent, self._flops = self._flops, 0.0
        return spent

    def _count_flops(self, flops: float, *, training: bool = False) -> None:
        self._flops += flops
        savings = self._trainer.savings
        savings.flops += flops
        savings.training_flops += flops * training

    # Updating.

    def loss(self, batch: Rows, total: float) -> Tensor:
        self._count_flops(self.training_flops(batch), training=True)
        observed = not self._filter.needs_losses and self._filter.observes
        labels = self._labels(batch)
        if self._weights is None and not (observed and labels):
            with self._trainer.compute_loss_context_manager():
                return self._scaled_loss(batch, total)
        with self._trainer.compute_loss_context_manager(), self._outputs() as outputs:
            loss = self._scaled_loss(batch, total)
        if not outputs and self._weights is None:  # of a subclass that runs another model
            return loss
        losses = example_losses(outputs[-1] if outputs else None, labels, shifted=self._shifted)
        if observed:
            self._filter.observe(losses.detach().double().cpu().numpy())
        if self._weights is None:
            return loss
        return (losses * self.terms(batch)).sum() * (self.processes / (total or 1))

    @contextmanager
    def _outputs(self) -> Iterator[list[Any]]:
        """What the model returns meanwhile, call by call."""
        outputs: list[Any] = []
        hook = self._network.register_forward_hook(lambda *call: outputs.append(call[-1]))
        try:
            yield outputs
        finally:
            hook.remove()

    def _scaled_loss(self, batch: Rows, total: float) -> Tensor:
        """The loss whose gradients, averaged over processes, add up to those of the mean."""
        trainer, args = self._trainer, self._trainer.args
        count: Tensor | None = None
        if self._counts_items:
            whole = int(total)
            terms = whole if args.average_tokens_across_devices else whole / args.world_size
            count = torch.tensor(terms, device=args.device)
        trainer.current_gradient_accumulation_steps = 1
        loss = trainer.compute_loss(
            self._network, cast(Any, dict(batch.columns)), num_items_in_batch=count
        )
        assert isinstance(loss, Tensor)
        scaled = getattr(trainer, "loss_is_scaled_for_ga", None)
        if scaled is None:
            scaled = self._counts_items and (
                trainer.model_accepts_loss_kwargs or trainer.compute_loss_func
            )
        if not scaled:  # the mean of this batch alone
            loss = loss * (float(self.counted(batch).sum()) * args.world_size / (total or 1))
        return loss

    def stand_in(self, total: float, *, last: bool) -> None:
        """Compute a loss for nothing, as often as other processes compute theirs.

        A subclass may exchange its metrics while it computes a loss, as TRL's SFTTrainer does, and
        would wait for ever. The labels are such that no loss and no metric counts them. A sharded
        model exchanges gradients too: this process adds nothing to them.
        """
        row = self._latest.part(0, 1)
        if self._sharded:
            with self._trainer.compute_loss_context_manager():
                loss = self._scaled_loss(row, total)
            self.backward(loss * 0, last=last)
            return
        labels = row.columns.get("labels")
        if isinstance(labels, Tensor) and not labels.is_floating_point():
            row = Rows({**row.columns, "labels": torch.full_like(labels, IGNORED)}, row.layout)
        with torch.no_grad(), self._trainer.compute_loss_context_manager():
            self._scaled_loss(row, total)

    def counted(self, rows: Rows) -> Tensor:
        return self._terms(rows, shifted=bool(getattr(self._trainer, "_loss_shifts_labels", False)))

    def terms(self, rows: Rows) -> Tensor:
        return self._terms(rows, shifted=self._shifted)

    def _terms(self, rows: Rows, *, shifted: bool) -> Tensor:
        labels, device = rows.columns.get("labels"), self._trainer.args.device
        if isinstance(labels, Tensor):
            terms = loss_items(labels, shifted=shifted)
        else:
            terms = torch.ones(len(rows), dtype=torch.int64, device=device)
        if self._weights is None:
            return terms
        return terms * torch.from_numpy(self._weights.of(*rows.tokens)).to(device, torch.float32)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        accelerator = self._trainer.accelerator
        if not self._trainer.is_deepspeed_enabled:
            accelerator.backward(loss)
            return
        # DeepSpeed updates the weights in the backward pass that synchronizes gradients.
        accelerator.gradient_state._set_sync_gradients(last)
        accelerator.backward(loss, scale_wrt_gas=False)

    def spend(self, flops: float) -> None:
        self._count_flops(flops, training=True)

    def gather(self, values: Sequence[float]) -> Tensor:
        mine = torch.tensor([values], dtype=torch.float64)
        if self.processes == 1:
            return mine
        accelerator = self._trainer.accelerator
        return cast(Tensor, accelerator.gather(mine.to(self._trainer.args.device))).cpu()

    def average_gradients(self) -> None:
        """Average over processes, where the model has not done so in its backward pass."""
        if self.processes == 1 or self._sharded:
            return
        waits, gradients = [], []
        for parameter in self._network.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
                waits.append(torch.distributed.all_reduce(parameter.grad, async_op=True))
        for wait in waits:
            wait.wait()
        torch._foreach_div_(gradients, self.processes)

    @cached_property
    def _shifted(self) -> bool:
        """Whether the model's logits of a position are for the label of the next one."""
        model = self._trainer.model
        config = getattr(model, "config", None)
        loss = getattr(model, "loss_function", None)
        return loss is ForCausalLMLoss and not getattr(config, "is_encoder_decoder", False)
