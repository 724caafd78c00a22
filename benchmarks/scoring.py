"""Tokens a second that each learner scores on one core, and its share of a training step.

    python benchmarks/scoring.py

One thread, CPU time, medians of interleaved rounds; batches of 256 x 32 tokens. The training step
is `mini`'s on 16 x 32 tokens: forward, backward, clipping, AdamW. The shares are of scoring the 16
contexts of that step in one batch, and of the 96 candidates that it takes when one in six is kept.
Nets have random weights, which cost what fitted ones do; bundled learners are loaded by name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, cpu_seconds, environment, medians, rounds, table, write_result
from torch import Tensor

from secondary_learners.learners.architectures import TEXT_ARCHITECTURES
from secondary_learners.learners.nets import build_net
from secondary_learners.registry.index import list_learners
from secondary_learners.registry.load import load_base, load_learner

LENGTH, BATCH = 32, 16
CANDIDATES = 6 * BATCH  # drawn for one batch when one in six is kept
LARGE = 256
SIZES: dict[str, tuple[str, dict[str, int | str]]] = {
    "linear": ("linear", {"bigrams": 0, "counts": "sqrt"}),
    "linear, 32k bigrams": ("linear", {"bigrams": 32768, "counts": "sqrt"}),
    "conv": ("conv", {"embedding": 64, "channels": 128, "kernel": 3, "hidden": 32}),
}

Scorer = Callable[[Tensor], object]


def scorers(vocabulary: int) -> dict[str, Scorer]:
    """Every architecture as a bare net, and every bundled learner with its checks of the input."""
    torch.manual_seed(0)

    def bare(architecture: str, sizes: dict[str, int | str]) -> Scorer:
        net = build_net(architecture, {"vocabulary": vocabulary, **sizes}).eval()

        @torch.no_grad()
        def score(ids: Tensor) -> Tensor:
            found: Tensor = net(ids, torch.ones_like(ids, dtype=torch.bool))
            return found

        return score

    found = {name: bare(*sizes) for name, sizes in SIZES.items()}
    for entry in list_learners():
        if entry.location == "bundled" and entry.architecture not in TEXT_ARCHITECTURES:
            found[f"{entry.name} ({entry.architecture})"] = load_learner(entry.name).score
    return found


def training_step(model: Any, ids: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0.0)

    def step() -> None:
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()

    return step


def repeated(call: Callable[[], object], target: float) -> Callable[[], float]:
    """Seconds a call, over as many calls in a row as fill `target` seconds after a warm-up."""
    call()
    times = max(1, round(target / max(cpu_seconds(call), 1e-6)))

    def many() -> None:
        for _ in range(times):
            call()

    return lambda: cpu_seconds(many) / times


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for scoring.json")
    options = parser.parse_args(arguments)
    count, target = (2, 0.002) if options.quick else (15, 0.2)

    torch.set_num_threads(1)
    model, tokenizer = load_base("mini")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, len(tokenizer), (LARGE, LENGTH), generator=generator)
    found = scorers(len(tokenizer))

    step = "training step"
    calls = {step: repeated(training_step(model.train(), ids[:BATCH]), target)}
    for name, score in found.items():
        for rows in (BATCH, CANDIDATES, LARGE):
            calls[f"{name}/{rows}"] = repeated(partial(score, ids[:rows]), target)
    figures = medians(rounds(calls, count))
    learners = {
        name: {
            "tokens_a_second": round(LARGE * LENGTH / figures[f"{name}/{LARGE}"]),
            "microseconds_a_batch": round(1e6 * figures[f"{name}/{BATCH}"], 1),
            "share_of_step_one_batch": round(figures[f"{name}/{BATCH}"] / figures[step], 6),
            "share_of_step_candidates": round(figures[f"{name}/{CANDIDATES}"] / figures[step], 6),
        }
        for name in found
    }
    milliseconds = 1000 * figures[step]
    print(f"{environment()['cpu']}, one thread; training step {milliseconds:.1f} ms")
    header = (
        "learner",
        "tokens/s",
        f"us, {BATCH} x {LENGTH}",
        "of a step",
        f"{CANDIDATES} candidates",
    )
    print(
        table(
            header,
            (
                (
                    name,
                    f"{row['tokens_a_second']:,}",
                    row["microseconds_a_batch"],
                    f"{row['share_of_step_one_batch']:.2%}",
                    f"{row['share_of_step_candidates']:.2%}",
                )
                for name, row in learners.items()
            ),
        )
    )
    write_result(
        options.out / "scoring.json",
        {
            "base": "mini",
            "rounds": count,
            "batch": [LARGE, LENGTH],
            "training_step": {"batch": [BATCH, LENGTH], "ms": round(milliseconds, 3)},
            "candidates_for_a_batch": CANDIDATES,
            "learners": learners,
        },
    )


if __name__ == "__main__":
    main()
