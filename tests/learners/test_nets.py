"""The networks against plain float64 arithmetic, and against padding."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.errors import ArtifactError
from secondary_learners.learners.nets import ConvNet, LinearNet, build_net, pair_buckets

VOCABULARY = 11
rows = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=9), min_size=1, max_size=4)


def padded(contexts: list[list[int]], side: str, extra: int = 0) -> tuple[torch.Tensor, ...]:
    length = max(map(len, contexts)) + extra
    ids = torch.full((len(contexts), length), 3)
    mask = torch.zeros(len(contexts), length, dtype=torch.bool)
    for row, context in enumerate(contexts):
        start = length - len(context) if side == "left" else 0
        ids[row, start : start + len(context)] = torch.tensor(context, dtype=torch.int64)
        mask[row, start : start + len(context)] = True
    return ids, mask


def filled(net: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data.normal_(generator=generator)
    return net.eval().requires_grad_(False)


def reference(context: list[int], weight: np.ndarray, bias: float, bigrams: int, a: float) -> float:
    """The definition: sum over distinct tokens and pair buckets of weight times (c / n)**a."""
    total = bias
    for token, count in Counter(context).items():
        total += weight[token] * (count / len(context)) ** a
    if bigrams:
        buckets = Counter(
            (1_540_483_477 * left + 1_812_433_253 * right) % (2**31 - 1) % bigrams
            for left, right in pairwise(context)
        )
        for bucket, count in buckets.items():
            total += weight[VOCABULARY + bucket] * (count / len(context)) ** a
    return total


@settings(max_examples=60, deadline=None)
@given(
    contexts=rows,
    counts=st.sampled_from(["frequency", "sqrt"]),
    bigrams=st.sampled_from([0, 8]),
    side=st.sampled_from(["left", "right"]),
    extra=st.integers(0, 3),
)
def test_linear_is_a_linear_model_on_powers_of_frequencies(
    contexts: list[list[int]], counts: str, bigrams: int, side: str, extra: int
) -> None:
    net = filled(LinearNet(VOCABULARY, bigrams, counts))
    assert isinstance(net, LinearNet)
    ids, mask = padded(contexts, side, extra)
    weight, bias = net.weight.double().numpy(), float(net.bias)
    exponent = 1.0 if counts == "frequency" else 0.5
    expected = [reference(context, weight, bias, bigrams, exponent) for context in contexts]
    raw = net(ids, mask)
    np.testing.assert_allclose(raw.numpy(), expected, atol=2e-5)

    shares = net.contributions(ids, mask)
    assert shares.shape == ids.shape
    np.testing.assert_allclose(shares.sum(dim=1).numpy(), raw.numpy() - bias, atol=2e-5)
    assert (shares[~mask] == 0).all()


def test_a_pair_belongs_half_to_each_of_its_tokens() -> None:
    net = LinearNet(VOCABULARY, 4, "frequency").eval()
    net.weight.data[VOCABULARY:] = 6.0
    shares = net.contributions(torch.tensor([[1, 2, 5]]), torch.ones(1, 3, dtype=torch.bool))
    assert shares.tolist() == [[1.0, 2.0, 1.0]]


def test_pair_buckets_are_frozen_and_fit_the_largest_vocabulary() -> None:
    ids = torch.tensor([[0, 1, 0, 50_256, 2**24 - 1]])
    expected = [
        (1_540_483_477 * left + 1_812_433_253 * right) % (2**31 - 1) % 2**15
        for left, right in zip(ids[0].tolist(), ids[0, 1:].tolist(), strict=False)
    ]
    assert pair_buckets(ids, 2**15).tolist() == [expected]
    # Written down: another hash would silently spoil every learner that is already published.
    assert expected == [2405, 27029, 26943, 9487]


@settings(max_examples=40, deadline=None)
@given(contexts=rows, side=st.sampled_from(["left", "right"]), extra=st.integers(0, 4))
def test_conv_does_not_see_padding(contexts: list[list[int]], side: str, extra: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ConvNet(VOCABULARY, 64, 128, 3, 32).eval().requires_grad_(False)
    ids, mask = padded(contexts, side, extra)
    alone = [
        float(
            net(torch.tensor([c], dtype=torch.int64).reshape(1, -1), torch.ones(1, len(c)).bool())
        )
        for c in contexts
    ]
    np.testing.assert_allclose(net(ids, mask).numpy(), alone, atol=1e-5)
    assert (net.contributions(ids, mask)[~mask] == 0).all()  # type: ignore[operator]


def test_conv_contributions_are_the_derivative_along_each_embedding() -> None:
    net = filled(ConvNet(VOCABULARY, 8, 6, 3, 5)).double()
    assert isinstance(net, ConvNet)
    ids, mask = torch.tensor([[4, 2, 9, 2]]), torch.ones(1, 4, dtype=torch.bool)
    embedded, step = net.embedding(ids), 1e-6
    for position, share in enumerate(net.contributions(ids, mask)[0].tolist()):
        moved = embedded.clone()
        moved[0, position] *= 1 + step
        rise = float(net._from_embedded(moved, mask) - net._from_embedded(embedded, mask)) / step
        assert share == pytest.approx(rise, abs=1e-4)


def test_a_context_with_nothing_in_it_gets_the_constant() -> None:
    nothing = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.bool)
    hidden = torch.tensor([[1, 2]]), torch.zeros(1, 2, dtype=torch.bool)
    linear = filled(LinearNet(VOCABULARY, 8))
    assert linear(*nothing).tolist() == [float(linear.bias)] * 2  # type: ignore[arg-type]
    assert linear(*hidden).tolist() == [float(linear.bias)]  # type: ignore[arg-type]
    conv = filled(ConvNet(VOCABULARY, 8, 6, 3, 5))
    assert conv(*nothing)[0] == conv(*hidden)[0]
    assert conv(*hidden).isfinite().all()
    assert conv.contributions(*nothing).shape == (2, 0)  # type: ignore[operator]


def test_gradients_reach_every_weight_of_a_conv_and_are_finite_for_empty_rows() -> None:
    net = ConvNet(VOCABULARY, 8, 6, 3, 5)
    net(*padded([[1, 2, 3], []], "right")).sum().backward()
    for parameter in net.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()


@pytest.mark.parametrize(
    ("architecture", "sizes", "word"),
    [
        ("linear", {"vocabulary": 9, "bigrams": 3, "counts": "sqrt"}, "sizes.bigrams"),
        ("linear", {"vocabulary": 9, "bigrams": 4, "counts": "log"}, "sizes.counts"),
        ("linear", {"vocabulary": 0, "bigrams": 4, "counts": "sqrt"}, "sizes.vocabulary"),
        ("linear", {"vocabulary": 9}, "sizes"),
        ("conv", {"vocabulary": 9, "embedding": 4, "channels": 4, "kernel": 2, "hidden": 4}, "odd"),
        ("transformer", {}, "architecture"),
    ],
)
def test_sizes_that_make_no_net_are_refused(architecture: str, sizes: dict, word: str) -> None:
    with pytest.raises(ArtifactError, match=word):
        build_net(architecture, sizes)
