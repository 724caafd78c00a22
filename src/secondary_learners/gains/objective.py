"""Losses of contexts under a causal language model, in batches that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from secondary_learners.gains.rows import Rows

__all__ = [
    "batch_size_for",
    "context_losses",
    "evaluation_mode",
    "forward_passes",
    "in_batches",
    "in_rows",
    "losses_of",
]

_IGNORED = -100
# Past a few MB of logits a larger batch no longer helps a CPU: it only leaves the caches.
_CPU_LOGITS_BYTES = 32 * 2**20
# A GPU is full far below this; but each batch costs it the wait for a whole model's launches.
_GPU_LOGITS_BYTES = 8 * 2**30
# Logits whose log-softmax is taken at once: on a CPU few enough to stay in the caches and in memory
# that is used again, as fresh pages cost more than the arithmetic.
_CPU_SOFTMAX_BYTES = 4 * 2**20
_GPU_SOFTMAX_BYTES = 512 * 2**20
# Bytes held per logit while a loss is computed: the logits, their float32 copy, the log-softmax.
_COPIES_OF_LOGITS = 4


def context_losses(model: nn.Module, rows: Rows) -> Tensor:
    """Mean loss of each row's tokens that count, given those before them: [batch], nats.

    Padding is to the right, where a causal model's earlier positions cannot see it.
    """
    rows = rows.trimmed()
    targets = rows.targets(_IGNORED)
    logits = model(input_ids=rows.ids, use_cache=False).logits
    if rows.counts is None:
        # The last position predicts nothing: ignoring it spares a copy of all logits.
        losses = _token_losses(logits.flatten(0, 1), targets.flatten(), torch.float32)
        return losses.view_as(rows.ids).sum(dim=1) / (rows.length - 1)
    counted = targets != _IGNORED
    exact = torch.promote_types(logits.dtype, torch.float32)
    losses = _token_losses(logits[counted], targets[counted], exact)
    terms = logits.new_zeros(counted.shape, dtype=exact).masked_scatter(counted, losses)
    means: Tensor = terms.sum(dim=1) / counted.sum(dim=1)
    return means


def _token_losses(logits: Tensor, targets: Tensor, exact: torch.dtype) -> Tensor:
    """The losses [tokens] of logits [tokens, vocabulary], 0 where nothing is to be predicted."""
    most = _CPU_SOFTMAX_BYTES if logits.device.type == "cpu" else _GPU_SOFTMAX_BYTES
    size = max(1, most // (4 * logits.shape[1]))
    losses = [
        functional.cross_entropy(part.to(exact), target, ignore_index=_IGNORED, reduction="none")
        for part, target in zip(logits.split(size), targets.split(size), strict=True)
    ]
    return torch.cat(losses)


def losses_of(model: nn.Module, rows: Rows, tokens: int) -> Tensor:
    """`context_losses` in batches of `tokens` and without gradients; float64 [rows], nats."""
    with forward_passes():
        return in_batches(lambda part: context_losses(model, part), rows, tokens).double()


@contextmanager
def forward_passes() -> Iterator[None]:
    """Inside the block no gradient is recorded, and linear layers are computed the fastest way."""
    with torch.inference_mode(), _OneDnnLinears():
        yield


class _OneDnnLinears(TorchFunctionMode):
    """Inside the block, float32 linear layers on a CPU are computed by oneDNN instead of by MKL.

    The same numbers up to rounding; on AMD, where MKL leaves AVX-512 unused, twice as fast.
    For forward passes only: oneDNN's operator has no gradient.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if (
            not kwargs
            and torch.backends.mkldnn.is_available()
            and not torch.is_autocast_enabled("cpu")
        ):
            if func is functional.linear and _fits(*args):
                return _onednn_linear(*args)
            if func is torch.addmm and len(args) == 3:  # how GPT-2 writes a linear layer
                bias, rows, weight = args
                if bias.shape == weight.shape[1:] and _fits(rows, weight.T, bias):
                    return _onednn_linear(rows, weight.T, bias)
        return func(*args, **(kwargs or {}))


def _fits(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return all(
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.numel() > 0
        for tensor in (rows, weight, *([] if bias is None else [bias]))
    )


def _onednn_linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off inside the block: labels taken with it on agree with themselves at only 0.89.

    A context has no padding, so the model is not told of a padding token either: transformers would
    look for it in every batch, which vmap cannot do.
    """
    training = model.training
    config: Any = getattr(model, "config", None)
    padding = getattr(config, "pad_token_id", None)
    model.eval()
    if padding is not None:
        config.pad_token_id = None
    try:
        yield
    finally:
        model.train(training)
        if padding is not None:
            config.pad_token_id = padding


def batch_size_for(model: nn.Module, length: int) -> int:
    """How many contexts to run at once: a quarter of the free memory, within what helps speed."""
    parameter = next(model.parameters())
    vocabulary = int(getattr(model.config, "vocab_size", 50_000))
    row = length * vocabulary * 4
    if parameter.device.type == "cuda":
        device, useful = parameter.device, _GPU_LOGITS_BYTES
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + kept  # torch gives back what it keeps
    else:
        free, useful = _free_memory(), _CPU_LOGITS_BYTES
    return max(1, min(useful, free // 4 // _COPIES_OF_LOGITS) // row)


def _free_memory() -> int:
    """Bytes that are free without swapping; where the system does not say, 4 GiB."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):
        return 4 * 2**30


def in_batches(function: Callable[[Rows], Tensor], rows: Rows, tokens: int) -> Tensor:
    """`function` over batches of rows, concatenated in the rows' order; see `in_rows`.

    A batch holds as many rows of like length as fill `tokens`, so that little of it is padding.
    """
    if rows.counts is None:  # all as long: nothing to put in order
        return in_rows(function, rows, max(1, tokens // rows.length))
    buckets = rows.buckets(tokens)
    order = torch.tensor([row for bucket in buckets for row in bucket], device=rows.ids.device)
    parts = [in_rows(function, rows[bucket].trimmed(), len(bucket)) for bucket in buckets]
    results = torch.cat(parts)
    if len(results) != len(order):  # one figure for each batch
        return results
    return torch.empty_like(results).index_copy_(0, order, results)


class Divisible(Protocol):
    """`Rows`, or a tensor."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Self: ...


Part = TypeVar("Part", bound=Divisible)


def in_rows(function: Callable[[Part], Tensor], rows: Part, size: int) -> Tensor:
    """`function` over `size` rows at a time, concatenated; out of memory halves that."""
    parts: list[Tensor] = []
    begin = 0
    while begin < len(rows):
        try:
            parts.append(function(rows[begin : begin + size]))
        except RuntimeError as error:
            if size == 1 or not _out_of_memory(error):
                raise
            size = (size + 1) // 2
            continue
        begin += size
    return torch.cat(parts)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
