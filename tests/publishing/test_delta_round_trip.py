"""The whole way of a delta: real client, real server, each user in a process of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi
from safetensors.torch import load_file

from publishing_helpers import Machine
from secondary_learners import load_delta
from secondary_learners.content import content
from server_helpers import Server, running, token

pytestmark = pytest.mark.slow

IDS = [[100, 200, 300, 5], [7, 8, 9, 4000]]
# Every way to load in one process, because each process loads torch: the logits by reference, or
# the refusal in words.
LOAD = f"""
import json, sys
import torch
from safetensors.torch import save_file
from secondary_learners import load_base, load_delta
from secondary_learners.errors import SecondaryLearnersError
out, mode, *refs = sys.argv[1:]
logits, refused = {{}}, {{}}
for ref in refs:
    model = None
    if mode == "wrong":
        from secondary_learners.tasks.classifier import classifier
        base, _ = load_base("mini")
        with torch.no_grad():
            base.transformer.h[0].ln_1.bias[0] += 1e-3
        model = classifier(base, 2)
    try:
        applied = load_delta(ref, model, locked=mode == "locked")
    except SecondaryLearnersError as error:
        refused[ref] = f"{{type(error).__name__}}: {{error}}"
        continue
    with torch.no_grad():
        logits[ref] = applied.model(torch.tensor({IDS})).logits
save_file({{ref: value for ref, value in logits.items()}}, out)
print(json.dumps(refused))
"""


def load(
    machine: Machine, *refs: object, mode: str = "", offline: bool = False
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The logits by reference, and what was refused."""
    machine.home.mkdir(exist_ok=True)
    out = machine.home / "logits.safetensors"
    refused = json.loads(machine.python(LOAD, out, mode, *refs, offline=offline))
    return load_file(out), refused


def expected(name: str) -> torch.Tensor:
    with torch.no_grad():
        logits = load_delta(content("learners") / name).model(torch.tensor(IDS)).logits
    assert isinstance(logits, torch.Tensor)
    return logits


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.mark.parametrize(("kind", "private"), [("mask", False), ("layers", True)])
def test_round_trip(server: Server, tmp_path: Path, kind: str, private: bool) -> None:
    name, repository = f"sst2-{kind}-mini", f"team/sst2-{kind}"
    folder = content("learners") / name
    maker = Machine(
        tmp_path / "maker", server, token(server.root, f"maker-{kind}", "write", ("team",))
    )
    reading = token(server.root, f"reader-{kind}", "read", ("team",)) if private else None
    visibility = ("--private",) if private else ()
    command = ("publish", folder, repository, "--tag", "v1.0", *visibility)

    dry = maker.learners(*command, "--dry-run")
    assert dry["commit"] is None and {change["kind"] for change in dry["changes"]} == {"added"}
    published = maker.learners(*command)
    entry = published["entry"]
    assert (entry["kind"], entry["name"], entry["base"]) == ("delta", name, "mini")
    assert (entry["location"], entry["revision"]) == (repository, published["commit"])

    # by repository and tag, by the name in a registry, and with the lock: the same numbers
    reader = Machine(tmp_path / "reader", server, reading)
    entries = tmp_path / "entries"
    entries.mkdir()
    (entries / f"{name}.toml").write_text(published["entry_toml"])
    reader.learners("registry", "add", "team", entries)
    refs = (f"{repository}@v1.0", f"team:{name}")
    logits, refused = load(reader, *refs)
    assert refused == {}
    assert all(torch.equal(logits[ref], expected(name)) for ref in refs)
    reader.learners("lock", *refs)
    logits, refused = load(reader, *refs, name, mode="locked", offline=True)
    assert "LockError" in refused.pop(name) and refused == {}
    assert all(torch.equal(logits[ref], expected(name)) for ref in refs)

    # in the repository the card's example loads from there
    shown = reader.learners("delta", "show", refs[0])
    assert shown["config"]["name"] == name
    card = next((reader.home / "hf" / "hub").rglob("snapshots/*/README.md")).read_text()
    assert f'load_delta("{repository}")' in card and f'load_delta("{repository}", model)' in card

    # another base model, and a byte that was changed in the cache
    _, refused = load(reader, refs[0], mode="wrong", offline=True)
    assert "IncompatibleError" in refused[refs[0]] and "Load mini unchanged" in refused[refs[0]]
    cached = next((reader.home / "hf" / "hub").rglob("snapshots/*/model.safetensors")).resolve()
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    cached.chmod(0o644)
    cached.write_bytes(data)
    logits, refused = load(reader, *refs, offline=True)
    assert logits == {}
    assert all(refused[ref].startswith("DigestMismatchError") for ref in refs)

    if private:
        stranger = Machine(tmp_path / "stranger", server, None)
        _, refused = load(stranger, refs[0])
        assert "token" in refused[refs[0]]


def test_a_pickle_and_what_is_no_delta_are_refused(server: Server, tmp_path: Path) -> None:
    maker = Machine(tmp_path / "maker", server, token(server.root, "two", "write", ("team",)))
    mask = content("learners") / "sst2-mask-mini"
    maker.learners("publish", mask, "team/pickled", "--tag", "v1.0")
    HfApi(server.url, maker.token).create_commit(
        "team/pickled",
        [CommitOperationAdd("more/weights.pkl", b"\x80\x04.")],
        commit_message="weights",
    )
    maker.learners("publish", content("learners") / "books-mini", "team/learner")
    reader = Machine(tmp_path / "reader", server, None)
    logits, refused = load(reader, "team/pickled", "team/learner", "team/pickled@v1.0")
    assert set(logits) == {"team/pickled@v1.0"}
    assert "weights.pkl" in refused["team/pickled"]
    assert "'kind'" in refused["team/learner"]

    # And nobody publishes one, or something else where a delta is.
    folder = shutil.copytree(mask, tmp_path / "mask")
    (folder / "weights.pt").touch()
    done = maker.run("-m", "secondary_learners", "publish", folder, "team/other")
    assert done.returncode != 0 and "weights.pt could run code" in done.stderr
    layers = content("learners") / "sst2-layers-mini"
    done = maker.run("-m", "secondary_learners", "publish", layers, "team/learner")
    assert done.returncode != 0 and "holds books-mini" in done.stderr
