"""Snippets of README and docs/ run, figures are those of result files, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from cli_helpers import learners
from secondary_learners.content import content
from secondary_learners.experiments.multistage import ARMS
from secondary_learners.filtering.stream import filtered
from secondary_learners.registry.load import load_base, load_learner
from trainer_helpers import collate, make_arguments, make_model, make_rows

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}


STORY = '"Come in," she said, looking round at me; and so I sat down, and we were silent awhile. '
MANUAL = "The military budget, including program support for economic areas, is output as code. "


def snippet(page: str, name: str = "") -> str:
    pattern = rf"<!-- executed by tests/docs/test_docs.py{name} -->\n```python\n(.*?)```"
    matches = re.findall(pattern, PAGES[f"docs/{page}"], re.S)
    assert len(matches) == 1
    return str(matches[0])


def test_the_snippet_runs() -> None:
    code = snippet("guides/filter.md")
    _, tokenizer = load_base("mini")
    rows = [torch.tensor(tokenizer(text * 4).input_ids[:32]) for text in (STORY, MANUAL)]
    names: dict[str, Any] = {"loader": DataLoader(rows * 40, batch_size=8)}
    exec(code, names)
    report = names["loader"].report
    assert (report.seen, report.kept, report.batches) == (80, 40, 5)


def test_the_snippet_with_a_sampler_runs() -> None:
    scores = [0.0, 0.0, 30.0, 0.0, 30.0, 30.0, 30.0, 30.0, 30.0, 0.0]
    dataset = datasets.Dataset.from_dict({"text": list("abcdefghij"), "score": scores})
    names: dict[str, Any] = {"dataset": dataset, "DataLoader": DataLoader}
    exec(snippet("guides/filter.md", ": sampler"), names)
    assert sorted(text for batch in names["loader"] for text in batch) == list("cefghi")


def test_the_trainer_snippet_runs(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    code = snippet("guides/trainer.md", ": trainer")
    names: dict[str, Any] = {
        "model": make_model(),
        "args": make_arguments(tmp_path),
        "train": make_rows(80),
        "collator": collate,
    }
    exec(code, names)
    savings = names["trainer"].savings
    assert savings.trained < savings.seen == 160


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # in peft
def test_the_snippet_with_prompts_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trl = pytest.importorskip("trl")
    code = snippet("guides/instructions.md", ": instructions")
    shutil.copytree(content("learners") / "books-mini", tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    model, tokenizer = load_base("mini")
    rows = [{"prompt": f"{text} Go on:", "completion": f" {text}"} for text in (STORY, MANUAL)]
    options = {"report_to": [], "use_cpu": True, "bf16": False, "activation_checkpointing": False}
    names: dict[str, Any] = {
        "model": model,
        "tokenizer": tokenizer,
        "pool": datasets.Dataset.from_list(rows * 4),
        "target": rows[:1],
        "args": trl.SFTConfig(str(tmp_path / "out"), **options),
    }
    exec(code, names)
    gains = names["gains"].reshape(4, 2)
    assert (gains[:, 0] > gains[:, 1]).all()
    assert len(names["trainer"].train_dataset) == 8


def test_the_snippet_of_gains_runs() -> None:
    model, tokenizer = load_base("mini")
    rows = [tokenizer(text * 4).input_ids[:32] for text in (STORY, MANUAL)]
    names: dict[str, Any] = {
        "model": model,
        "contexts": torch.tensor(rows),
        "objective": torch.tensor(rows[:1]),
    }
    exec(snippet("guides/own-learner.md", ": gains"), names)
    assert names["gains"].shape == (2,)
    assert names["gains"][0] > names["gains"][1]


def test_the_snippet_of_deltas_runs() -> None:
    names: dict[str, Any] = {}
    exec(snippet("guides/deltas.md", ": delta"), names)
    plain = load_base("mini")[0].state_dict()
    model = names["applied"].model.state_dict()
    shared = [name for name in plain if name in model]
    assert shared and all(torch.equal(plain[name], model[name]) for name in shared)


def test_the_snippet_for_several_processes_runs() -> None:
    """In one; tests/filtering has several."""
    _, tokenizer = load_base("mini")
    rows = [torch.tensor(tokenizer(text * 4).input_ids[:32]) for text in (STORY, MANUAL)]
    names: dict[str, Any] = {
        "dataset": rows * 32,
        "DataLoader": DataLoader,
        "DistributedSampler": partial(DistributedSampler, num_replicas=1, rank=0),
        "filtered": filtered,
        "learner": load_learner("books-mini"),
    }
    exec(snippet("guides/filter.md", ": joint"), names)
    assert [len(batch) for batch in names["loader"]] == [16, 16]


def test_the_snippet_of_thresholds_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, tokenizer = load_base("mini")
    rows = [{"input_ids": tokenizer(text * 4).input_ids[:32]} for text in (STORY, MANUAL)]
    names: dict[str, Any] = {"dataset": datasets.Dataset.from_list(rows * 4)}
    exec(snippet("guides/thresholds.md", ": thresholds"), names)
    assert capsys.readouterr().out.startswith("[")
    assert names["best"]["input_ids"] == [rows[0]["input_ids"]] * 4


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # in peft
def test_the_snippet_of_sft_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trl = pytest.importorskip("trl")
    model, tokenizer = load_base("mini")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    options = {"report_to": [], "use_cpu": True, "bf16": False, "activation_checkpointing": False}
    names: dict[str, Any] = {
        "model": model,
        "tokenizer": tokenizer,
        "rows": datasets.Dataset.from_list([{"text": text} for text in (STORY, MANUAL) * 4]),
        "args": trl.SFTConfig(
            str(tmp_path / "out"),
            per_device_train_batch_size=4,
            num_train_epochs=1,
            save_strategy="no",
            disable_tqdm=True,
            **options,
        ),
    }
    exec(snippet("guides/sft.md", ": sft"), names)
    savings = names["trainer"].savings
    assert (savings.seen, savings.trained) == (8, 4)
    assert str(savings) in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning:datatrove")
def test_the_snippet_of_datatrove_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datatrove")
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    monkeypatch.chdir(tmp_path)
    rows = [{"id": str(n), "text": text} for n, text in enumerate((STORY, MANUAL) * 4)]
    Path("corpus").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "corpus/a.parquet")
    names: dict[str, Any] = {
        "ParquetReader": lambda _: ParquetReader("corpus"),  # the test's, in place of a bucket
        "ParquetWriter": ParquetWriter,
    }
    exec(snippet("guides/scoring.md", ": datatrove"), names)
    LocalPipelineExecutor(names["pipeline"], logging_dir="logs").run()
    assert pyarrow.parquet.read_table("best")["text"].to_pylist() == [STORY] * 4


def test_the_snippet_of_ray_runs() -> None:
    """On a stand-in for a data set of Ray's, which tests/engines has in full."""

    class Rows:
        def map_batches(self, cls: Any, fn_constructor_args: tuple[str], concurrency: int) -> Any:
            return cls(*fn_constructor_args)({"text": np.array([STORY, MANUAL], object)})

    ray = SimpleNamespace(data=SimpleNamespace(read_parquet=lambda path: Rows()))
    names: dict[str, Any] = {"ray": ray}
    exec(snippet("guides/scoring.md", ": ray"), names)
    story, manual = names["scored"]["score"]
    assert story > 1 > manual


def test_the_quickstart_runs_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(snippet("quickstart.md", ": quickstart"), {})
    commands = re.findall(r"^\$ learners (.*)$", PAGES["docs/quickstart.md"], re.M)
    assert commands[-1] == "demo"  # which tests/cli runs
    for command in commands[:-1]:
        result = learners(*shlex.split(command))
        assert result.code == 0, result.err
        assert result.out or "best.jsonl" in command
    best = [json.loads(line) for line in Path("best.jsonl").read_text().splitlines()]
    assert [row["text"].split()[0] for row in best] == ['"Come', "It"]


def test_every_snippet_is_marked_as_executed() -> None:
    pages = "\n".join(text for page, text in PAGES.items() if page.startswith("docs/"))
    marked = re.findall(
        r"^<!-- executed by tests/docs/test_docs.py(?:: (\w+))? -->\n```python$", pages, re.M
    )
    assert len(marked) == len(re.findall(r"^ *```python", pages, re.M))
    tests = Path(__file__).read_text(encoding="utf-8")
    executed = re.findall(r"snippet\(\s*\"[\w/.-]+\"(?:, \": (\w+)\")?\s*\)", tests)
    assert sorted(marked) == sorted(executed)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"https?://", target):
            assert ((ROOT / page).parent / target).exists(), target


def test_every_page_is_in_the_table_of_contents() -> None:
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", PAGES["docs/README.md"]))
    pages = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}
    assert linked == pages - {"README.md"}


def figures(part: str) -> str:
    """The block of that name, which is on one page alone."""
    pattern = rf"<!-- {part} -->\n(.*?)<!-- /{part} -->"
    matches = re.findall(pattern, "\n".join(PAGES.values()), re.S)
    assert len(matches) == 1
    return str(matches[0])


def test_the_table_is_that_of_the_evaluation() -> None:
    path = content("learners") / "books-mini" / "evaluation.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["fine_tuning"]["rows"]
    shown = [line.split("|")[1:-1] for line in figures("table").splitlines() if "±" in line]
    assert [cells[0].strip().strip("*") for cells in shown] == [row["arm"] for row in rows]
    for cells, row in zip(shown, rows, strict=True):
        value, error = (float(text) for text in cells[1].replace("*", "").split("±"))
        assert value == pytest.approx(row["perplexity"], abs=0.051)
        assert error == pytest.approx(row["error"], abs=0.051)


def test_the_losses_of_completions_are_those_of_the_benchmark() -> None:
    result = json.loads((ROOT / "benchmarks/results/instructions.json").read_text(encoding="utf-8"))
    shown, arms, plan = figures("instructions"), result["arms"], result["plan"]
    losses = re.findall(r"([\d.]+) ± ([\d.]+)", shown)
    for (value, error), name in zip(losses, ("filtered", "plain", "random"), strict=True):
        assert float(value) == pytest.approx(arms[name]["loss"], abs=5.1e-4)
        assert float(error) == pytest.approx(arms[name]["error"], abs=5.1e-4)
    assert (
        f"{plan['updates']} updates of {plan['batch_size']} examples, {plan['seeds']} seeds"
        in shown
    )
    assert f"{result['before']:.3f} before" in shown
    assert f"drew {arms['filtered']['drawn_for_each_trained']:.1f} for each" in shown
    assert {arms["filtered"][p] for p in ("p_plain", "p_random")} == {0.0625}
    held_out = result["held_out_spearman"]["linear"]
    assert f"Spearman {held_out['all']:.2f}, but only {held_out['objective']:.2f}" in shown
    path = ROOT / "benchmarks/results/instruction_methods.json"
    methods = json.loads(path.read_text(encoding="utf-8"))
    with_length, with_exact = methods["with_completion_tokens"], methods["with_exact"]
    assert f"Spearman −{-with_length['swapped']:.2f} with" in shown
    assert f"exact −{-with_length['exact']:.2f})" in shown
    assert f"{methods['examples']} exact ones at {with_exact['swapped']['all']:.2f}" in shown
    assert f"per-example ones at {with_exact['per-example']['all']:.3f}" in shown


def test_the_figures_for_gpt2_are_those_of_the_evaluation() -> None:
    path = content("learners") / "wikitext-gpt2" / "evaluation.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    difference, cross = found["difference"], found["cross_validation"]["difference"]
    expected = [
        found["held_out"]["conv"]["spearman"],
        found["held_out"]["ridge"]["spearman"],
        difference["spearman"],
        *difference["spearman_interval"],
        cross["spearman"],
        cross["standard_error"],
        found["speed"]["tokens_per_second"] / 1e6,
    ]
    same_figures(figures("wikitext"), expected)


def test_the_figures_of_books_gpt2_are_those_of_its_evaluation() -> None:
    path = content("learners") / "books-gpt2" / "evaluation.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = {row["kind"]: row for row in found["fine_tuning"]["rows"]}
    filtered = rows["filtered"]
    assert filtered["p_standard"] == filtered["p_random"]
    assert found["fine_tuning"]["settings"]["updates"] == 40
    assert found["fine_tuning"]["seeds"] == 10
    same_figures(
        figures("books-gpt2"),
        [
            found["stand_in"]["held_out_loss"],
            found["labels"]["spearman_with_exact"],
            found["held_out"]["linear"]["spearman"],
            found["fine_tuning"]["before"],
            filtered["perplexity"],
            rows["standard"]["perplexity"],
            rows["random"]["perplexity"],
            filtered["p_standard"],
        ],
    )


def test_the_transfer_is_that_of_the_benchmark() -> None:
    result = json.loads((ROOT / "benchmarks/results/transfer.json").read_text(encoding="utf-8"))
    found = {
        (row["learner"], row["base"], row["updates"]): row["spearman"] for row in result["rows"]
    }
    expected = [
        found[name, "mini", updates]
        for name in ("books-mini", "python-docs-mini")
        for updates in (0, 60, 300)
    ]
    expected += [found[name, "mini-deep", 0] for name in ("books-mini", "python-docs-mini")]
    same_figures(figures("transfer"), expected)


def test_the_multistage_filter_is_that_of_the_benchmark() -> None:
    result = json.loads((ROOT / "benchmarks/results/multistage.json").read_text(encoding="utf-8"))
    rows = {(row["task"], row["epochs"], row["arm"]): row for row in result["rows"]}
    assert {row["seeds"] for row in result["rows"]} == {3}

    def score(row: Mapping[str, Any]) -> str:
        return f"{100 * row['score']:.1f} ± {100 * row['deviation']:.1f}"

    def saving(row: Mapping[str, Any]) -> str:
        return f"{row['fewer_trained']:.1f}× / {row['less_time']:.1f}×"

    shown, titles = figures("multistage"), {"sst2": "SST-2", "agnews": "AG News", "cola": "CoLA"}
    for task, epochs in dict.fromkeys((task, epochs) for task, epochs, _ in rows):
        arms = {arm: rows[task, epochs, arm] for arm in ARMS}
        cells = [
            f"{titles[task]}, {epochs}",
            score(arms["plain"]),
            score(arms["multistage"]),
            saving(arms["multistage"]),
            score(arms["random"]),
            score(arms["learner"]),
            saving(arms["learner"]),
            score(arms["random-learner"]),
        ]
        assert f"| {' | '.join(cells)} |" in shown
    for row, words in zip(result["against_random"], ("naive Bayes", "the learner"), strict=True):
        said = f"{words} {row['points']:+.1f} points (p = {row['p']:.3f})".replace("-", "−")
        assert said in shown and row["pairs"] == 9


def same_figures(shown: str, expected: list[float]) -> None:
    """The decimal numbers of a text are these, in their order, to the digits that it has."""
    numbers = re.findall(r"(?<![\w.])[+-]?\d+\.\d+(?:e-\d+)?", shown.replace("−", "-"))
    assert len(numbers) == len(expected)
    for number, value in zip(numbers, expected, strict=True):
        digits = len(number.partition("e")[0].split(".")[1])
        scale = 10 ** -int(number.partition("e-")[2] or 0)
        assert float(number) == pytest.approx(value, abs=0.51 * 10**-digits * scale)


def test_the_figures_of_scale_are_those_of_the_benchmark() -> None:
    result = json.loads((ROOT / "benchmarks/results/scale.json").read_text(encoding="utf-8"))
    runs = {(run["corpus"], run["workers"], run["what"]): run for run in result["runs"]}
    rows = [line.split("|")[1:-1] for line in figures("scale").splitlines()[2:]]
    assert len(rows) == len(runs) / 2
    for cells in rows:
        corpus, workers = cells[0].strip(), int(cells[1])
        one, reading = (runs[corpus, workers, what] for what in ("scoring", "reading"))
        rate = one["tokens_a_cpu_second"] / 1000
        expected = [one["cpu_seconds"], reading["cpu_seconds"], rate, one["megabytes"]]
        same_figures(" ".join(cells[2:]), expected)
    shown = re.findall(r"<!-- scale-rate -->(\d+) .* (\d+) with", PAGES["docs/results/scale.md"])
    tokens = {name: pool["tokens"] for name, pool in result["corpora"].items()}
    small, large = "1 M characters", "16 M characters"
    for workers, value in zip((1, 2), shown[0], strict=True):
        seconds = [runs[name, workers, "scoring"]["cpu_seconds"] for name in (small, large)]
        rate = (tokens[large] - tokens[small]) / (seconds[1] - seconds[0])
        assert int(value) == round(rate / 1000)
    assert str(result["environment"]["load_average"]) in PAGES["docs/results/scale.md"]


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
    text = PAGES["docs/results/deltas.md"]
    shown = [line.split("|")[1:-1] for line in text.splitlines() if "±" in line and "|" in line]
    assert len(shown) == len(found) == 5
    for cells, row in zip(shown, found, strict=True):
        mean, deviation = (float(part) for part in cells[1].split("±"))
        assert mean == pytest.approx(row["mean"], abs=0.051)
        assert deviation == pytest.approx(row["deviation"], abs=0.051)
        assert int(cells[2].replace(",", "")) == row["bytes"]


def test_the_trials_are_those_of_the_benchmark() -> None:
    result = json.loads((ROOT / "benchmarks/results/trials.json").read_text(encoding="utf-8"))
    shown = figures("trials")
    rows = re.findall(r"\| (CoLA|RTE), .* \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", shown)
    for (task, *values), found in zip(rows, result["tasks"], strict=True):
        assert task.lower() == found["task"]
        measured = (found["mean"], found["deviation"], found["expected_best"]["5"]["mean"])
        assert [float(value) for value in values] == [round(100 * value, 1) for value in measured]
    cola, rte = result["arms"]
    assert f"mean by {100 * cola['difference']:+.1f} (p = {cola['p']:.4f})" in shown
    assert f"spread (p = {cola['p_spread']:.2f})" in shown
    assert f"neither (p = {rte['p']:.2f} and {rte['p_spread']:.2f})" in shown
    gains = [row["gain"] for found in result["tasks"] for row in found["early_stopping"]]
    assert f"by more than {100 * max(gains):.1f} points" in shown
    assert f"up to {-100 * min(gains):.1f} points worse" in shown


def row_of(row: dict[str, Any]) -> str:
    """A line of a table in docs/results/against.md."""
    error = "" if row["se"] is None else f" ± {row['se']:.2f}"
    above = "–"
    if row["change"] is not None:
        low, high = row["change_interval"]
        above = f"{row['change'] * 100:+.1f} % [{low * 100:+.1f}, {high * 100:+.1f}]"
    p = "–" if row["p"] is None else f"{row['p']:.3f}"
    share = f"{row['kept_in_domain']:.0%}"
    values = f"{row['perplexity']:.2f}{error} | {above} | {p} | {share}"
    return f"| {row['pool']} | {row['arm']} | {values} |"


def test_the_first_page_says_how_the_filter_does_beside_a_classifier() -> None:
    path = ROOT / "benchmarks/results/against-books-smollm2.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["selectors"]
    ends = {(row["pool"], row["arm"]): f"{row['perplexity']:.1f}" for row in rows}
    shown = figures("smollm2")
    arms = ("quantile:0.22", "standard", "random quantile:0.22")
    own = [ends["own", arm] for arm in arms]
    unseen = [ends["unseen", arm] for arm in arms[:2]]
    other = [ends[pool, "classifier"] for pool in ("own", "unseen")]
    assert re.findall(r"\d+\.\d", shown) == [*own, *unseen, *other]


@pytest.mark.parametrize("name", ["books-smollm2", "books-mini"])
def test_the_figures_beside_other_selectors_are_those_of_the_benchmark(name: str) -> None:
    path = ROOT / f"benchmarks/results/against-{name}.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    shown = figures(f"against-{name}")
    assert [line for line in shown.splitlines() if line.startswith(("| own", "| unseen"))] == [
        row_of(row) for row in result["selectors"]
    ]
    assert f"{len(result['seeds'])} seeds" in shown
