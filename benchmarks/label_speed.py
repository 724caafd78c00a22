"""What a label costs, beside the least it could: floors, the machine's ceilings, and the share.

    python benchmarks/label_speed.py                    # one CPU thread, a few labels, CPU time
    python benchmarks/label_speed.py --device cuda      # one GPU, in float32, tf32 and bfloat16

1. One process and two, interleaved, sharing one store (CPU only: by wall clock on whatever the two
   share the cores with, and by the CPU time of the slowest, which is what each would take on a core
   of its own).
2. `mini`, real text: rank correlation of labels in each precision with exact ones in float32.
3. Models of three sizes with random weights (the cost does not depend on them), the last of --size,
   objective 160 x 32: exact, per-example and swapped labels, and at --size the published loop of
   gains.py, in interleaved rounds, after set-up; the matrix-product rate and the copy bandwidth of
   the device measured in the same rounds; floors by floors.py; `share` is the floor's operations a
   second over the measured rate.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, cpu_seconds, environment, medians, rounds, table, write_result
from floors import Floor, Sizes, label_floor
from torch import nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from gains import COLORS, PUBLISHED, Plan, labels_by, read_contexts
from secondary_learners.figures import SMALL, new_figure, save_figure, tidy
from secondary_learners.files import write_json
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.objective import batch_size_for
from secondary_learners.gains.precision import computed_in
from secondary_learners.gains.processes import joined_team
from secondary_learners.gains.store import LabelSettings, label_to_store
from secondary_learners.learners.statistics import spearman
from secondary_learners.registry.load import load_base
from secondary_learners.text.sequences import Examples

SIZES = {
    "tiny": Sizes(2, 32, 500, 32),
    "mini": Sizes(4, 256, 6144, 128),
    "middle": Sizes(6, 384, 16384, 1024),
    "gpt2": Sizes(12, 768, 50257, 1024),
    "gpt2-medium": Sizes(24, 1024, 50257, 1024),
}
OBJECTIVE, LENGTH = 160, 32
# What swapped and per-example labels are set up with: their cost afterwards does not depend on it.
SET_UP = 2
FAST = ("per-example", "swapped")


@dataclass(frozen=True)
class Amounts:
    """How much is measured. counts: labels of each way in a round; square: side of the products."""

    rounds: int
    counts: dict[str, int]
    square: int
    copied: int
    agreement: int
    shared: int
    objective: int = OBJECTIVE


CPU = Amounts(
    rounds=2,
    counts={PUBLISHED: 1, "exact": 1, "per-example": 2, "swapped": 10},
    square=1024,
    copied=2**27,
    agreement=48,
    shared=2048,
)
CUDA = Amounts(
    rounds=5,
    counts={PUBLISHED: 2, "exact": 40, "per-example": 64, "swapped": 4096},
    square=8192,
    copied=2**32,
    agreement=300,
    shared=0,
)
QUICK = Amounts(
    rounds=1,
    counts={PUBLISHED: 1, "exact": 1, "per-example": 1, "swapped": 2},
    square=64,
    copied=2**16,
    agreement=4,
    shared=2048,
    objective=4,
)


def make_model(sizes: Sizes, device: torch.device) -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=sizes.vocabulary,
        n_positions=sizes.positions,
        n_embd=sizes.width,
        n_layer=sizes.layers,
        n_head=max(1, sizes.width // 64),
        bos_token_id=0,
        eos_token_id=0,
    )
    model: PreTrainedModel = GPT2LMHeadModel(config)
    nn.Module.to(model, device)
    return model


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """CPU time of one thread, or the time of a GPU from idle to idle."""
    if device.type == "cpu":
        return cpu_seconds(call)
    torch.cuda.synchronize(device)
    begun = time.perf_counter()
    call()
    torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def product_rate(side: int, device: torch.device, precision: str) -> float:
    """Operations a second of the fastest square product there is here, best of a few."""
    layer = nn.Linear(side, side, bias=False, device=device)
    rows = torch.randn(side, side, device=device)
    calls: list[Callable[[], object]] = [partial(layer, rows)]
    if precision == "bfloat16":
        low = layer.weight.detach().bfloat16(), rows.bfloat16()
        calls = [lambda: torch.mm(low[1], low[0])]
    elif device.type == "cpu" and torch.backends.mkldnn.is_available():
        linear = torch.ops.mkldnn._linear_pointwise
        calls.append(lambda: linear(rows, layer.weight, None, "none", [], ""))
    with torch.inference_mode(), computed_in(layer, precision):
        best = min(seconds_of(call, device) for _ in range(4) for call in calls)
    return 2 * side**3 / best


def copy_rate(count: int, device: torch.device) -> float:
    """Bytes read and written a second by a copy, best of a few."""
    source = torch.randint(0, 255, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * count / min(seconds_of(lambda: target.copy_(source), device) for _ in range(4))


def speed(
    sizes: Sizes, device: torch.device, precisions: Sequence[str], amounts: Amounts, *, plain: bool
) -> dict[str, Any]:
    """Milliseconds a label by every way and precision, its floor, and the share of the ceiling."""
    model = make_model(sizes, device)
    random = torch.Generator().manual_seed(1)
    most = max(amounts.counts.values())
    ids = torch.randint(0, sizes.vocabulary, (most, LENGTH), generator=random).to(device)
    target = torch.randint(0, sizes.vocabulary, (amounts.objective, LENGTH), generator=random)
    target = target.to(device)

    ways: dict[str, tuple[str, str]] = {"exact, float32": ("exact", "float32")}
    ways |= {f"{name}, float32": (name, "float32") for name in FAST}
    if plain:
        ways = {PUBLISHED: (PUBLISHED, "float32")} | ways
    for precision in precisions[1:]:
        ways |= {f"{name}, {precision}": (name, precision) for name in ("exact", "swapped")}

    calls: dict[str, Callable[[], float]] = {}
    for way, (name, precision) in ways.items():
        short = target[:SET_UP] if name in FAST else target
        label = labels_by(name, model, short, precision)
        rows = ids[: amounts.counts[name]]
        if device.type == "cuda" or name in FAST:
            label(rows)  # warm
        calls[way] = lambda label=label, rows=rows: (  # type: ignore[misc]
            seconds_of(lambda: label(rows), device) / len(rows)
        )
    for precision in precisions:
        calls[f"products, {precision}"] = partial(product_rate, amounts.square, device, precision)
    calls["copy"] = partial(copy_rate, amounts.copied, device)
    figures = rounds(calls, amounts.rounds)
    middle = medians(figures)
    batch = batch_size_for(model, LENGTH)
    found: dict[str, Any] = {}
    for way, (name, precision) in ways.items():
        floor = label_floor(sizes, name, objective=amounts.objective, length=LENGTH, batch=batch)
        found[way] = _row(floor, figures[way], middle[f"products, {precision}"], middle["copy"])
        found[way]["labels_a_round"] = amounts.counts[name]
        if plain:
            found[way]["speed_up"] = round(middle[PUBLISHED] / middle[way], 2)
    return {
        "sizes": {**asdict(sizes), "parameters": sizes.parameters},
        "contexts_a_pass": batch,
        "ceilings": {
            **{
                f"products, {precision}, GFLOP/s": round(middle[f"products, {precision}"] / 1e9, 1)
                for precision in precisions
            },
            "copy, GB/s": round(middle["copy"] / 1e9, 2),
        },
        "labels": found,
    }


def _row(floor: Floor, seconds: list[float], products: float, copied: float) -> dict[str, Any]:
    middle = statistics.median(seconds)
    return {
        "ms_a_label": round(1000 * middle, 4),
        "rounds_ms": [round(1000 * value, 4) for value in seconds],
        "floor_operations": floor.operations,
        "floor_bytes": floor.bytes,
        "floor_ms": round(1000 * floor.seconds(products, copied), 4),
        "share": round(floor.operations / middle / products, 4),
    }


def agreement(device: torch.device, precisions: Sequence[str], amounts: Amounts) -> dict[str, Any]:
    """Spearman with exact labels in float32, of `mini` on the text built into Python."""
    model, tokenizer = load_base("mini")
    nn.Module.to(model, device)
    counts: dict[str, tuple[int, ...]] = {"exact": (amounts.agreement,)}
    plan = Plan(1, {}, amounts.agreement, 0, counts, (amounts.objective,), amounts.objective)
    candidates, objective = read_contexts(tokenizer, None, plan)
    rows, target = (torch.from_numpy(part.input_ids) for part in (candidates, objective))
    gains = {
        (method, precision): information_gain(
            model, rows[: amounts.agreement], target, method=method, precision=precision
        )
        for precision in precisions
        for method in ("exact", *FAST)
        if (method, precision) != ("per-example", "bfloat16")  # which is refused
    }
    exact = gains["exact", "float32"]
    return {
        "base": "mini",
        "contexts": amounts.agreement,
        "objective_contexts": amounts.objective,
        "spearman_with_exact_float32": {
            f"{method}, {precision}": round(spearman(found, exact), 5)
            for (method, precision), found in gains.items()
            if (method, precision) != ("exact", "float32")
        },
        "largest_difference_of_exact_in_sds": {
            precision: float(np.abs(gains["exact", precision] - exact).max() / exact.std())
            for precision in precisions[1:]
        },
    }


def random_contexts(count: int, seed: int) -> Examples:
    ids = np.random.default_rng(seed).integers(0, 6144, (count, LENGTH))
    return Examples.contexts(ids, np.arange(count), np.zeros(count, np.int64), ("random",))


def work(folder: Path, amounts: Amounts, variables: dict[str, str]) -> None:
    """One of several processes: swapped labels of `mini` into one store; times into a file."""
    os.environ.update(variables)
    model, _ = load_base("mini")
    contexts, objective = random_contexts(amounts.shared, 0), random_contexts(amounts.objective, 1)
    with joined_team() as team:
        information_gain(model, random_contexts(64, 2), random_contexts(8, 3))  # warm
        team.gather(None)
        wall, cpu = time.monotonic(), time.process_time()
        settings = LabelSettings(exact=0)
        label_to_store(model, contexts, objective, folder, settings, progress=False, team=team)
        cpu = max(team.gather(time.process_time() - cpu))
        if team.first:
            write_json(
                folder / "seconds.json", {"wall": time.monotonic() - wall, "slowest_cpu": cpu}
            )


def processes(amounts: Amounts) -> dict[str, Any]:
    """Labels a second by one and by two processes, each of one thread."""

    def launch(count: int) -> dict[str, float]:
        # They meet where this process listens: a port that was free may be taken again.
        meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(meeting.port)}
        where["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # as torchrun tells those that it starts
        with tempfile.TemporaryDirectory() as name:
            fork = multiprocessing.get_context("fork")  # the imports are done
            team = [
                fork.Process(
                    target=work,
                    args=(
                        Path(name),
                        amounts,
                        {**where, "WORLD_SIZE": str(count), "RANK": str(rank)},
                    ),
                )
                for rank in range(count)
            ]
            for process in team:
                process.start()
            for process in team:
                process.join()
            found: dict[str, float] = json.loads((Path(name) / "seconds.json").read_text())
            return found

    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(amounts.rounds):
        for count, found in runs.items():
            found.append(launch(count))
    return {
        "base": "mini",
        "method": "swapped",
        "contexts": amounts.shared,
        "objective_contexts": amounts.objective,
        "machine": f"{os.cpu_count()} cores shared with other work: load {os.getloadavg()[0]:.1f}",
        "labels_a_second": {
            clock: {
                str(count): round(amounts.shared / statistics.median(r[clock] for r in found), 1)
                for count, found in runs.items()
            }
            for clock in ("wall", "slowest_cpu")
        },
        "seconds": {str(count): found for count, found in runs.items()},
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Labels a second against the size of the model, and against processes."""
    sized, shared, clock = (result[key] for key in ("models", "processes", "clock"))
    figure = new_figure(3.6)
    left, right = figure.subplots(1, 2)
    runs = sorted(sized.values(), key=lambda run: run["sizes"]["parameters"])
    for method in ("exact", *FAST):
        x = [run["sizes"]["parameters"] / 1e6 for run in runs]
        y = [1000 / run["labels"][f"{method}, float32"]["ms_a_label"] for run in runs]
        left.loglog(x, y, "o-", color=COLORS[method], markersize=4, linewidth=2)
        _name(left, method, (x[-1], y[-1]), COLORS[method])
    left.set_xlabel("parameters, millions")
    left.set_ylabel(f"labels a second of {clock}")
    tidy(left, title=f"Objective {OBJECTIVE} × {LENGTH}, float32")
    for key, name in (("slowest_cpu", "CPU time of\nthe slowest"), ("wall", "wall clock")):
        if not shared:  # on one GPU
            break
        x = [int(count) for count in shared["labels_a_second"][key]]
        y = list(shared["labels_a_second"][key].values())
        color = COLORS["swapped"] if key == "slowest_cpu" else "#555555"
        right.plot(x, y, "o-", color=color, markersize=4, linewidth=2)
        _name(right, name, (x[-1], y[-1]), color)
    right.set_ylim(bottom=0)
    right.set_xticks([1, 2])
    right.set_xlabel("processes" + (f"\n({shared['machine']})" if shared else ""))
    right.set_ylabel("swapped labels a second")
    tidy(right, title="Processes (mini)")
    for axes in (left, right):
        axes.margins(x=0.4)
    save_figure(figure, path)


def _name(axes: Any, text: str, end: tuple[float, float], color: str) -> None:
    """Write what a line is beside its end, in its color."""
    place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, end, color=color, fontsize=SMALL, **place)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--size", default="gpt2", choices=SIZES, help="of the model that is timed")
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the .json and .png")
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    amounts = QUICK if options.quick else CUDA if on_gpu else CPU
    precisions = ("float32", "tf32", "bfloat16") if on_gpu else ("float32", "bfloat16")
    stem = "label_speed" + ("_cuda" if on_gpu else "")
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if on_gpu else environment()["cpu"],
        "clock": "GPU time" if on_gpu else "CPU time",
        "objective_contexts": amounts.objective,
        "context_length": LENGTH,
        "set_up_objective_of_fast_methods": SET_UP,
        "models": {},
    }

    def keep(name: str, value: Any) -> None:
        """As soon as it is there: what takes longest comes last."""
        result[name] = value
        write_result(options.out / f"{stem}.json", result)

    keep("processes", processes(amounts) if amounts.shared else None)
    print(json.dumps(result["processes"], indent=2), flush=True)
    keep("agreement", agreement(device, precisions, amounts))
    print(json.dumps(result["agreement"], indent=2), flush=True)
    smaller = [name for name in ("mini", "middle") if name != options.size]
    names = ["tiny"] if options.quick else [*smaller, options.size]
    for name in names:
        last = name == names[-1]
        timed = precisions if on_gpu and last else ("float32",)
        run = speed(SIZES[name], device, timed, amounts, plain=last)
        keep("models", {**result["models"], name: run})
        print(f"\n{name}: {run['sizes']['parameters'] / 1e6:.1f}M parameters, {run['ceilings']}")
        columns = ("ms_a_label", "floor_ms", "share", "speed_up")
        rows = ((way, *(row.get(key, "") for key in columns)) for way, row in run["labels"].items())
        print(table(("labels", *columns), rows), flush=True)
    plot(result, options.out / f"{stem}.png")


if __name__ == "__main__":
    main()
