"""What the checks cost: `load_learner` against fetching and reading the same files by hand.

    python benchmarks/load.py

By hand: `hf_hub_download` of the learner's five files at a full commit (all are in the cache), the
tensors with `safetensors.torch.load_file`, the JSON files parsed, the others read; nothing is
hashed and no learner is built. Against it, the same learner as it ships, by its name in a registry,
by repository and commit, and as learners.lock pins it: every byte hashed, the tensors checked, the
net built. One process, torch and huggingface_hub imported before, CPU time of one thread, medians
of interleaved rounds.
The Hub is `learners serve` on this machine; once the cache is filled it is not asked again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, cpu_seconds, medians, rounds, table, write_result

from secondary_learners.artifacts.layout import FILES
from secondary_learners.content import content
from secondary_learners.registry.index import entry_toml, find
from secondary_learners.registry.load import load_learner
from secondary_learners.registry.locking import lock_references
from secondary_learners.registry.registries import add_registry
from secondary_learners.server.store.tokens import create_token

LEARNERS = ("books-mini", "python-docs-mini")
BY_HAND = "by hand"


@contextmanager
def hub(root: Path) -> Iterator[str]:
    """The address of a Hub of our own."""
    command = [sys.executable, "-m", "secondary_learners", "serve", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().rsplit(" ", 1)[1].strip()
        finally:
            process.terminate()


def seconds(call: Callable[[], object], times: int) -> Callable[[], float]:
    def many() -> None:
        for _ in range(times):
            call()

    return lambda: cpu_seconds(many) / times


def publish(url: str, token: str, name: str) -> str:
    """The bundled learner's five files as team/NAME; returns the commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=url, token=token)
    api.create_repo(f"team/{name}")
    folder = content("learners") / name
    operations = [CommitOperationAdd(file, folder / file) for file in FILES]
    commit: str = api.create_commit(f"team/{name}", operations, commit_message="publish").oid
    return commit


def by_hand(repository: str, commit: str) -> object:
    from huggingface_hub import hf_hub_download
    from safetensors.torch import load_file

    read: list[object] = []
    for name in FILES:
        path = hf_hub_download(repository, name, revision=commit)
        if name.endswith(".safetensors"):
            read.append(load_file(path))
        else:
            text = Path(path).read_text(encoding="utf-8")
            read.append(json.loads(text) if name.endswith(".json") else text)
    return read


def calls(name: str, place: Path, url: str, token: str) -> dict[str, Callable[[], object]]:
    """Ways to load one learner, each tried once, so that the cache is full."""
    commit = publish(url, token, name)
    shelf = place / f"shelf-{name}"
    shelf.mkdir()
    entry = dataclasses.replace(
        find(name),
        location=f"team/{name}",
        revision=commit,
        files={file: find(name).files[file] for file in FILES},
    )
    (shelf / f"{name}.toml").write_text(entry_toml(entry), encoding="utf-8")
    add_registry(f"far-{name}", str(shelf))
    found: dict[str, Callable[[], object]] = {
        BY_HAND: lambda: by_hand(f"team/{name}", commit),
        "bundled": lambda: load_learner(name),
        "cached, by name": lambda: load_learner(f"far-{name}:{name}"),
        "cached, by commit": lambda: load_learner(f"team/{name}@{commit}"),
    }
    lock = place / f"{name}.lock"
    lock_references([f"far-{name}:{name}"], lock)
    found["cached, locked"] = lambda: with_lock(lock, lambda: load_learner(f"far-{name}:{name}"))
    for call in found.values():
        call()
    return found


def with_lock(lock: Path, call: Callable[[], object]) -> object:
    os.environ["SECONDARY_LEARNERS_LOCK"] = str(lock)
    try:
        return call()
    finally:
        del os.environ["SECONDARY_LEARNERS_LOCK"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of load.json")
    options = parser.parse_args()
    count, times = (3, 2) if options.quick else (15, 20)
    with tempfile.TemporaryDirectory() as name, hub(Path(name) / "hub") as url:
        place = Path(name)
        os.environ |= {  # before huggingface_hub is imported
            "HF_ENDPOINT": url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_CACHE": str(place / "cache"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "SECONDARY_LEARNERS_HOME": str(place / "home"),
        }
        token = create_token(place / "hub", "team", "write")
        results: dict[str, dict[str, Any]] = {}
        for learner in LEARNERS:
            ways = calls(learner, place, url, token)
            timed = {way: seconds(call, times) for way, call in ways.items()}
            found = medians(rounds(timed, count))
            size = sum((content("learners") / learner / file).stat().st_size for file in FILES)
            results[learner] = {
                "bytes": size,
                "milliseconds": {way: 1e3 * value for way, value in found.items()},
                "times_by_hand": {way: value / found[BY_HAND] for way, value in found.items()},
            }
    rows = [
        (f"{learner}, {way}", each["milliseconds"][way], each["times_by_hand"][way])
        for learner, each in results.items()
        for way in each["milliseconds"]
    ]
    print(table(("load", "ms", "times by hand"), rows))
    write_result(options.out / "load.json", {"rounds": count, "loads": times, "learners": results})


if __name__ == "__main__":
    main()
