"""Prompts with completions from the command line: label, fit, package, card, load, score, train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import DataCollatorForSeq2Seq

from cli_helpers import Result, learners
from recipes_helpers import OTHER, WANTED
from secondary_learners.filtering.decisions import LearnerFilter
from secondary_learners.gains.store import read_labels
from secondary_learners.registry.load import load_base, load_learner
from secondary_learners.text.sequences import Examples
from secondary_learners.trainers.trainer import FilteredTrainer
from tiny_models import write_base
from trainer_helpers import make_arguments


def rows(words: list[str], count: int, seed: int) -> list[dict[str, str]]:
    random = np.random.default_rng(seed)

    def some(most: int) -> str:
        return " ".join(random.choice(words, random.integers(1, most)))

    return [{"question": f"{n}: {some(9)}?", "answer": f" {some(6)}"} for n in range(count)]


def write(path: Path, found: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instructions")
    write(folder / "target.jsonl", rows(WANTED, 400, 0))
    write(folder / "pool.jsonl", rows(OTHER, 400, 1))
    write_base(folder / "base")
    return folder


def options(folder: Path) -> tuple[object, ...]:
    text = ("--objective", folder / "target.jsonl", "--pool", folder / "pool.jsonl")
    size = ("--contexts", 200, "--context-length", 24, "--exact", 8, "--device", "cpu")
    return (*text, "--columns", "question,answer", "--base", folder / "base", *size)


@pytest.fixture(scope="module")
def made(folder: Path) -> Result:
    result = learners("run", *options(folder), "--out", folder / "ships", "--json")
    assert result.code == 0, result.err
    return result


def test_run_makes_a_learner_that_loads_and_says_what_it_reads(made: Result, folder: Path) -> None:
    assert made.err == ""
    assert made.json["held_out"]["linear"]["spearman"] > 0.3
    config = load_learner(folder / "ships").config
    assert config.corpus["learner_reads"] == "prompt and completion"
    assert (config.corpus["prompt"], config.corpus["completion"]) == ("question", "answer")
    assert config.corpus["examples"] == made.json["labels"]["examples"]
    assert config.corpus["examples"]["longest"] <= config.context_length == 24
    thirds = made.json["lengths"]
    assert sum(third["contexts"] for third in thirds) == made.json["held_out"]["linear"]["contexts"]
    card = (folder / "ships" / "README.md").read_text()
    assert "200 prompts with completions, " in card
    assert "normalize" not in card
    assert all(
        f"of {t['shortest']} to {t['longest']} tokens {t['score']:+.2f}" in card for t in thirds
    )
    assert learners("card", "check", folder / "ships").code in (0, 1)
    assert not read_labels(folder / "ships" / "work" / "labels").contexts.whole


def test_gains_then_fit_is_run(made: Result, folder: Path, tmp_path: Path) -> None:
    labels, out = tmp_path / "labels", tmp_path / "ships"
    measured = learners("gains", *options(folder), "--out", labels, "--json")
    assert (measured.code, measured.json["count"]) == (0, 200)
    fitted = learners("fit", labels, "--out", out)
    assert fitted.code == 0, fitted.err
    for name in ("model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (folder / "ships" / name).read_bytes()
    both = learners("fit", labels, "--architecture", "conv", "--out", tmp_path / "conv", "--json")
    assert both.json["held_out"]["conv"]["spearman"] > 0


def test_score_keeps_the_best_rows_as_they_were(made: Result, folder: Path, tmp_path: Path) -> None:
    mixed = [
        row for pair in zip(rows(WANTED, 20, 5), rows(OTHER, 20, 6), strict=True) for row in pair
    ]
    pool, out = write(tmp_path / "mixed.jsonl", mixed), tmp_path / "best.jsonl"
    result = learners("score", pool, "-l", folder / "ships", "--keep", 0.5, "--out", out)
    assert result.code == 0, result.err
    best = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(best) == 20
    assert sum(any(word in row["question"] for word in WANTED) for row in best) > 15
    assert [{k: row[k] for k in ("question", "answer")} for row in best] == [
        row for row in mixed if row["question"] in {one["question"] for one in best}
    ]
    shown = learners("score", pool, "-l", folder / "ships").out.splitlines()
    assert len(shown) == 40
    assert " ".join((mixed[0]["question"] + mixed[0]["answer"]).split()) in shown[0]
    # The learner's own example is scored as a trainer would score it.
    learner, (_, tokenizer) = load_learner(folder / "ships"), load_base(str(folder / "base"))
    ids = Examples.of(mixed, tokenizer, longest=24, columns=("question", "answer")).rows()
    expected = [float(learner.score([row["input_ids"]])[0]) for row in ids[:5]]
    found = [float(line.split("\t")[0]) for line in shown[:5]]
    np.testing.assert_allclose(found, expected, atol=6e-4)


def test_one_line_filters_supervised_fine_tuning(
    made: Result, folder: Path, tmp_path: Path
) -> None:
    model, tokenizer = load_base(str(folder / "base"))
    mixed = rows(WANTED, 40, 5) + rows(OTHER, 40, 6)
    examples = Examples.of(mixed, tokenizer, longest=24, columns=("question", "answer"))
    tokenizer.pad_token = tokenizer.eos_token
    trainer = FilteredTrainer(
        model,
        make_arguments(tmp_path, num_train_epochs=1),
        train_dataset=examples.rows(),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        filter=LearnerFilter(load_learner(folder / "ships"), 0.0),
    )
    trainer.train()
    learner = load_learner(folder / "ships")
    ids, mask = examples.input_ids, examples.attention_mask
    assert trainer.savings.trained == int((learner.score(ids, mask) >= 0).sum())
    assert 0 < trainer.savings.trained < trainer.savings.seen == 80


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"question": "a", "answer": ""}, "target.jsonl, line 3 has no completion"),
        ({"question": "a"}, "target.jsonl, line 3 has no 'answer'"),
        ([1], "target.jsonl, line 3 has no 'question'"),
    ],
)
def test_a_row_without_a_completion_is_named(
    line: Any, message: str, folder: Path, tmp_path: Path
) -> None:
    good = rows(WANTED, 2, 0)
    target = write(tmp_path / "target.jsonl", [*good, line])
    text = ("--objective", target, "--pool", folder / "pool.jsonl", "--base", folder / "base")
    result = learners("gains", *text, "--columns", "question,answer", "--out", tmp_path / "labels")
    assert result.code == 1
    assert message in result.err


def test_wrong_uses_are_refused(made: Result, folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("Just words.\n")
    ships = folder / "ships"
    for arguments, message in (
        (("run", "books-mini", "--instructions"), "a recipe names its text"),
        (("run", *options(folder), "--columns", "one"), "not two names"),
        (("run", *options(folder), "--seeds", 2), "evaluation.seeds is 2"),
        (("score", text, "-l", ships), "Name a .jsonl or .parquet file"),
        (("score", folder / "pool.jsonl", "-l", ships, "--out", text), "must be .jsonl or"),
        (
            ("score", folder / "pool.jsonl", "-l", "books-mini", "--columns", "a,b"),
            "made from text",
        ),
        (
            (
                "gains",
                "--objective",
                text,
                "--pool",
                text,
                "--instructions",
                "--out",
                tmp_path / "l",
            ),
            "holds no rows of prompts",
        ),
    ):
        result = learners(*arguments)
        assert result.code != 0
        assert message in " ".join(result.err.split()), result.err
