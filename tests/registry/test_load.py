"""Loading by name and by folder, from a catalogue made in the test."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from registry_helpers import Machine, Team, entry, save
from secondary_learners.errors import (
    ArtifactError,
    DigestMismatchError,
    IncompatibleError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.files import sha256_file
from secondary_learners.learners.artifact import Learner, tokenizer_fingerprint
from secondary_learners.learners.config import Reference
from secondary_learners.registry import index, registries
from secondary_learners.registry.index import Entry, entry_toml
from secondary_learners.registry.load import load_base, load_learner, load_tokenizer
from secondary_learners.registry.lock import read_lock
from secondary_learners.registry.locking import lock_references
from secondary_learners.registry.remote import Remote, snapshot_folder
from tiny_models import tiny_gpt2, word_tokenizer


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """registry/ and learners/ with the learner "small"; the working folder is elsewhere."""
    (tmp_path / "registry").mkdir()
    digests = save(tmp_path / "learners" / "small", "small")
    register(
        tmp_path,
        dataclasses.replace(entry("small", "learner", digests), aliases={"little": "clearer"}),
    )
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for module in (index, registries):
        monkeypatch.setattr(module, "content", lambda name: tmp_path / name)
    return tmp_path


def register(catalogue: Path, new: Entry) -> None:
    (catalogue / "registry" / f"{new.name}.toml").write_text(entry_toml(new))


def test_a_name_an_alias_and_a_folder_give_the_same_learner(catalogue: Path) -> None:
    folder = catalogue / "learners" / "small"
    learner = load_learner("small")
    assert learner.score([[7, 7]]).item() == pytest.approx(7.0)
    with pytest.warns(FutureWarning, match="'little' is now called 'small'"):
        assert load_learner("little").config == learner.config
    for ref in (folder, str(folder), "../learners/small"):
        assert load_learner(ref).config == learner.config
    assert load_learner("small", device="meta").device.type == "meta"


def test_a_wrong_byte_is_refused_under_a_name(catalogue: Path) -> None:
    path = catalogue / "learners" / "small" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestMismatchError, match=r"model\.safetensors"):
        load_learner("small")


def test_references_that_lead_nowhere_say_where_to_look(catalogue: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean small.*learners list"):
        load_learner("smal")
    with pytest.raises(SecondaryLearnersError, match=r"ships as files and has no revisions"):
        load_learner("small@main")
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        load_learner(catalogue / "registry")
    with pytest.raises(ArtifactError, match=r"no config\.json"):
        load_learner(str(catalogue / "nothing"))


def test_a_folder_of_the_working_directory_hides_no_name(catalogue: Path) -> None:
    save(catalogue / "work" / "small", "another")
    assert load_learner("small").config.name == "small"
    for ref in ("./small", Path("small")):
        assert load_learner(ref).config.name == "another"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random GPT-2 with a vocabulary of 30 words."""
    folder = tmp_path_factory.mktemp("gpt2")
    tiny_gpt2(30, n_embd=8, n_layer=1).to(torch.bfloat16).save_pretrained(folder)
    word_tokenizer([f"w{n}" for n in range(30)], "w0").save_pretrained(folder)
    return folder


def test_a_base_model_from_a_folder(catalogue: Path, gpt2: Path) -> None:
    for ref in (gpt2, str(gpt2)):
        model, tokenizer = load_base(ref)
        assert not model.training
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert tokenizer.get_vocab()["w7"] == 7


def bundle(catalogue: Path, gpt2: Path) -> Path:
    folder = catalogue / "learners" / "mini"
    folder.mkdir()
    for path in gpt2.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    digests = {path.name: sha256_file(path) for path in folder.iterdir()}
    register(catalogue, entry("mini", "base-model", digests))
    return folder


def test_a_bundled_base_model_is_verified_first(catalogue: Path, gpt2: Path) -> None:
    folder = bundle(catalogue, gpt2)
    (folder / ".hidden").write_text("an editor's")
    model, _ = load_base("mini")
    assert model.config.vocab_size == 30
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(DigestMismatchError, match=r"adapter_config\.json"):
        load_base("mini")
    (folder / "adapter_config.json").unlink()
    config = folder / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(DigestMismatchError, match=r"config\.json"):
        load_base("mini")
    config.unlink()
    with pytest.raises(DigestMismatchError, match=r"config\.json.*missing"):
        load_base("mini")


def test_a_base_model_on_a_hub_is_fetched_verified_and_locked(
    catalogue: Path,
    gpt2: Path,
    machine: Machine,
    online: Team,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = online.publish("team/base", gpt2)
    digests = {path.name: sha256_file(path) for path in gpt2.iterdir()}
    far = dataclasses.replace(
        entry("far-base", "base-model", digests), location="team/base", revision=commit
    )
    register(catalogue, far)
    model, tokenizer = load_base("far-base")
    assert (model.config.vocab_size, tokenizer.get_vocab()["w7"]) == (30, 7)
    assert model.config._commit_hash == commit
    lock_references(["far-base", f"team/base@{commit}"])
    assert {pin.kind for pin in read_lock().values()} == {"base-model"}
    monkeypatch.setenv("SECONDARY_LEARNERS_LOCKED", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for ref in ("far-base", f"team/base@{commit}"):
        assert load_base(ref)[0].config._commit_hash == commit
    weights = snapshot_folder(Remote("team/base"), commit) / "model.safetensors"
    data = weights.read_bytes()
    weights.resolve().write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for ref in ("far-base", f"team/base@{commit}"):
        with pytest.raises(DigestMismatchError, match=r"model\.safetensors.*changed in the cache"):
            load_base(ref)


def test_a_base_model_is_no_learner_and_the_other_way_round(catalogue: Path, gpt2: Path) -> None:
    bundle(catalogue, gpt2)
    with pytest.raises(UnknownNameError, match="no learner named 'mini'"):
        load_learner("mini")
    with pytest.raises(ArtifactError):
        load_learner(gpt2)


def test_a_folder_without_a_model_is_explained(catalogue: Path, tmp_path: Path) -> None:
    with pytest.raises(SecondaryLearnersError, match=r"cannot load the base model.*learners list"):
        load_base(tmp_path / "work")


def test_the_tokenizer_of_a_learner_is_found_and_checked(catalogue: Path, gpt2: Path) -> None:
    bundle(catalogue, gpt2)
    learner = load_learner("small")
    with pytest.raises(IncompatibleError, match="'small'"):
        load_tokenizer(learner)
    _, tokenizer = load_base("mini")
    right = dataclasses.replace(
        learner.config, tokenizer=Reference("mini", None, tokenizer_fingerprint(tokenizer))
    )
    found = load_tokenizer(Learner(right, learner.net))
    assert found.get_vocab() == tokenizer.get_vocab()
    lost = dataclasses.replace(right, tokenizer=Reference(str(catalogue / "no"), None, "0" * 64))
    with pytest.raises(SecondaryLearnersError, match=r"cannot load the tokenizer.*--tokenizer tok"):
        load_tokenizer(Learner(lost, learner.net))


def test_a_tokenizer_of_ones_own_takes_the_place_of_one_that_cannot_be_had(
    catalogue: Path, gpt2: Path, tmp_path: Path
) -> None:
    bundle(catalogue, gpt2)
    learner = load_learner("small")
    _, tokenizer = load_base("mini")
    elsewhere = Reference("nobody/nothing", None, tokenizer_fingerprint(tokenizer))
    lost = Learner(dataclasses.replace(learner.config, tokenizer=elsewhere), learner.net)
    file = tmp_path / "tokenizer.json"
    tokenizer.backend_tokenizer.save(str(file))
    for place in (file, tmp_path):
        assert load_tokenizer(lost, place).get_vocab() == tokenizer.get_vocab()
    with pytest.raises(IncompatibleError, match="vocabulary"):
        load_tokenizer(learner, file)
    for wrong in (tmp_path / "none", gpt2 / "config.json"):
        with pytest.raises(SecondaryLearnersError, match=r"is not a tokenizer\.json"):
            load_tokenizer(lost, wrong)


@pytest.mark.parametrize("model_type", ["evil", "gpt2"])
def test_code_of_a_repository_is_never_run_nor_asked_about(
    model_type: str,
    catalogue: Path,
    gpt2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(gpt2, folder)
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"from pathlib import Path; Path({str(ran)!r}).touch()")
    auto_map = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    change(folder / "config.json", auto_map=auto_map, model_type=model_type)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    if model_type == "evil":
        with pytest.raises(SecondaryLearnersError, match=r"needs code of its own.* is never run"):
            load_base(folder)
    else:  # transformers has code of its own for it
        load_base(folder)
    assert not ran.exists()
    assert capsys.readouterr().out == ""
    learner = load_learner("small")
    reference = Reference(str(folder), None, "0" * 64)
    coded = Learner(dataclasses.replace(learner.config, tokenizer=reference), learner.net)
    with pytest.raises(SecondaryLearnersError):
        load_tokenizer(coded)
    assert not ran.exists()
    assert capsys.readouterr().out == ""


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_others_put_in_the_cache_is_not_read(
    catalogue: Path, gpt2: Path, machine: Machine, online: Team, tmp_path: Path
) -> None:
    import transformers

    commit = online.publish("team/shared", gpt2)
    digests = {path.name: sha256_file(path) for path in gpt2.iterdir()}
    far = dataclasses.replace(
        entry("far-base", "base-model", digests), location="team/shared", revision=commit
    )
    register(catalogue, far)
    load_base("far-base")
    folder = snapshot_folder(Remote("team/shared"), commit)
    (folder / "adapter_config.json").write_text("{}")  # which transformers would read
    (folder / "special_tokens_map.json").write_text('{"eos_token": "w9"}')
    model, tokenizer = load_base("far-base")
    assert tokenizer.eos_token != "w9"
    for made in (model, model.config, tokenizer):
        assert made.name_or_path == str(folder)
    for made in (model, tokenizer):  # the folder that was read is gone, and not needed
        made.save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    first = transformers.AutoModelForCausalLM.from_pretrained(gpt2, dtype=torch.float32)
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    copy = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert copy.get_vocab() == tokenizer.get_vocab()
