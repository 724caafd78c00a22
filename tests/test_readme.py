"""The README's snippet runs, and its figures are those of the committed result files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from secondary_learners.catalogue import content
from secondary_learners.registry.load import load_base
from trainer_helpers import collate, make_arguments, make_model, make_rows

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


STORY = '"Come in," she said, looking round at me; and so I sat down, and we were silent awhile. '
MANUAL = "The military budget, including program support for economic areas, is output as code. "


def test_the_snippet_runs() -> None:
    pattern = r"<!-- executed by tests/test_readme.py -->\n```python\n(.*?)```"
    snippet = re.search(pattern, README, re.S)
    assert snippet
    _, tokenizer = load_base("mini")
    rows = [torch.tensor(tokenizer(text * 4).input_ids[:32]) for text in (STORY, MANUAL)]
    names: dict[str, Any] = {"loader": DataLoader(rows * 40, batch_size=8)}
    exec(snippet[1], names)
    report = names["loader"].report
    assert (report.seen, report.kept, report.batches) == (80, 40, 5)


def test_the_trainer_snippet_runs(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    pattern = r"<!-- executed by tests/test_readme.py: trainer -->\n```python\n(.*?)```"
    snippet = re.search(pattern, README, re.S)
    assert snippet
    names: dict[str, Any] = {
        "model": make_model(),
        "args": make_arguments(tmp_path),
        "train": make_rows(80),
        "collator": collate,
    }
    exec(snippet[1], names)
    savings = names["trainer"].savings
    assert savings.trained < savings.seen == 160


def figures(part: str) -> str:
    match = re.search(rf"<!-- {part} -->\n(.*?)<!-- /{part} -->", README, re.S)
    assert match
    return match[1]


def test_the_table_is_that_of_the_evaluation() -> None:
    path = content("learners") / "books-mini" / "evaluation.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["fine_tuning"]["rows"]
    shown = [line.split("|")[1:-1] for line in figures("table").splitlines() if "±" in line]
    assert [cells[0].strip().strip("*") for cells in shown] == [row["arm"] for row in rows]
    for cells, row in zip(shown, rows, strict=True):
        value, error = (float(text) for text in cells[1].replace("*", "").split("±"))
        assert value == pytest.approx(row["perplexity"], abs=0.051)
        assert error == pytest.approx(row["error"], abs=0.051)


def test_the_speeds_are_those_of_the_benchmark() -> None:
    result = json.loads((ROOT / "benchmarks/results/gains.json").read_text(encoding="utf-8"))
    shown = dict(re.findall(r"`([a-z-]+)` ([\d.]+)×", figures("gains")))
    assert shown.keys() == {"exact", "per-example", "swapped"}
    for method, ratio in shown.items():
        assert float(ratio) == pytest.approx(result["speed"][method]["speed_up"], rel=0.02)


def test_the_speeds_at_the_size_of_gpt2_are_those_of_the_benchmark() -> None:
    result = json.loads((ROOT / "benchmarks/results/label_speed.json").read_text(encoding="utf-8"))
    shown, labels = figures("label-speed"), result["models"]["gpt2"]["labels"]
    rows = re.findall(r"`([a-z-]+)` ([\d.]+)× and (\d+) %", shown)
    assert [name for name, _, _ in rows] == ["exact", "per-example", "swapped"]
    for name, ratio, share in rows:
        row = labels[f"{name}, float32"]
        assert float(ratio) == pytest.approx(row["speed_up"], rel=0.02)
        assert int(share) == round(100 * row["share"])
    found = re.search(r"Spearman ([\d.]+) \(`exact`\) and ([\d.]+) \(`swapped`", shown)
    assert found
    agreed = result["agreement"]["spearman_with_exact_float32"]
    expected = [agreed[f"{name}, bfloat16"] for name in ("exact", "swapped")]
    assert [float(text) for text in found.groups()] == pytest.approx(expected, abs=0.0051)
    clocks = result["processes"]["labels_a_second"]
    times = re.search(r"make ([\d.]+) times the labels", shown)
    assert times
    assert float(times[1]) == pytest.approx(
        clocks["slowest_cpu"]["2"] / clocks["slowest_cpu"]["1"], abs=0.0051
    )
    assert clocks["wall"]["2"] <= clocks["wall"]["1"]  # "no gain"


def test_the_server_s_figures_are_those_of_the_benchmark() -> None:
    shown = figures("serve")
    serve, load = (
        json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))
        for name in ("serve", "load")
    )
    downloads = serve["downloads"]["figures"]
    assert not any(run[side]["failed"] for run in downloads.values() for side in ("serve", "nginx"))
    for file, pattern in (("learner", r"8 MB files at"), ("small", r"2 kB at")):
        shares = [run["share_of_nginx"] for name, run in downloads.items() if file in name]
        match = re.search(pattern + r" ([\d.]+) to ([\d.]+) times", shown)
        assert match
        assert [float(text) for text in match.groups()] == pytest.approx(
            [min(shares), max(shares)], abs=0.0051
        )
    parts = (serve["downloads"], *serve["publishing"].values())
    memory = re.search(r"at most (\d+) MB of memory", shown)
    assert memory
    assert max(part["memory"]["peak_mb"] for part in parts) <= float(memory[1])
    worst = re.search(r"at most ([\d.]+) times `hf_hub_download`", shown)
    assert worst
    learners = load["learners"].values()
    ratios = [ratio for one in learners for ratio in one["times_by_hand"].values()]
    assert max(ratios) == pytest.approx(float(worst[1]), abs=0.0051)


def test_the_deltas_are_those_of_the_benchmark() -> None:
    result = json.loads((ROOT / "benchmarks/results/deltas.json").read_text(encoding="utf-8"))
    found = [row for row in result["rows"] if row["task"] == "sst2"]
    text = README.split("## A task as a delta")[1].split("\n## ")[0]
    shown = [line.split("|")[1:-1] for line in text.splitlines() if "±" in line and "|" in line]
    assert len(shown) == len(found) == 5
    for cells, row in zip(shown, found, strict=True):
        mean, deviation = (float(part) for part in cells[1].split("±"))
        assert mean == pytest.approx(row["mean"], abs=0.051)
        assert deviation == pytest.approx(row["deviation"], abs=0.051)
        assert int(cells[2].replace(",", "")) == row["bytes"]
