"""What a filter saved in a training run, against training on every example."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Savings"]


@dataclass
class Savings:
    """The work of a run so far, over all processes; times and operations are of this process alone.

    seen: examples, some of them admitted and not yet run while a run goes on; skipped_forward:
    never run; skipped_backward: run, then left out; trained: with a backward pass; waiting: chosen,
    but their batch is not full; updates: optimizer steps.
    seconds_choosing, seconds_training: wall time of deciding (forward passes included) and of
    training. flops: floating-point operations spent, by the Trainer's own estimate (6 for each
    parameter and token trained on, 2 where there is only a forward pass); plain_flops: what the
    same examples would have taken without a filter.
    """

    seen: int = 0
    skipped_forward: int = 0
    skipped_backward: int = 0
    trained: int = 0
    waiting: int = 0
    updates: int = 0
    seconds_choosing: float = 0.0
    seconds_training: float = 0.0
    flops: float = 0.0
    training_flops: float = 0.0
    plain_flops: float = 0.0

    @property
    def seconds(self) -> float:
        return self.seconds_choosing + self.seconds_training

    @property
    def plain_seconds(self) -> float:
        """An estimate of the time without a filter, at the speed this run trained with."""
        if not self.training_flops:
            return self.seconds
        return self.seconds_training * self.plain_flops / self.training_flops

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": self.seconds, "plain_seconds": self.plain_seconds}

    def log(self) -> dict[str, float]:
        """The counts as they stand in the training log."""
        return {
            "filter_seen": self.seen,
            "filter_kept": self.trained + self.waiting,
            "filter_skipped_backward": self.skipped_backward,
            "filter_skipped_forward": self.skipped_forward,
            "filter_updates": self.updates,
        }

    def final_log(self) -> dict[str, float]:
        """What the last line of the training log adds."""
        return {
            "filter_seconds_saved": round(self.plain_seconds - self.seconds, 3),
            "filter_flops_saved": self.plain_flops - self.flops,
        }

    def __str__(self) -> str:
        """A table: what happened, and what it would have been without a filter."""
        lines = [
            ("", "filtered", "every example", "times fewer"),
            _line("examples run forward", self.seen - self.skipped_forward, self.seen),
            _line("examples trained on", self.trained, self.seen),
            _line("10^9 operations", self.flops / 1e9, self.plain_flops / 1e9),
            _line("seconds (estimated on the right)", self.seconds, self.plain_seconds),
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def _line(name: str, filtered: float, plain: float) -> tuple[str, str, str, str]:
    ratio = f"{plain / filtered:.1f}" if filtered else "–"
    return name, _number(filtered), _number(plain), ratio


def _number(value: float) -> str:
    return f"{value:,.0f}" if isinstance(value, int) or value >= 100 else f"{value:,.1f}"
