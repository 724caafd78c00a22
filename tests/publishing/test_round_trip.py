"""The whole way: real client, real server and real command line, each in a process of its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from publishing_helpers import Machine
from secondary_learners.content import content
from secondary_learners.learners.artifact import Learner, read_learner, save_learner
from secondary_learners.learners.nets import LinearNet
from server_helpers import Server, running, token

pytestmark = pytest.mark.slow

SCORE = """
import json, sys
from secondary_learners import load_learner
learner = load_learner(sys.argv[1])
scores = learner.score([[5, 9, 200, 7, 31], [4, 4, 8, 15, 16]])
print(json.dumps([learner.config.name, *scores.tolist()]))
"""
BUCKETS = 2**19  # 2 MB of float32


def score(machine: Machine, ref: object, *, offline: bool = False) -> list[Any]:
    scores = json.loads(machine.python(SCORE, ref, offline=offline))
    assert isinstance(scores, list)
    return scores


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """books-mini with 2 MB of pair weights beside its own."""
    folder = tmp_path_factory.mktemp("artifact") / "big-books"
    shipped = content("learners") / "books-mini"
    learner = read_learner(shipped)
    sizes = {**learner.config.sizes, "bigrams": BUCKETS}
    net = LinearNet(**sizes)
    with torch.no_grad():
        torch.manual_seed(0)
        net.weight.normal_(std=0.1)
    evaluation = json.loads((shipped / "evaluation.json").read_text())
    evaluation.pop("plot", None)
    card = (shipped / "README.md").read_text().replace("](comparison.png)", "](evaluation.json)")
    save_learner(
        Learner(dataclasses.replace(learner.config, sizes=sizes), net),
        folder,
        recipe_toml=(shipped / "recipe.toml").read_text(),
        evaluation=evaluation,
        readme=card,
    )
    assert (folder / "model.safetensors").stat().st_size > 2_000_000
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.mark.parametrize(("xet", "private"), [(True, False), (False, True)])
def test_round_trip(
    artifact: Path, server: Server, tmp_path: Path, xet: bool, private: bool
) -> None:
    repository = f"team/books-{xet:d}{private:d}"
    maker_token = token(server.root, f"maker{xet:d}{private:d}", "write", ("team",))
    reader_token = token(server.root, f"reader{xet:d}{private:d}", "read", ("team",))
    maker = Machine(tmp_path / "maker", server, maker_token, xet)
    expected = score(maker, str(artifact))

    # publish with a tag, and load it elsewhere
    visibility = ("--private",) if private else ()
    first = maker.learners("publish", artifact, repository, "--tag", "v1.0", *visibility)
    reader = Machine(tmp_path / "reader", server, reader_token if private else None, xet)
    assert score(reader, f"{repository}@v1.0") == expected

    # without a token a private repository is not there, and the message says what to do
    if private:
        stranger = Machine(tmp_path / "stranger", server, None, xet)
        refused = stranger.run("-c", SCORE, f"{repository}@v1.0")
        assert refused.returncode != 0
        assert "token" in refused.stderr and "Traceback" not in refused.stderr.split("Error:")[-1]

    # offline what was loaded once loads again
    assert score(reader, f"{repository}@v1.0", offline=True) == expected

    # the card is edited on the hub; the maker publishes again; both edits are there
    maker.python(
        "import sys\n"
        "from huggingface_hub import HfApi, hf_hub_download\n"
        "text = open(hf_hub_download(sys.argv[1], 'README.md')).read()\n"
        "HfApi().upload_file(repo_id=sys.argv[1], path_in_repo='README.md',\n"
        "    path_or_fileobj=(text + '\\n## Contact\\n\\nthe team\\n').encode())",
        repository,
    )
    card = artifact / "README.md"
    original = card.read_bytes()
    try:
        text = original.decode()
        assert "## Use\n" in text
        card.write_text(text.replace("## Use\n", "## How to use\n"), encoding="utf-8")
        second = maker.learners("publish", artifact, repository, "--tag", "v1.1")
    finally:
        card.write_bytes(original)
    assert second["commit"] != first["commit"]
    later = Machine(tmp_path / "later", server, reader_token if private else None, xet)
    merged = later.python(
        "import sys\n"
        "from huggingface_hub import hf_hub_download\n"
        "print(open(hf_hub_download(sys.argv[1], 'README.md', revision='v1.1')).read())",
        repository,
    )
    assert "## Contact" in merged and "## How to use" in merged

    # the old tag is what it was
    assert score(later, f"{repository}@v1.0") == expected
    assert score(later, f"{repository}@v1.1") == expected
    old = (tmp_path / "later" / "hf" / "hub").rglob(f"snapshots/{first['commit']}/README.md")
    # In the repository the card's example loads from there.
    there = original.replace(
        b'load_learner("books-mini")', f'load_learner("{repository}")'.encode()
    )
    assert [path.read_bytes() for path in old] == [there] != [original]


def test_by_name_through_a_teams_registry(artifact: Path, server: Server, tmp_path: Path) -> None:
    maker = Machine(tmp_path / "maker", server, token(server.root, "named", "write", ("team",)))
    published = maker.learners("publish", artifact, "team/by-name", "--tag", "v1.0")
    entries = tmp_path / "entries"
    entries.mkdir()
    name = published["entry"]["name"]
    (entries / f"{name}.toml").write_text(published["entry_toml"])
    reader = Machine(tmp_path / "reader", server, None)
    reader.learners("registry", "add", "team", entries)
    assert score(reader, f"team:{name}") == score(maker, str(artifact))
    assert score(reader, f"team:{name}", offline=True) == score(maker, str(artifact))


def test_transformers_and_datasets_load_from_the_same_server(
    server: Server, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "machine", server, token(server.root, "lib", "write", ("team",)))
    out = machine.python(
        """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("team/mini")
api.upload_folder(repo_id="team/mini", folder_path=sys.argv[1])
api.create_repo("team/corpus", repo_type="dataset")
rows = "\\n".join('{"text": "row %d"}' % i for i in range(50))
api.upload_file(repo_id="team/corpus", repo_type="dataset", path_in_repo="data/train.jsonl",
    path_or_fileobj=rows.encode())
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("team/mini")
tokenizer = AutoTokenizer.from_pretrained("team/mini")
ids = tokenizer("Once upon a time", return_tensors="pt")
print(model(**ids, labels=ids["input_ids"]).loss.item() < 20)
from datasets import load_dataset
print(load_dataset("team/corpus", split="train")[49]["text"])
stream = load_dataset("team/corpus", split="train", streaming=True)
print(next(iter(stream))["text"])
""",
        content("learners") / "mini",
    )
    assert out.split("\n")[:3] == ["True", "row 49", "row 0"]
