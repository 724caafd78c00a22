"""Losses of contexts under a causal language model, in batches that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = [
    "batch_size_for",
    "context_losses",
    "evaluation_mode",
    "forward_passes",
    "in_batches",
    "in_rows",
    "losses_of",
    "trimmed",
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


def context_losses(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Mean next-token loss of each context. input_ids [batch, length] → float32 [batch], nats.

    Of examples [batch, length, 2], the mean over the tokens that count; see `Examples.tensor`.
    """
    if input_ids.ndim == 3:
        return _completion_losses(model, trimmed(input_ids))
    # The last position predicts nothing: ignoring it there spares a copy of all logits.
    targets = functional.pad(input_ids[:, 1:], (0, 1), value=_IGNORED).flatten()
    logits = model(input_ids=input_ids, use_cache=False).logits.flatten(0, 1)
    most = _CPU_SOFTMAX_BYTES if logits.device.type == "cpu" else _GPU_SOFTMAX_BYTES
    rows = max(1, most // (4 * logits.shape[1]))
    losses = [
        functional.cross_entropy(part.float(), target, ignore_index=_IGNORED, reduction="none")
        for part, target in zip(logits.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat(losses).view_as(input_ids).sum(dim=1) / (input_ids.shape[1] - 1)


def _completion_losses(model: nn.Module, examples: Tensor) -> Tensor:
    """Mean loss of each example's counted tokens [batch, length, 2] → [batch], nats.

    Padding is to the right, where a causal model's earlier positions cannot see it. Only logits
    that count go through the softmax.
    """
    ids, counts = examples.unbind(2)
    targets = functional.pad(ids.where(counts.bool(), _IGNORED)[:, 1:], (0, 1), value=_IGNORED)
    counted = targets != _IGNORED
    logits = model(input_ids=ids, use_cache=False).logits[counted]  # [tokens, vocabulary]
    most = _CPU_SOFTMAX_BYTES if logits.device.type == "cpu" else _GPU_SOFTMAX_BYTES
    rows = max(1, most // (4 * logits.shape[1]))
    exact = torch.promote_types(logits.dtype, torch.float32)
    losses = [
        functional.cross_entropy(part.to(exact), target, reduction="none")
        for part, target in zip(logits.split(rows), targets[counted].split(rows), strict=True)
    ]
    terms = logits.new_zeros(counted.shape, dtype=exact).masked_scatter(counted, torch.cat(losses))
    means: Tensor = terms.sum(dim=1) / counted.sum(dim=1)
    return means


def trimmed(examples: Tensor) -> Tensor:
    """[batch, length, 2] without the columns in which no row has a token that counts any more."""
    return examples[:, : max(_reach(examples))]


def _reach(examples: Tensor) -> list[int]:
    """Tokens up to the last one that counts, for each of the rows [batch, length, 2]."""
    places = torch.arange(1, examples.shape[1] + 1, device=examples.device)
    found: list[int] = (examples[:, :, 1] * places).amax(dim=1).tolist()
    return found


def _buckets(examples: Tensor, tokens: int) -> list[list[int]]:
    """Rows of like length, the longest first, so many that they fill `tokens` with padding."""
    reach = _reach(examples)
    found: list[list[int]] = []
    for row in sorted(range(len(reach)), key=lambda row: -reach[row]):
        if found and (len(found[-1]) + 1) * reach[found[-1][0]] <= tokens:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def losses_of(model: nn.Module, input_ids: Tensor, batch_size: int) -> Tensor:
    """`context_losses` in batches and without gradients; float64 [contexts], nats."""
    with forward_passes():
        losses = in_batches(lambda part: context_losses(model, part), input_ids, batch_size)
        return losses.double()


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
    found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found


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
    """Bytes that can be had without swapping; where the system does not say, 4 GiB."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):
        return 4 * 2**30


def in_batches(function: Callable[[Tensor], Tensor], input_ids: Tensor, batch_size: int) -> Tensor:
    """`function` over the rows of `input_ids`, concatenated; out of memory halves the batch.

    Of examples [n, length, 2] as many of like length as fill `batch_size` tokens, so that little of
    a batch is padding; their results are in the examples' order.
    """
    if input_ids.ndim == 3:
        rows = _buckets(input_ids, batch_size)
        order = torch.tensor([row for bucket in rows for row in bucket], device=input_ids.device)
        ordered = [in_rows(function, trimmed(input_ids[bucket]), len(bucket)) for bucket in rows]
        found = torch.cat(ordered)
        if len(found) != len(order):  # one figure for each batch
            return found
        return torch.empty_like(found).index_copy_(0, order, found)
    return in_rows(function, input_ids, batch_size)


def in_rows(function: Callable[[Tensor], Tensor], input_ids: Tensor, batch_size: int) -> Tensor:
    """`function` over `batch_size` rows at a time, concatenated; out of memory halves that."""
    parts: list[Tensor] = []
    begin = 0
    while begin < len(input_ids):
        try:
            parts.append(function(input_ids[begin : begin + batch_size]))
        except RuntimeError as error:
            if batch_size == 1 or not _out_of_memory(error):
                raise
            batch_size = (batch_size + 1) // 2
            continue
        begin += batch_size
    return torch.cat(parts)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
