"""transformers and datasets, unmodified, load from the server by HF_ENDPOINT alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from server_helpers import Server, token

pytestmark = pytest.mark.slow

MINI = Path(__file__).parents[2] / "learners/mini"
SCRIPT = """
from datasets import load_dataset
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("team/mini", revision="v1.0")
print(sum(parameter.numel() for parameter in model.parameters()))
print(load_dataset("team/corpus", split="train")["text"][:])
"""


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_model_and_a_private_data_set(
    served: tuple[Server, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    server, root = served
    api = HfApi(server.url, token=token(root, "ann", "write", ["team"]))
    api.create_repo("team/mini")
    api.upload_folder(repo_id="team/mini", folder_path=MINI)
    api.create_tag("team/mini", tag="v1.0")
    api.create_repo("team/corpus", repo_type="dataset", private=True)
    rows = b'{"text": "one"}\n{"text": "two"}\n'
    api.upload_file(
        repo_id="team/corpus", repo_type="dataset", path_or_fileobj=rows, path_in_repo="d.jsonl"
    )
    reader = token(root, "bob", "read", ["team"])
    environment = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": reader,
        "HF_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    count, texts = done.stdout.splitlines()
    assert int(count) > 2_000_000
    assert texts == "['one', 'two']"
