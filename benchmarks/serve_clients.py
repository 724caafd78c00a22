# ruff: noqa: E501 (a table of calls, one a line)
"""Which calls of which versions of huggingface_hub work against `learners serve`, unmodified.

    python benchmarks/serve_clients.py --client PYTHON [--client PYTHON ...] [--out FOLDER]

Each PYTHON is an interpreter with another version of huggingface_hub (`python -m venv old &&
old/bin/pip install huggingface_hub==0.36.0 hf_xet`); the one that runs this is always tried. Every
version makes the same calls, with Xet and without, in a process of its own against a fresh server.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import RESULTS, table, write_result
from serve import server

from secondary_learners.server.store.tokens import create_token

CALLS = r"""
import json, os, sys, tempfile
from pathlib import Path
import huggingface_hub
from huggingface_hub import (
    CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, HfFileSystem,
    ModelCard, snapshot_download,
)
endpoint, token = sys.argv[1:]
api = HfApi(endpoint=endpoint, token=token)
folder = Path(tempfile.mkdtemp())
large = os.urandom(3_000_000)
(folder / "up").mkdir()
(folder / "up" / "a.txt").write_text("text")
(folder / "up" / "w.safetensors").write_bytes(large)
R, D = "team/r", "team/d"
state = {}

def must(condition):
    assert condition

def add(path, data):
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=data)

def read(path, **k):
    return Path(api.hf_hub_download(R, path, cache_dir=folder / "cache", **k)).read_bytes()

def lfs():
    files = list(api.list_lfs_files(R))
    must(files)
    api.permanently_delete_lfs_files(R, files[:1])

calls = [
    ("whoami", lambda: must(api.whoami()["name"] == "ann")),
    ("create_repo", lambda: api.create_repo(R)),
    ("create_repo exist_ok", lambda: api.create_repo(R, exist_ok=True)),
    ("create_repo data set, private", lambda: api.create_repo(D, repo_type="dataset", private=True)),
    ("repo_exists", lambda: must(api.repo_exists(R) and not api.repo_exists("team/none"))),
    ("repo_exists space", lambda: must(not api.repo_exists(R, repo_type="space"))),
    ("upload_file small", lambda: api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=R)),
    ("upload_file large", lambda: api.upload_file(path_or_fileobj=large, path_in_repo="w.bin", repo_id=R)),
    ("upload_file again", lambda: api.upload_file(path_or_fileobj=large, path_in_repo="w.bin", repo_id=R)),
    ("upload_folder", lambda: api.upload_folder(folder_path=str(folder / "up"), repo_id=R, path_in_repo="f")),
    ("upload_folder data set", lambda: api.upload_folder(folder_path=str(folder / "up"), repo_id=D, repo_type="dataset")),
    ("file_exists", lambda: must(api.file_exists(R, "w.bin") and not api.file_exists(R, "no"))),
    ("list_repo_files", lambda: must("f/w.safetensors" in api.list_repo_files(R))),
    ("list_repo_tree", lambda: must(len(list(api.list_repo_tree(R, recursive=True))) >= 5)),
    ("list_repo_tree expand", lambda: must(list(api.list_repo_tree(R, expand=True))[0])),
    ("get_paths_info", lambda: must(len(api.get_paths_info(R, ["w.bin", "f", "no"])) == 2)),
    ("hf_hub_download", lambda: must(read("w.bin") == large)),
    ("hf_hub_download local_dir", lambda: api.hf_hub_download(R, "a", local_dir=folder / "local")),
    ("snapshot_download", lambda: must((Path(api.snapshot_download(R, cache_dir=folder / "s")) / "w.bin").read_bytes() == large)),
    ("snapshot_download patterns", lambda: api.snapshot_download(R, cache_dir=folder / "p", allow_patterns=["f/*"])),
    ("repo_info", lambda: state.update(sha=api.repo_info(R).sha)),
    ("model_info files_metadata", lambda: must(any(s.lfs for s in api.model_info(R, files_metadata=True).siblings))),
    ("dataset_info", lambda: must(api.dataset_info(D).private)),
    ("list_repo_commits", lambda: must(len(api.list_repo_commits(R)) >= 3)),
    ("create_commit", lambda: api.create_commit(R, [add("x", b"1"), add("y", b"2"), CommitOperationDelete("a")], commit_message="m")),
    ("create_commit parent", lambda: api.create_commit(R, [add("x", b"3")], commit_message="m", parent_commit=api.repo_info(R).sha)),
    ("create_commit copy", lambda: api.create_commit(R, [CommitOperationCopy("w.bin", "w2.bin")], commit_message="m")),
    ("preupload_lfs_files", lambda: api.preupload_lfs_files(R, [add("z.bin", large[:100])])),
    ("delete_file", lambda: api.delete_file("x", R)),
    ("delete_folder", lambda: api.delete_folder("f", R)),
    ("delete_files", lambda: api.delete_files(R, ["y"])),
    ("create_tag", lambda: api.create_tag(R, tag="v1")),
    ("create_tag exist_ok", lambda: api.create_tag(R, tag="v1", exist_ok=True)),
    ("create_branch", lambda: api.create_branch(R, branch="dev/x")),
    ("upload_file to a branch", lambda: api.upload_file(path_or_fileobj=b"b", path_in_repo="b", repo_id=R, revision="dev/x")),
    ("hf_hub_download of a branch", lambda: must(read("b", revision="dev/x") == b"b")),
    ("revision_exists", lambda: must(api.revision_exists(R, "v1") and not api.revision_exists(R, "v9"))),
    ("list_repo_refs", lambda: must(len(api.list_repo_refs(R).branches) == 2)),
    ("delete_branch", lambda: api.delete_branch(R, branch="dev/x")),
    ("delete_tag", lambda: api.delete_tag(R, tag="v1")),
    ("list_models", lambda: must([m.id for m in api.list_models(author="team")] == [R])),
    ("list_models search", lambda: must(list(api.list_models(search="r", limit=5)))),
    ("list_datasets", lambda: must([d.id for d in api.list_datasets(author="team")] == [D])),
    ("ModelCard.push", lambda: ModelCard("---\ntags: [t]\n---\n# x").push_to_hub(R, token=token)),
    ("upload_file card", lambda: api.upload_file(path_or_fileobj=b"---\ntags: [t]\n---\n# x", path_in_repo="README.md", repo_id=R)),
    ("list_models filter", lambda: must(list(api.list_models(filter="t")))),
    ("auth_check", lambda: api.auth_check(R)),
    ("update_repo_settings", lambda: api.update_repo_settings(R, private=True)),
    ("update_repo_settings gated", lambda: api.update_repo_settings(R, gated="manual", private=False)),
    ("HfFileSystem.ls", lambda: must(HfFileSystem(endpoint=endpoint, token=token).ls(R))),
    ("HfFileSystem.open", lambda: must(HfFileSystem(endpoint=endpoint, token=token).open(f"{R}/w.bin").read() == large)),
    ("get_hf_file_metadata", lambda: huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(R, "w.bin", endpoint=endpoint), token=token)),
    ("list_lfs_files, permanently_delete", lfs),
    ("super_squash_history", lambda: (api.super_squash_history(R), must(len(api.list_repo_commits(R)) == 1))),
    ("move_repo", lambda: api.move_repo(R, "team/moved")),
    ("delete_repo", lambda: api.delete_repo("team/moved")),
    ("delete_repo missing_ok", lambda: api.delete_repo("team/moved", missing_ok=True)),
]
failed = {}
for name, call in calls:
    try:
        call()
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {error}"[:300]
print(json.dumps({"version": huggingface_hub.__version__, "calls": len(calls), "failed": failed}))
"""


def matrix(client: str, xet: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "hub"
        token = create_token(root, "ann", "write", ["team"])
        with server(root) as (url, _):
            kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PYTHON"))}
            environment = kept | {
                "HF_HOME": str(Path(name) / "home"),
                "HF_ENDPOINT": url,
                "HF_HUB_DISABLE_XET": str(int(not xet)),
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            }
            command = [client, "-c", CALLS, url, token]
            run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result | {"xet": xet}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--client", action="append", default=[], metavar="PYTHON")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args()
    results = [
        matrix(client, xet) for client in (*options.client, sys.executable) for xet in (True, False)
    ]
    rows = [
        (
            f"{row['version']}, {'Xet' if row['xet'] else 'LFS'}",
            row["calls"],
            row["calls"] - len(row["failed"]),
            "; ".join(row["failed"]),
        )
        for row in results
    ]
    print(table(("huggingface_hub", "calls", "work", "do not"), rows))
    for row in results:
        for name, error in row["failed"].items():
            print(f"{row['version']} {name}: {error}")
    write_result(options.out / "serve_clients.json", {"clients": results})


if __name__ == "__main__":
    main()
