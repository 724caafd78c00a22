"""The arithmetic and the memory traffic that a label takes at least, from a model's sizes alone.

For a GPT-2 of `layers` blocks of width d, vocabulary V, contexts of T tokens: a forward pass takes,
for each token, 24 d² operations a block (queries, keys, values and their projection 8 d², the two
layers of the perceptron 16 d²), 4 T d a block for attention, and 2 d V for the logits. A backward
pass takes twice that. One multiplication and one addition are two operations.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Floor", "Sizes", "label_floor"]

_FLOAT32 = 4  # bytes, of the weights and of all that is done to them


@dataclass(frozen=True)
class Sizes:
    """What determines the cost of a GPT-2: blocks, width, vocabulary and positions."""

    layers: int
    width: int
    vocabulary: int
    positions: int

    @property
    def parameters(self) -> int:
        """Weights, biases and norms, the embedding counted once."""
        block = 12 * self.width**2 + 13 * self.width
        return (
            self.layers * block
            + (self.vocabulary + self.positions) * self.width
            + 2 * self.width  # the last norm
        )

    def forward(self, contexts: int, length: int) -> int:
        """Operations of the matrix products in a forward pass over contexts of `length` tokens."""
        block = 24 * self.width**2 + 4 * length * self.width
        return contexts * length * (self.layers * block + 2 * self.width * self.vocabulary)


@dataclass(frozen=True)
class Floor:
    """Of one label: operations of matrix products; bytes, each tensor read and written once.

    Bytes are of float32 weights, gradients and logits. Activations inside the blocks are left out,
    as a kernel could keep them on the chip.
    """

    operations: int
    bytes: int

    def seconds(self, operations_a_second: float, bytes_a_second: float) -> float:
        """The longer of the two: no version of the label is faster."""
        return max(self.operations / operations_a_second, self.bytes / bytes_a_second)


def label_floor(sizes: Sizes, method: str, *, objective: int, length: int, batch: int) -> Floor:
    """Floor of a label by `method`, set-up apart. batch: contexts a pass, for swapped labels.

    exact (and published, which computes the same): gradient of one context (weights read twice,
    gradients written), the step (gradients and weights read, weights written), the objective
    (weights read; logits written and read), restoring (the copy read, weights written).
    per-example: the gradient, and its dot product with the objective's, which is read.
    swapped: two forward passes that share the weights with `batch` others.
    """
    one = sizes.forward(1, length)
    weights = _FLOAT32 * sizes.parameters
    logits = 2 * _FLOAT32 * length * sizes.vocabulary  # of one context, written and read
    if method == "swapped":
        return Floor(2 * one, 2 * weights // batch + 2 * logits)
    if method == "per-example":
        return Floor(3 * one, 5 * weights + 2 * logits)
    return Floor(sizes.forward(objective, length) + 3 * one, 9 * weights + (objective + 2) * logits)
