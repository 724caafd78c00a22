from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from secondary_learners import load_base, load_delta
from secondary_learners.content import content
from secondary_learners.deltas.artifact import read_delta
from secondary_learners.errors import (
    ArtifactError,
    DigestMismatchError,
    LockError,
    UnknownNameError,
)
from secondary_learners.registry.load_delta import delta_files, find_delta
from secondary_learners.registry.locking import lock_references
from secondary_learners.tasks.classifier import classifier

IDS = torch.tensor([[100, 200, 300, 5]])


def test_an_unknown_name_or_folder() -> None:
    with pytest.raises(UnknownNameError, match="learners list"):
        load_delta("no-such-delta")
    with pytest.raises(UnknownNameError):
        delta_files("books-mini")  # a learner
    with pytest.raises(ArtifactError, match=r"nowhere has no config\.json"):
        load_delta(Path("nowhere"))
    with pytest.raises(ArtifactError, match="'kind'"):
        load_delta(content("learners") / "books-mini")


def test_a_changed_file_is_refused_by_name(
    tmp_path: Path,
) -> None:
    shutil.copytree(content("learners") / "sst2-mask-mini", tmp_path / "sst2-mask-mini")
    changed = tmp_path / "sst2-mask-mini" / "model.safetensors"
    data = bytearray(changed.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    shipped = delta_files("sst2-mask-mini")
    with pytest.raises(DigestMismatchError, match=r"model\.safetensors"):
        read_delta(changed.parent, shipped.digests)


def test_locked_deltas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECONDARY_LEARNERS_LOCK", str(tmp_path / "learners.lock"))
    assert set(lock_references(["sst2-mask-mini"])) == {"sst2-mask-mini", "mini"}
    assert find_delta("sst2-mask-mini", locked=True).config.kind == "mask"
    with pytest.raises(LockError, match="sst2-layers-mini"):
        find_delta("sst2-layers-mini", locked=True)


@pytest.mark.parametrize("name", ["sst2-layers-mini", "sst2-mask-mini"])
def test_what_ships_goes_on_mini_and_comes_off(name: str) -> None:
    base, _ = load_base("mini")
    model = classifier(base, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    applied = load_delta(name, model)
    assert applied.model is model
    with torch.no_grad():
        expected = model(IDS).logits
        assert torch.equal(load_delta(name).model(IDS).logits, expected)
    applied.remove()
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    config = find_delta(name).config
    assert config.name == name
    assert config.kind == name.split("-")[1]
