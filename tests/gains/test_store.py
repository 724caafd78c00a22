from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch

from gains_helpers import contexts_of
from secondary_learners.errors import DivergedError, LabelStoreError, UnknownNameError
from secondary_learners.gains.fingerprints import weights_fingerprint
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.methods import method_named
from secondary_learners.gains.store import Labels, LabelSettings, label_to_store, read_labels
from secondary_learners.learners.statistics import spearman
from secondary_learners.text.sequences import Examples
from tiny_models import BigramModel

CANDIDATES = contexts_of(70, seed=1, domains=2)
OBJECTIVE = contexts_of(10, seed=2)
SETTINGS = LabelSettings(method="exact", exact=8)
KILLED = """
import sys, time
from pathlib import Path
from gains_helpers import contexts_of
from tiny_models import BigramModel
from secondary_learners.gains import store
from secondary_learners.gains.methods import method_named

folder = Path(sys.argv[1])
method_named("exact").PART = 16

class Slow(BigramModel):
    def forward(self, input_ids, use_cache=False):
        if (folder / "part-00001.parquet").exists():
            print("two parts", flush=True)
            time.sleep(60)
        return super().forward(input_ids, use_cache)

settings = store.LabelSettings(method="exact", exact=8)
candidates, objective = contexts_of(70, seed=1, domains=2), contexts_of(10, seed=2)
store.label_to_store(Slow(), candidates, objective, folder, settings, progress=False)
"""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("exact", "per-example", "swapped"):
        monkeypatch.setattr(method_named(method), "PART", 16)


class CountingModel(BigramModel):
    """Counts the backward passes of single contexts: one for each exact label."""

    labelled = 0

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> object:
        self.labelled += torch.is_grad_enabled() and len(input_ids) == 1
        return super().forward(input_ids, use_cache)


def label(folder: Path, model: BigramModel | None = None, **changes: object) -> Labels:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    return label_to_store(
        model or BigramModel(), CANDIDATES, OBJECTIVE, folder, settings, progress=False
    )


def same_contexts(found: Examples, expected: Examples) -> bool:
    return found.digest == expected.digest and found.domains == expected.domains


@pytest.mark.slow
def test_a_killed_labelling_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    finished = sorted(folder.glob("part-*.parquet"))
    assert [path.name for path in finished] == ["part-00000.parquet", "part-00001.parquet"]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished}
    assert len(read_labels(folder).gains) == 32  # what there is can be read
    model = CountingModel()
    resumed = label(folder, model)

    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in finished} == before
    assert model.labelled == 70 - 32
    whole = label(tmp_path / "whole")
    np.testing.assert_array_equal(resumed.gains, whole.gains)
    assert resumed.facts == whole.facts
    assert same_contexts(resumed.contexts, CANDIDATES)


@pytest.mark.slow
def test_what_was_measured_of_a_part_is_kept_when_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    script = KILLED.replace("PART = 16", "PART = 70\nstore._SECONDS = 0.0").replace(
        'part-00001.parquet").exists()', 'begun-00000.parquet").exists()'
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(folder.glob("part-*"))
    done = pyarrow.parquet.read_table(folder / "begun-00000.parquet").num_rows
    assert 0 < done < 70
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method_named("exact"), "PART", 70)
        model = CountingModel()
        resumed = label(folder, model)
    assert model.labelled == 70 - done
    np.testing.assert_array_equal(resumed.gains, label(tmp_path / "whole").gains)
    assert not list(folder.glob("begun-*"))


@pytest.mark.parametrize("method", ["exact", "per-example", "swapped"])
def test_stored_labels_are_those_of_information_gain(method: str, tmp_path: Path) -> None:
    labels = label(tmp_path, method=method)
    expected = information_gain(BigramModel(), CANDIDATES, OBJECTIVE, method=method)
    np.testing.assert_allclose(labels.gains, expected, rtol=1e-4, atol=1e-9)
    assert same_contexts(labels.contexts, CANDIDATES)


def test_a_finished_store_is_not_labelled_again(tmp_path: Path) -> None:
    first = label(tmp_path)
    model = CountingModel()
    again = label(tmp_path, model)
    assert model.labelled == 0
    np.testing.assert_array_equal(first.gains, again.gains)


def test_the_facts_say_how_the_labels_were_made(tmp_path: Path) -> None:
    model = BigramModel()
    labels = label(tmp_path, model, method="swapped", exact=30, seed=4, learning_rate=1e-4)
    facts = json.loads((tmp_path / "labels.json").read_text())
    assert facts == labels.facts
    assert facts["method"] == "swapped"
    assert facts["optimizer"] == "adamw"
    assert facts["learning_rate"] == 1e-4
    assert facts["seed"] == 4
    assert (facts["count"], facts["objective_contexts"], facts["exact_count"]) == (70, 10, 30)
    assert facts["model_fingerprint"] == weights_fingerprint(model)
    assert facts["contexts"] == CANDIDATES.digest

    chosen = np.sort(np.random.default_rng(4).permutation(70)[:30])
    exact = information_gain(
        model, CANDIDATES.select(chosen), OBJECTIVE, method="exact", learning_rate=1e-4
    )
    expected = spearman(labels.gains[chosen], exact)
    assert facts["spearman_with_exact"] == pytest.approx(expected, abs=1e-6)


def test_a_store_from_before_there_were_precisions_is_read_and_gone_on_with(tmp_path: Path) -> None:
    whole = label(tmp_path)
    facts = {key: value for key, value in whole.facts.items() if key != "precision"}
    (tmp_path / "labels.json").write_text(json.dumps(facts))
    assert read_labels(tmp_path).facts == whole.facts
    begun = {k: v for k, v in facts.items() if k not in ("spearman_with_exact", "exact_count")}
    (tmp_path / "labels.json").write_text(json.dumps(begun))
    (tmp_path / "part-00003.parquet").unlink()
    model = CountingModel()
    again = label(tmp_path, model)
    assert model.labelled == 16
    np.testing.assert_array_equal(again.gains, whole.gains)
    with pytest.raises(LabelStoreError, match="labels with precision 'float32', and this run has"):
        label(tmp_path, precision="bfloat16")


def test_exact_labels_in_another_precision_are_checked_too(tmp_path: Path) -> None:
    labels = label(tmp_path, precision="bfloat16", exact=30)
    assert labels.facts["exact_count"] == 30
    chosen = np.sort(np.random.default_rng(0).permutation(70)[:30])
    exact = information_gain(BigramModel(), CANDIDATES, OBJECTIVE, method="exact")[chosen]
    expected = spearman(labels.gains[chosen], exact)
    assert labels.facts["spearman_with_exact"] == pytest.approx(expected, abs=1e-6)


def test_too_small_an_exact_subsample_leaves_the_agreement_unmeasured(tmp_path: Path) -> None:
    labels = label(tmp_path, method="swapped", exact=0)
    assert labels.facts["spearman_with_exact"] is None
    assert labels.facts["exact_count"] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "swapped"),
        ("optimizer", "sgd"),
        ("learning_rate", 1e-3),
        ("unit", "perplexity"),
        ("precision", "bfloat16"),
    ],
)
def test_a_folder_with_other_settings_is_refused_with_the_difference(
    name: str, value: object, tmp_path: Path
) -> None:
    label(tmp_path)
    with pytest.raises(LabelStoreError, match=rf"labels with {name} .*{value!r}.*another --out"):
        label(tmp_path, **{name: value})


def test_a_folder_of_another_model_objective_or_text_is_refused(tmp_path: Path) -> None:
    label(tmp_path)
    with pytest.raises(LabelStoreError, match="labels with model_fingerprint"):
        label(tmp_path, BigramModel(seed=1))
    other = contexts_of(10, seed=3)
    with pytest.raises(LabelStoreError, match="labels with objective "):
        label_to_store(BigramModel(), CANDIDATES, other, tmp_path, SETTINGS, progress=False)
    with pytest.raises(LabelStoreError, match="labels with contexts "):
        label_to_store(BigramModel(), other, OBJECTIVE, tmp_path, SETTINGS, progress=False)


@pytest.mark.parametrize("name", ["method", "optimizer", "unit", "precision"])
def test_unknown_settings_are_refused_before_a_folder_is_begun(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=f"no {name} named 'swoped'"):
        label(tmp_path / "labels", **{name: "swoped"})
    assert not (tmp_path / "labels").exists()


def test_a_truncated_part_is_named(tmp_path: Path) -> None:
    label(tmp_path)
    part = tmp_path / "part-00002.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(LabelStoreError, match=r"part-00002\.parquet is damaged"):
        read_labels(tmp_path)
    with pytest.raises(LabelStoreError, match=r"part-00002\.parquet is damaged"):
        label(tmp_path)
    part.unlink()  # what the message says
    assert len(label(tmp_path).gains) == 70


@pytest.mark.parametrize("content", ['{"metho', "[1]", "{}"])
def test_a_damaged_description_is_named(content: str, tmp_path: Path) -> None:
    label(tmp_path)
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(LabelStoreError, match=r"labels\.json"):
        read_labels(tmp_path)


def test_a_folder_without_labels_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(LabelStoreError, match=r"holds no labels\.json\. Try `learners gains"):
        read_labels(tmp_path)
    (tmp_path / "labels.json").write_text('{"domains": []}')
    with pytest.raises(LabelStoreError, match="no labels yet"):
        read_labels(tmp_path)


def test_parts_of_another_size_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label(tmp_path)
    monkeypatch.setattr(method_named("exact"), "PART", 64)
    (tmp_path / "part-00004.parquet").unlink()
    with pytest.raises(LabelStoreError, match="holds 64 labels, and should hold 70"):
        label(tmp_path)


def test_a_loss_that_is_not_finite_stores_nothing_of_its_part(tmp_path: Path) -> None:
    model = BigramModel()
    with torch.no_grad():
        model.embedding[CANDIDATES.input_ids[40]] = torch.inf  # in the third part
    with pytest.raises(DivergedError):
        label(tmp_path, model)
    assert not (tmp_path / "part-00002.parquet").exists()


def test_parts_are_plain_parquet(tmp_path: Path) -> None:
    labels = label(tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / "part-00000.parquet")
    assert table.column_names == ["input_ids", "document", "domain", "gain"]
    assert table["input_ids"].to_pylist() == CANDIDATES.input_ids[:16].tolist()
    assert table["gain"].to_pylist() == labels.gains[:16].tolist()
