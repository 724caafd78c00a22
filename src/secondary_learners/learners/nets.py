"""The networks: token ids in, one raw prediction a context out.

A raw prediction is in standard deviations of the labels. Both networks take `input_ids`
[batch, length] (int64) and `attention_mask` [batch, length] (bool), give [batch], and do not see
masked positions: padding on either side changes nothing.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from secondary_learners.learners.architectures import architecture_named
from secondary_learners.learners.config import check_sizes

__all__ = [
    "ConvNet",
    "LinearNet",
    "Net",
    "build_net",
    "linear_features",
    "pair_buckets",
    "round_to_half",
    "row_counts",
]

# Carter and Wegman's universal hash, (A left + B right) mod P with P = 2**31 - 1. As A, B, left
# and right are below 2**31, nothing exceeds int64. Part of artifact format 1: never change them.
_P, _A, _B = 2_147_483_647, 1_540_483_477, 1_812_433_253


def pair_buckets(input_ids: Tensor, buckets: int) -> Tensor:
    """The hash bucket of each adjacent pair: [batch, length] -> [batch, length - 1] (int64).

    buckets: a power of two up to 2**31.
    """
    left, right = input_ids[:, :-1].long(), input_ids[:, 1:].long()
    return (_A * left + _B * right) % _P & (buckets - 1)


def row_counts(keys: Tensor) -> Tensor:
    """How often each key occurs in its row: [batch, length] -> [batch, length] (int64)."""
    ordered, order = keys.sort(dim=1)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    run = first.cumsum(dim=1) - 1
    counts = torch.zeros_like(ordered).scatter_add_(1, run, torch.ones_like(ordered))
    return torch.empty_like(ordered).scatter_(1, order, counts.gather(1, run))


def linear_features(
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    vocabulary: int,
    bigrams: int,
    counts: str,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """The sparse features of a linear learner: `(columns, values)`, both [batch, positions].

    A context of n tokens has the feature (c / n)**a for each token and each hashed pair that occurs
    c times in it, with a = 1 for counts="frequency" and 0.5 for "sqrt". Each of the c positions
    gives c**(a - 1) / n**a, and so values of the same column add up to the feature. Columns from
    `vocabulary` on are pairs; positions are the tokens, then the pairs.
    """
    exponent = {"frequency": 1.0, "sqrt": 0.5}[counts]
    lengths = attention_mask.sum(dim=1, keepdim=True)
    scale = lengths.clamp(min=1).to(dtype) ** -exponent

    def values(keys: Tensor, mask: Tensor) -> Tensor:
        share = mask * scale
        if exponent != 1.0:
            share = share * row_counts(keys.masked_fill(~mask, -1)).to(dtype) ** (exponent - 1)
        return share

    token_values = values(input_ids, attention_mask)
    if not bigrams or not input_ids.shape[1]:
        return input_ids, token_values
    pairs = pair_buckets(input_ids, bigrams)
    pair_values = values(pairs, attention_mask[:, :-1] & attention_mask[:, 1:])
    columns = torch.cat([input_ids, pairs + vocabulary], dim=1)
    return columns, torch.cat([token_values, pair_values], dim=1)


class LinearNet(nn.Module):
    """A linear model on token counts and hashed counts of adjacent pairs; see `linear_features`."""

    def __init__(self, vocabulary: int, bigrams: int = 0, counts: str = "sqrt") -> None:
        super().__init__()
        check_sizes("linear", {"vocabulary": vocabulary, "bigrams": bigrams, "counts": counts})
        self.vocabulary, self.bigrams, self.counts = vocabulary, bigrams, counts
        self.weight = nn.Parameter(torch.zeros(vocabulary + bigrams))
        self.bias = nn.Parameter(torch.zeros(()))

    def _shares(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        columns, values = linear_features(
            input_ids,
            attention_mask,
            vocabulary=self.vocabulary,
            bigrams=self.bigrams,
            counts=self.counts,
        )
        return self.weight[columns] * values

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self._shares(input_ids, attention_mask).sum(dim=1) + self.bias

    def contributions(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Each token's share [batch, length], pairs split in halves; adds up to raw - bias."""
        length = input_ids.shape[1]
        shares = self._shares(input_ids, attention_mask)
        tokens, halves = shares[:, :length].clone(), shares[:, length:] / 2
        if halves.shape[1]:
            tokens[:, :-1] += halves
            tokens[:, 1:] += halves
        return tokens


class ConvNet(nn.Module):
    """Embedding, one convolution, max and mean over positions, two layers.

    The published learner (arXiv 2005.00175) with its own small embedding and with the mean.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 64,
        channels: int = 128,
        kernel: int = 3,
        hidden: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = {"vocabulary": vocabulary, "embedding": embedding, "channels": channels}
        check_sizes("conv", sizes | {"kernel": kernel, "hidden": hidden})
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(vocabulary, embedding)
        # Whole tokens are dropped, which makes the zero vector mean "some token or other".
        self.drop_tokens = nn.Dropout1d(dropout)
        self.convolution = nn.Conv1d(embedding, channels, kernel, padding=kernel // 2)
        self.hidden = nn.Linear(2 * channels, hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self._from_embedded(self.embedding(input_ids), attention_mask)

    def _from_embedded(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """[batch, length, embedding] -> [batch]."""
        if not embedded.shape[1]:  # a convolution needs at least one position
            embedded, mask = functional.pad(embedded, (0, 0, 0, 1)), functional.pad(mask, (0, 1))
        # Zeros at padding are what the convolution itself puts beyond the ends.
        embedded = self.drop_tokens(embedded) * mask.unsqueeze(2)
        features = functional.gelu(self.convolution(embedded.transpose(1, 2)))
        shown = mask.unsqueeze(1)  # [batch, 1, length], against [batch, channels, length]
        lowest = torch.finfo(features.dtype).min
        highest = features.masked_fill(~shown, lowest).amax(dim=2)
        highest = highest.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)
        mean = (features * shown).sum(dim=2) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        hidden = functional.gelu(self.hidden(torch.cat([highest, mean], dim=1)))
        return cast(Tensor, self.output(self.dropout(hidden)).squeeze(1))

    def contributions(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Gradient times input at each token's embedding [batch, length]: a first-order share."""
        with torch.enable_grad():
            embedded = self.embedding(input_ids).detach().requires_grad_()
            total = self._from_embedded(embedded, attention_mask).sum()
            (gradient,) = torch.autograd.grad(total, embedded)
        return cast(Tensor, (gradient * embedded.detach()).sum(dim=2))


Net = LinearNet | ConvNet


def round_to_half(net: nn.Module) -> None:
    """Round the weights to float16 values in place, so that storing them so changes nothing."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.half().float())


def build_net(architecture: str, sizes: dict[str, int | str]) -> Net:
    """A net of these sizes, its weights still meaningless; raises ArtifactError for bad sizes."""
    check_sizes(architecture, sizes)
    return architecture_named(architecture).build(sizes)
