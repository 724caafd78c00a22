from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import huggingface_hub.constants
import pyarrow
import pyarrow.parquet
import pytest
import torch

from cli_helpers import Tiny, learners
from secondary_learners.cli import catalogue as catalogue_commands
from secondary_learners.content import content
from secondary_learners.errors import MissingExtraError
from secondary_learners.experiments import compare as compare_module
from secondary_learners.experiments import comparison_figure
from secondary_learners.filtering.sampling import ScoreSampler
from secondary_learners.gains.methods import method_named
from secondary_learners.gains.store import read_labels
from secondary_learners.learners.artifact import read_learner
from secondary_learners.registry.index import list_learners, read_index
from secondary_learners.registry.load import load_base, load_learner

TEXTS = [
    "The ship lay in the harbour",
    "Form and table of the tax office",
    "A storm broke sail and mast",
    "Rate, unit, list",
    "sea sea sea wave",
]
SHIPS = [0, 2, 4]


# the help

SECTIONS = {
    "Find": {"list", "show", "demo"},
    "Make": {"run", "gains", "fit", "distil", "rebuild", "delta", "trials", "worth"},
    "Use": {"score", "select", "explain", "finetune", "refresh"},
    "Share": {"publish", "card", "lock", "verify", "registry", "catalogue"},
    "Serve": {
        *("serve", "serve-token", "serve-check"),
        *("serve-backup", "serve-restore", "serve-gc"),
    },
}


def test_help_lists_commands_in_sections_a_line_each() -> None:
    lines = learners("--help").out.partition("Options:")[2].splitlines()
    titles = [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == list(SECTIONS)
    for title, names in SECTIONS.items():
        start = lines.index(f"{title}:") + 1
        end = next((n for n, line in enumerate(lines) if n > start and not line), len(lines))
        rows = [line.split(maxsplit=1) for line in lines[start:end]]
        assert {name for name, _ in rows} == names and len(rows) == len(names)
        assert all(text.endswith((".", "?")) for _, text in rows)


def test_a_mistyped_option_gets_the_near_ones() -> None:
    result = learners("finetune", "--sed", "3")
    assert result.code == 2
    assert "No such option '--sed'" in result.err and "--seeds" in result.err


# list and show


def test_list_names_what_can_be_loaded() -> None:
    result = learners("list")
    assert (result.code, result.err) == (0, "")
    header, *rows = result.out.splitlines()
    assert header.split() == ["NAME", "KIND", "BASE", "ARCHITECTURE", "CORPUS", "SIZE"]
    assert {row.split()[0] for row in rows} == set(read_index())


def test_list_as_json_has_every_entry_with_its_digests() -> None:
    entries = {entry["name"]: entry for entry in learners("list", "--json").json}
    assert set(entries) == set(read_index())
    assert entries["mini"]["files"] == dict(read_index()["mini"].files)


@pytest.mark.parametrize("field", ["base", "corpus", "architecture"])
def test_list_filters(field: str) -> None:
    for entry in list_learners():
        value = getattr(entry, field)
        found = [found["name"] for found in learners("list", f"--{field}", value, "--json").json]
        assert entry.name in found
        assert "mini" not in found


def test_the_corpus_filter_finds_a_word_of_a_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(
        read_index()["mini"],
        name="x",
        kind="learner",
        base="mini",
        objective="books",
        corpus="books+general",
    )
    monkeypatch.setattr(catalogue_commands, "list_learners", lambda **filters: [entry])
    assert [found["name"] for found in learners("list", "--corpus", "books", "--json").json] == [
        "x"
    ]
    assert learners("list", "--corpus", "poems", "--json").json == []


def test_list_of_nothing_says_what_to_try() -> None:
    result = learners("list", "--base", "nothing")
    assert (result.code, result.out.strip()) == (0, "")
    assert "Try `learners list`" in result.err
    assert learners("list", "--base", "nothing", "--quiet").err == ""


def test_list_recipes() -> None:
    names = sorted(path.stem for path in content("recipes").glob("*.toml"))
    assert learners("list", "--recipes", "--json").json == names
    assert learners("list", "--recipes").out.split() == names


@pytest.mark.parametrize("name", sorted(read_index()))
def test_show_prints_the_card_without_its_metadata(name: str) -> None:
    result = learners("show", name)
    assert result.code == 0
    assert result.out.startswith(f"# {name}\n")
    value = learners("show", name, "--json").json
    assert value["name"] == name
    evaluation = json.loads((content("learners") / name / "evaluation.json").read_text())
    assert value["evaluation"] == evaluation


def test_show_takes_a_folder(tiny: Tiny) -> None:
    assert learners("show", tiny.learner).out.startswith("# my-ships\n")
    assert learners("show", tiny.learner, "--json").json["config"]["name"] == "my-ships"


def test_a_folder_that_happens_to_have_a_learner_s_name_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mini").mkdir()
    monkeypatch.chdir(tmp_path)
    assert learners("show", "mini").out.startswith("# mini\n")


# names and options that do not exist


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["lst"], 2, "no command named 'lst'. Did you mean `learners list`?"),
        (["zzzz"], 2, "no command named 'zzzz'. Try `learners --help`."),
        (["show", "mni"], 1, "no learner named 'mni': did you mean mini? Try `learners list`."),
        (["score", "FILE", "-l", "python-dox"], 1, "no learner named 'python-dox'"),
        (["explain", "text", "-l", "nobody/nothing"], 1, "no folder 'nobody/nothing'"),
        (["finetune", "-l", "boks"], 1, "no learner named 'boks'"),
        (["run", "python-docs"], 1, "no recipe named 'python-docs': did you mean python-docs-mini"),
        (["run"], 2, "give a RECIPE"),
        (
            ["run", "mini", "--contexts", "50"],
            2,
            "--contexts is for learners whose gains are measured here; mini is a base model",
        ),
        (["run", "mini", "--context-length", "50"], 2, "--context-length is for learners"),
        (["run", "mini", "--seeds", "3"], 2, "--seeds is for learners whose gains are"),
        (
            ["run", "wikitext-gpt2", "--method", "exact"],
            2,
            "--method is for learners whose gains are measured here; wikitext-gpt2 is made from",
        ),
        (["run", "wikitext-gpt2", "--seeds", "3"], 2, "--seeds is for learners whose gains are"),
        (["run", "wikitext-gpt2"], 1, "Try `--corpus FOLDER`"),
        (["run", "wikitext-gpt2", "--corpus", "EMPTY"], 1, "information_gain.npz"),
        (["finetune", "-l", "wikitext-gpt2"], 1, "Give --objective and --pool"),
        (["score", "FILE", "-l", "wikitext-gpt2"], 1, "--tokenizer tokenizer.json"),
        (["gains", "wikitext-gpt2", "--out", "OUT"], 2, "Try `learners run wikitext-gpt2`"),
        (["run", "mini", "--country", "FRA"], 2, "--country is for --energy"),
        (["run", "books-mini", "--objective", "FILE"], 2, "leave out --objective, --pool"),
        (["run", "--objective", "FILE"], 2, "or both --objective and --pool"),
        (["gains", "mini", "--out", "OUT"], 2, "mini is a base model. Try `learners run mini`."),
        (["finetune", "-l", "TINY", "--pool", "FILE"], 2, "--objective and --pool go together"),
        (["finetune", "-l", "TINY", "--threshold", "high"], 1, "no threshold named 'high'"),
        (["score", "FILE", "-l", "TINY", "--keep", "0.5"], 2, "--keep needs --out FILE"),
        (["score", "FILE", "-l", "TINY", "--keep", "0", "--out", "OUT"], 2, "--keep"),
        (["score", "absent.txt", "-l", "TINY"], 2, "'absent.txt' does not exist"),
        (["explain", "", "-l", "TINY"], 2, "no text to explain"),
        (["fit", "EMPTY", "--out", "OUT"], 1, "holds no finished labels. Try `learners gains"),
        (["run", "books-mini", "--corpus", "EMPTY"], 1, "no text for domain 'books'"),
        (["run", "books-mini", "--corpus", "absent"], 1, "the corpus folder absent does not exist"),
        (["run", "books-mini"], 1, "Try `--corpus FOLDER`"),
        (["run", "mini", "--device", "tpu9"], 1, "device 'tpu9' cannot be used"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_is_said_in_one_message(
    arguments: list[str],
    code: int,
    message: str,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "text.txt").write_text("some text\n")
    (tmp_path / "empty").mkdir()
    places: dict[str, object] = {
        "FILE": tmp_path / "text.txt",
        "OUT": tmp_path / "out",
        "EMPTY": tmp_path / "empty",
        "TINY": tiny.learner,
    }
    result = learners(*(places.get(argument, argument) for argument in arguments))
    assert result.code == code
    assert message in " ".join(result.err.split())
    assert "Traceback" not in result.err
    assert result.out == ""


def test_help_of_every_command_fits_the_names_in_it() -> None:
    text = learners("--help").out
    for name in ("list", "show", "run", "gains", "fit", "score", "explain", "finetune", "demo"):
        assert f"\n  {name} " in text
        shown = learners(name, "--help")
        assert shown.code == 0
        assert "--json" in shown.out
        assert "--quiet" in shown.out
    assert learners("--version").out.startswith("learners, version ")


# run, gains, fit


def test_run_on_own_text_makes_a_learner_that_tells_it_apart(tiny: Tiny) -> None:
    assert tiny.made.json["folder"] == str(tiny.learner)
    assert tiny.made.json["held_out"]["linear"]["spearman"] > 0.3
    assert tiny.made.json["command"].startswith("learners run --objective ")
    assert tiny.made.err == ""  # --json: no notes, no progress
    assert load_learner(tiny.learner).config.name == "my-ships"  # from "My Ships"
    assert tiny.made.json["fine_tuning"] is None


def test_run_goes_on_in_its_folder_and_says_where_the_learner_is(tiny: Tiny) -> None:
    before = (tiny.learner / "model.safetensors").read_bytes()
    result = learners("run", *tiny.options, "--out", tiny.learner)
    assert result.code == 0
    assert f'load_learner("{tiny.learner}")' in result.out
    assert (tiny.learner / "model.safetensors").read_bytes() == before


def test_run_with_other_options_in_that_folder_is_refused(tiny: Tiny) -> None:
    result = learners("run", *tiny.options, "--method", "exact", "--out", tiny.learner)
    assert result.code == 1
    assert "begun with other settings: labels.method was swapped and is now exact." in result.err


def test_gains_then_fit_is_run(tiny: Tiny, tmp_path: Path) -> None:
    labels, out = tmp_path / "labels", tmp_path / "My Ships"
    measured = learners("gains", *tiny.options, "--out", labels, "--json")
    assert measured.code == 0, measured.err
    assert measured.json["count"] == 200
    assert measured.json["exact_count"] == 8
    assert len(read_labels(labels).gains) == 200

    fitted = learners("fit", labels, "--out", out)
    assert fitted.code == 0, fitted.err
    assert "linear: Spearman " in fitted.out
    for name in ("model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (tiny.learner / name).read_bytes()


@pytest.mark.slow
def test_two_processes_of_accelerate_make_what_one_makes(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    out = tmp_path / tiny.learner.name
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += ["--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    command += ["-m", "secondary_learners", "run", *map(str, tiny.options), "--out", str(out)]
    threads = str(torch.get_num_threads())
    done = subprocess.run(
        [*command, "--json"],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["held_out"] == tiny.made.json["held_out"]  # printed once
    parts = [path.relative_to(out) for path in (out / "work" / "labels").glob("part-*.parquet")]
    assert parts
    for path in (*parts, Path("work/labels/labels.json"), Path("model.safetensors")):
        assert (out / path).read_bytes() == (tiny.learner / path).read_bytes(), path


def test_gains_in_another_precision(tiny: Tiny, tmp_path: Path) -> None:
    options = ("gains", *tiny.options, "--out", tmp_path / "labels", "--precision")
    assert learners(*options, "bfloat16", "--json").json["precision"] == "bfloat16"
    result = learners(*options[:-2], tmp_path / "other", "--precision", "tf32")
    assert result.code == 1
    assert "'cpu' does not compute in tf32" in result.err


def test_each_process_has_the_gpu_of_its_number(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "77")  # more GPUs than there are
    options = [option for option in tiny.options if option not in ("--device", "cpu")]
    result = learners("gains", *options, "--device", "cuda", "--out", tmp_path / "labels")
    assert result.code == 1
    assert "the device 'cuda:77' cannot be used" in result.err


def test_gains_says_how_far_the_labels_agree(tiny: Tiny, tmp_path: Path) -> None:
    result = learners("gains", *tiny.options, "--out", tmp_path / "labels", "--quiet")
    assert result.out.startswith(f"200 labels in {tmp_path / 'labels'}: mean gain ")
    assert "Spearman with 8 exact labels 0." in result.out or "labels 1." in result.out
    assert result.err == ""


def test_fit_chooses_its_architecture(tiny: Tiny, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    learners("gains", *tiny.options, "--out", labels, "--quiet")
    choice = ("--architecture", "linear", "--bigrams", 64, "--counts", "frequency")
    assert learners("fit", labels, *choice, "--out", tmp_path / "b").code == 0
    sizes = read_learner(tmp_path / "b").config.sizes
    assert (sizes["bigrams"], sizes["counts"]) == (64, "frequency")
    wrong = learners("fit", labels, "--bigrams", 100, "--out", tmp_path / "c")
    assert wrong.code == 1
    assert "power of two" in wrong.err


def test_an_objective_of_too_little_text(tiny: Tiny, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("The sea.\n")
    options = ("--objective", short, "--pool", tiny.pool, "--base", tiny.base)
    result = learners("run", *options, "--out", tmp_path / "out")
    assert result.code == 1
    assert "too few documents of 'objective'" in result.err


# score


def write_texts(folder: Path, kind: str) -> Path:
    path = folder / f"texts.{kind}"
    rows = [{"id": n, "text": text} for n, text in enumerate(TEXTS)]
    if kind == "txt":
        path.write_text("\n".join(TEXTS) + "\n\n")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.mkdir()
        for n, text in enumerate(TEXTS):
            (path / f"{n}.txt").write_text(text)
    return path


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet", "folder"])
def test_score_reads_every_kind_of_text(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    path = write_texts(tmp_path, kind)
    rows = learners("score", path, "-l", tiny.learner, "--json").json
    assert [row["text"] for row in rows] == TEXTS
    assert min(rows[n]["score"] for n in SHIPS) > max(rows[n]["score"] for n in (1, 3))
    if kind in ("jsonl", "parquet"):
        assert [row["id"] for row in rows] == [0, 1, 2, 3, 4]
    given = ("--tokenizer", tiny.base if kind == "txt" else tiny.base / "tokenizer.json")
    assert learners("score", path, "-l", tiny.learner, "--json", *given).json == rows
    shown = learners("score", path, "-l", tiny.learner).out.splitlines()
    assert shown == [f"{row['score']:+.3f}\t{row['text']}" for row in rows]


def read_back(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return rows
    lines = path.read_text().splitlines()
    return [json.loads(line) if path.suffix == ".jsonl" else {"text": line} for line in lines]


@pytest.mark.parametrize("source", ["txt", "jsonl", "parquet", "folder"])
@pytest.mark.parametrize("target", ["txt", "jsonl", "parquet"])
def test_keep_writes_the_best_in_their_order(
    source: str, target: str, tiny: Tiny, tmp_path: Path
) -> None:
    path, out = write_texts(tmp_path, source), tmp_path / f"best.{target}"
    command = ("score", path, "-l", tiny.learner, "--keep", 0.6, "--out", out)
    result = learners(*command, "--json")
    assert result.json == {"out": str(out), "texts": 5, "kept": 3}
    rows = read_back(out)
    assert [row["text"] for row in rows] == [TEXTS[n] for n in SHIPS]
    if target != "txt":
        assert all(isinstance(row["score"], float) for row in rows)
        if source in ("jsonl", "parquet"):
            assert [row["id"] for row in rows] == SHIPS


def test_order_writes_the_best_rows_first(tiny: Tiny, tmp_path: Path) -> None:
    path, order = write_texts(tmp_path, "jsonl"), tmp_path / "order.txt"
    command = ("score", path, "-l", tiny.learner, "--order", order)
    rows = learners(*command, "--json").json
    scores = [row["score"] for row in rows]
    places = list(ScoreSampler.from_order(order))
    assert places == sorted(range(5), key=lambda place: -scores[place])
    result = learners("score", path, "-l", tiny.learner, "--order", path)
    assert result.code == 1
    assert f"--order {path} is one of the inputs" in result.err


def test_score_to_a_file_keeps_every_row(tiny: Tiny, tmp_path: Path) -> None:
    path, out = write_texts(tmp_path, "jsonl"), tmp_path / "scored.jsonl"
    result = learners("score", path, "-l", tiny.learner, "--out", out)
    assert result.out == f"5 of 5 texts written to {out}\n"
    assert [row["text"] for row in read_back(out)] == TEXTS


def test_rows_that_differ_keep_all_their_columns(tiny: Tiny, tmp_path: Path) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    rows = [{"text": "the sea"}, {"text": "", "color": "red"}, {"text": "tax", "size": 3}]
    path.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)))
    assert learners("score", path, "-l", tiny.learner, "--out", out).code == 0
    found = read_back(out)
    assert [row["color"] for row in found] == [None, "red", None]
    assert [row["size"] for row in found] == [None, None, 3]
    assert [row["text"] for row in found] == ["the sea", "", "tax"]


def test_the_column_can_be_named(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"body": "the sea"}))
    (row,) = learners("score", path, "-l", tiny.learner, "--column", "body", "--json").json
    assert row["body"] == "the sea"
    wrong = learners("score", path, "-l", tiny.learner)
    assert wrong.code == 1
    assert "has no column 'text'; it has body. Try `--column NAME`." in wrong.err


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.txt", b"", "holds no text"),
        ("x.txt", b"caf\xe9", "is not UTF-8 text"),
        ("x.jsonl", b"", "holds no text"),
        ("x.jsonl", b'{"text": "a"}\n{"text": ', "line 2 is not JSON"),
        ("x.jsonl", b"[1]\n", "line 1 is [1], and not an object"),
        ("x.jsonl", b'{"text": "caf\xe9"}', "is not UTF-8 text"),
        ("x.parquet", b"PAR1 and no more", "is not a whole Parquet file"),
        ("x.parquet", b"", "is not a whole Parquet file"),
    ],
)
def test_a_bad_file_is_named(
    name: str, data: bytes, message: str, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    result = learners("score", tmp_path / name, "-l", tiny.learner)
    assert result.code == 1
    assert name in result.err
    assert message in result.err


def test_long_and_short_texts_are_scored_as_alone(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    texts = ["sea", "ship and tax " * 400, "", "form", "the harbour " * 30]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    together = [row["score"] for row in learners("score", path, "-l", tiny.learner, "--json").json]
    for text, score in zip(texts, together, strict=True):
        path.write_text(json.dumps({"text": text}))
        (alone,) = learners("score", path, "-l", tiny.learner, "--json").json
        assert alone["score"] == pytest.approx(score, abs=1e-5)


# explain


def test_the_shares_add_up_to_the_score(tiny: Tiny) -> None:
    value = learners("explain", TEXTS[0], "-l", tiny.learner, "--json").json
    constant = float(load_learner(tiny.learner).score([[0]], [[False]])[0])
    total = sum(token["share"] for token in value["tokens"])
    assert total == pytest.approx(value["score"] - constant, abs=1e-4)
    assert "".join(token["token"] for token in value["tokens"]) == TEXTS[0]


def test_explain_agrees_with_score_and_reads_files(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXTS[2] + "\n")
    value = learners("explain", path, "-l", tiny.learner, "--json").json
    assert value == learners("explain", TEXTS[2], "-l", tiny.learner, "--json").json
    (row,) = learners("score", path, "-l", tiny.learner, "--json").json
    assert row["score"] == pytest.approx(value["score"], abs=1e-5)
    path.write_bytes(b"caf\xe9")
    assert "is not UTF-8 text" in learners("explain", path, "-l", tiny.learner).err


@pytest.mark.parametrize("text", ["é" * 200, "sea " * 2000], ids=["bytes", "characters"])
def test_explain_takes_text_too_long_for_a_file_name(text: str, tiny: Tiny) -> None:
    assert learners("explain", text, "-l", tiny.learner).code == 0


def test_explain_colors_by_share(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = learners("explain", "sea tax", "-l", tiny.learner).out
    assert plain.startswith("sea tax\n\nscore ")  # no codes where no terminal is
    monkeypatch.setattr(click.utils, "should_strip_ansi", lambda *_: False)
    assert "\x1b[48;2;" in learners("explain", "sea tax", "-l", tiny.learner).out


# finetune


def test_finetune_compares_every_arm_and_draws_it(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = ("--corpus", tiny.objective.parent)
    quick = ("--seeds", 1, "--updates", 2, "--batch-size", 4)
    command = ("finetune", "-l", tiny.learner, *text, *quick)
    result = learners(*command, "--device", "cpu", "--out", out)
    assert result.code == 0, result.err
    for arm in ("standard", "constant:1", "random constant:1", "objective only"):
        assert f"\n{arm} " in result.out
    assert f"plot: {out / 'comparison.png'}" in result.err
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")

    saved = tmp_path / "tuned"
    again = learners(*command, "--device", "cpu", "--out", out, "--json", "--save", saved)
    assert again.err == ""
    value = again.json
    assert value["folder"] == str(out)
    del value["folder"]
    assert value == json.loads((out / "comparison.json").read_text())
    assert len(value["runs"]) == 4
    base, tuned = (load_base(folder)[0].state_dict() for folder in (tiny.base, saved))
    assert base.keys() == tuned.keys()
    assert not torch.equal(base["transformer.wte.weight"], tuned["transformer.wte.weight"])
    assert learners(*command, "--save", saved).code == 2  # nothing is overwritten


def test_labels_of_parts_and_selectors_from_the_command_line(tiny: Tiny, tmp_path: Path) -> None:
    own = ("--objective", tiny.objective, "--pool", tiny.pool, "--base", tiny.base)
    few = ("--contexts", 120, "--context-length", 16, "--exact", 0, "--device", "cpu", "--json")
    parts = ("--horizon", 3, "--horizon-learning-rate", 1e-3, "--combine", "step=1,contrast=2")
    made = learners("run", *own, *few, *parts, "--out", tmp_path / "parts", "--license", "mit")
    assert made.code == 0, made.err
    assert made.json["labels"]["combine"] == {"contrast": 2.0, "step": 1.0}
    assert made.json["labels"]["horizon"] == 3 and len(made.json["labels"]["against"]) == 1
    other = learners("run", *own, *few, "--method", "classifier", "--out", tmp_path / "other")
    assert other.code == 0, other.err
    learner = load_learner(tmp_path / "other")
    assert learner.config.score.unit == "log odds"
    wrong = learners("run", *own, *few, "--combine", "step=much", "--out", tmp_path / "wrong")
    assert wrong.code == 2 and "'step=much' is not PART=WEIGHT" in wrong.err + wrong.out


def test_finetune_against_other_ways_to_select(tiny: Tiny, tmp_path: Path) -> None:
    quick = ("--seeds", 1, "--updates", 2, "--batch-size", 4, "--device", "cpu", "--json")
    command = ("finetune", "-l", tiny.learner, "--corpus", tiny.objective.parent, *quick)
    chosen = ("--against", "classifier,length", "--against", "everything")
    subset = ("--trainable", "last-layers:1", "--precision", "bfloat16")
    result = learners(*command, *chosen, *subset, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    kinds = {arm["name"]: arm["kind"] for arm in result.json["arms"]}
    assert kinds["classifier"] == kinds["length"] == "selector"
    assert kinds["everything drawn"] == "everything"
    assert result.json["settings"]["trainable"] == "last-layers:1"
    wrong = learners(*command, "--against", "clasifier", "--out", tmp_path / "other")
    assert wrong.code == 1 and "'clasifier'" in wrong.err + wrong.out
    assert not (tmp_path / "other").exists()


def test_finetune_on_own_text_uses_the_learner_s_base_and_length(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []
    compare = compare_module.compare

    def watched(model: Any, pool: Any, *rest: Any, **options: Any) -> Any:
        lengths.append((pool.length, model.config.n_embd))
        return compare(model, pool, *rest, **options)

    monkeypatch.setattr("secondary_learners.recipes.gain_learner.comparing.compare", watched)
    own = ("--objective", tiny.objective, "--pool", tiny.pool)
    budget = ("--seeds", 1, "--updates", 1, "--batch-size", 4, "--threshold", "quantile:0.5")
    command = ("finetune", "-l", tiny.learner, *own, *budget, "--out", tmp_path, "--json")
    result = learners(*command)
    assert result.code == 0, result.err
    assert lengths == [(16, 32)]


def test_without_matplotlib_the_figures_are_there_all_the_same(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise MissingExtraError("matplotlib", "plots")

    monkeypatch.setattr(comparison_figure, "plot_comparison", missing)
    command = ("finetune", "-l", tiny.learner, "--corpus", tiny.objective.parent)
    result = learners(*command, "--seeds", 1, "--updates", 1, "--batch-size", 4, "--out", tmp_path)
    assert result.code == 0
    assert "no plot: this needs matplotlib, which is not installed." in result.err
    assert (tmp_path / "comparison.json").is_file()


# what happens to a command from outside


def test_an_interrupt_is_130_and_says_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**filters: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(catalogue_commands, "list_learners", interrupted)
    result = learners("list")
    assert result.code == 130
    assert "error: interrupted. What was finished is kept" in result.err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_no_file_and_says_what_to_do(
    number: int, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    path, out = write_texts(tmp_path, "txt"), tmp_path / "out" / "best.txt"
    monkeypatch.setattr(os, "fsync", full)
    result = learners("score", path, "-l", tiny.learner, "--keep", 0.5, "--out", out)
    assert result.code == 1
    expected = f"error: {os.strerror(number)}. Free some space and run the same command again.\n"
    assert result.err == expected
    assert list(out.parent.iterdir()) == []


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from secondary_learners.cli import main
main()
"""


def test_a_write_that_is_cut_short_leaves_no_file(tiny: Tiny, tmp_path: Path) -> None:
    """A real failing write, in the middle of a file that grows too large."""
    path, out = tmp_path / "texts.txt", tmp_path / "out" / "scored.jsonl"
    path.write_text("ship at sea\n" * 500)
    command = [sys.executable, "-c", LIMITED, "score", path, "-l", tiny.learner, "--out", out]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert f"error: {os.strerror(errno.EFBIG)}" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(out.parent.iterdir()) == []


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -c 'from secondary_learners.cli import main; main()' list"
    process = subprocess.Popen(
        ["bash", "-c", f"{command} | true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, err = process.communicate()
    assert b"Traceback" not in err


def test_an_interrupted_run_goes_on(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT in the middle of labelling: exit code 130, and the same command ends as if never."""
    out = tmp_path / "My Ships"
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background
        "from secondary_learners.gains import store\n"
        "from secondary_learners.gains.methods import swapped\n"
        "write, swapped.PART = store._write_part, 64\n"
        "def write_then_interrupt(*arguments):\n"
        "    write(*arguments)\n"
        f"    os.kill(os.getpid(), {int(signal.SIGINT)})\n"
        "store._write_part = write_then_interrupt\n"
        "from secondary_learners.cli import main\n"
        "main()\n"
    )
    arguments = ["run", *map(str, tiny.options), "--out", str(out)]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("HF_")},
    )
    assert result.returncode == 130, result.stderr
    assert "the same command goes on from there" in result.stderr
    assert "Loading weights" not in result.stderr
    (part,) = (out / "work" / "labels").glob("part-*")
    before = part.stat().st_mtime_ns
    assert not (out / "config.json").exists()

    monkeypatch.setattr(method_named("swapped"), "PART", 64)
    resumed = learners(*arguments, "--json")
    assert resumed.code == 0, resumed.err
    assert part.stat().st_mtime_ns == before
    figures, expected = resumed.json["held_out"]["linear"], tiny.made.json["held_out"]["linear"]
    assert figures.keys() == expected.keys()
    for name, value in expected.items():  # some are lists and some mappings
        assert figures[name] == pytest.approx(value, abs=1e-3)
