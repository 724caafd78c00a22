"""The benchmarks run: their figures are for a quiet machine, their code is for every change."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from classification_helpers import write_task

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


needs_tools = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("wrk")), reason="nginx and wrk are not installed"
)


@pytest.mark.parametrize(
    "name",
    [
        "deltas",
        "gains",
        "instructions",
        "label_speed",
        "load",
        "multistage",
        "overhead",
        "own_text",
        "scale",
        "scoring",
        "subsets",
        "transfer",
        pytest.param("serve", marks=needs_tools),
    ],
)
def test_smoke_run(name: str, tmp_path: Path) -> None:
    script = BENCHMARKS / f"{name}.py"
    found = subprocess.run(
        [sys.executable, str(script), "--quick", "--out", str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": str(int(name != "serve"))},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert result["command"].startswith(f"python benchmarks/{name}.py --quick")
    assert {"cpu", "threads", "torch"} <= set(result["environment"])
    drawn = name in ("deltas", "gains", "label_speed", "multistage")
    assert (tmp_path / f"{name}.png").exists() == drawn


def test_smoke_run_of_the_trials_of_a_table(tmp_path: Path) -> None:
    rows = [f"rte,{i},{o},{0.5 + (i * 7 + o * 3) % 11 / 40}" for i in range(11) for o in range(10)]
    (tmp_path / "t.csv").write_text("\n".join(["task,init_rank,data_rank,best_val", *rows]))
    (tmp_path / "s.csv").write_text(
        "task,budget,performance,improvement_over_no_stop,num_started,num_fully_trained,frac_data\n"
        "rte,2,0.7,0.02,4,1,0.3333\n"
    )
    options = ["--trials", tmp_path / "t.csv", "--stopping", tmp_path / "s.csv", "--quick"]
    command = [sys.executable, BENCHMARKS / "dodge.py", *options, "--out", tmp_path]
    found = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    result = json.loads((tmp_path / "dodge.json").read_text())
    assert result["off_exact"] < 1e-12
    assert result["off_drawn"] < 0.01
    assert result["stopping"]["cost_off_per_stopped_trial"] < 1e-4
    assert (tmp_path / "dodge.png").is_file()
    missing = [*command[:2], "--trials", tmp_path / "none.csv", "--out", tmp_path / "no"]
    found = subprocess.run(list(map(str, missing)), capture_output=True, text=True)
    assert (found.returncode, (tmp_path / "no").exists()) == (0, False)
    assert "Name it with --trials" in found.stdout


def test_smoke_run_of_a_sweep(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("matplotlib")
    for name in ("cola", "rte"):
        write_task(tmp_path / "data" / name, train=60, dev=45, pairs=name == "rte")
    command = [sys.executable, BENCHMARKS / "trials.py", "--data", tmp_path / "data", "--quick"]
    folders = ["--folder", tmp_path / "sweep", "--out", tmp_path / "out"]
    found = subprocess.run(
        [*map(str, command), *map(str, folders)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    result = json.loads((tmp_path / "out" / "trials.json").read_text())
    assert [(row["task"], row["trials"]) for row in result["tasks"]] == [
        ("cola", 4),
        ("cola", 4),
        ("rte", 4),
        ("rte", 4),
    ]
    for row in result["tasks"]:
        assert abs(row["deviation"] - row["looped"]["all"]) < 1e-12
        for best in row["expected_best"].values():
            assert abs(best["mean"] - best["exact"]) < 1e-12
        for stop in row["early_stopping"]:
            assert stop["setting"]["cost"] <= stop["budget"]
            assert abs(stop["drawn"] - stop["exact"]) <= 5 * stop["drawn_error"] + 1e-9
    assert [test["task"] for test in result["arms"]] == ["cola", "rte"]
    assert (tmp_path / "out" / "trials.png").is_file()
    assert (tmp_path / "out" / "trials.csv").is_file()


def test_bytes_of_a_model_without_memory_are_those_of_a_real_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from secondary_learners.gains.subsets import trained

    monkeypatch.syspath_prepend(BENCHMARKS)
    count = importlib.import_module("subsets").llama_bytes
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
    sizes |= {"vocab_size": 100, "num_hidden_layers": 2, "num_key_value_heads": 4}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes), dtype=torch.bfloat16)
    one, two = (count("lora", contexts=n, length=8, **sizes) for n in (1, 2))
    assert one["weights"] == sum(parameter.nbytes for parameter in model.parameters())
    with trained(model, "lora"):
        moving = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert one["trained_parameters"] == moving
    assert two["activations"] == pytest.approx(2 * one["activations"], rel=0.01)
    hidden = 8 * 64 * 2  # one hidden state of a context, of which each block saves several
    assert 2 * 5 * hidden < one["activations"] < 2 * 100 * hidden
    large = count("lora", contexts=1, length=32)
    assert large["weights"] == 2 * 6_738_415_616  # of Llama 2 7B, as its paper has it
    assert sum(large.values()) < 80e9
