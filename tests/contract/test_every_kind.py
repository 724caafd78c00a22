"""What every kind of recipe and of artifact must do, through the command line and public names.

A new row in a table of kinds is tested here by a tiny recipe of its name in recipes/, and fails
without one: it is run, killed and gone on with, checked, published to a real server, loaded by
name on a machine that has nothing, locked, verified and rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import contract_helpers
import secondary_learners
from cli_helpers import Result, learners
from contract_helpers import PROBES, name_of, probe, recipe_kinds, recipe_of, write_corpus, written
from publishing_helpers import Machine
from secondary_learners.artifacts.kinds import artifact_kinds
from secondary_learners.content import content
from server_helpers import Server, running, token

pytestmark = pytest.mark.slow

FILES = ("config.json", "model.safetensors", "recipe.toml")
TIMED = ("seconds", "speed", "less_time", "overhead")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="module", params=recipe_kinds())
def kind(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@dataclass(frozen=True)
class Made:
    """What an uninterrupted run made, and the files in `folder` as it wrote them one by one."""

    folder: Path
    written: list[str]

    @property
    def stages(self) -> list[str]:
        """The files that are kept for going on: all before the first that is the artifact's own."""
        own = {path.name for path in self.folder.iterdir() if path.is_file()}
        first = next(place for place, name in enumerate(self.written) if name in own)
        return self.written[:first]

    @property
    def entry(self) -> dict[str, Any]:
        """The registry entry that the run wrote."""
        path = self.folder / "work" / f"{self.folder.name}.toml"
        return tomllib.loads(path.read_text())


def run(kind: str, corpus: Path, out: Path) -> tuple[object, ...]:
    return ("run", recipe_of(kind), "--corpus", corpus, "--out", out, "--device", "cpu", "--json")


def succeeded(result: Result) -> Result:
    assert result.code == 0, result.err
    return result


@pytest.fixture(scope="module")
def made(kind: str, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("made") / name_of(kind)
    with written(out) as names:
        succeeded(learners(*run(kind, corpus, out)))
    return Made(out, names)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".")
    }


def untimed(value: Any) -> Any:
    """An evaluation without what depends on how fast the machine was."""
    if isinstance(value, dict):
        return {
            name: untimed(item)
            for name, item in value.items()
            if not any(word in name for word in TIMED)
        }
    return [untimed(item) for item in value] if isinstance(value, list) else value


def test_a_killed_run_goes_on_to_the_same_bytes(
    kind: str, made: Made, corpus: Path, tmp_path: Path
) -> None:
    assert made.stages, f"nothing is kept for going on: {made.written}"
    kept = made.stages[: (len(made.stages) + 1) // 2]
    out = tmp_path / made.folder.name
    command = run(kind, corpus, out)
    killed = [contract_helpers.__file__, "killed", out, len(kept), *command]
    process = subprocess.run(
        [sys.executable, *map(str, killed)], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == -signal.SIGKILL, process.stdout + process.stderr
    assert not digests(out)
    with written(out) as again:
        succeeded(learners(*command))
    assert not set(kept) & set(again), "what was finished before the kill was made again"
    assert kept + again == made.written
    for name in FILES:
        assert (out / name).read_bytes() == (made.folder / name).read_bytes(), name
    assert digests(out).keys() == digests(made.folder).keys()
    evaluations = [json.loads((it / "evaluation.json").read_text()) for it in (out, made.folder)]
    assert untimed(evaluations[0]) == untimed(evaluations[1])


def test_a_run_writes_the_registry_entry_of_what_it_made(made: Made) -> None:
    entry = made.entry
    assert entry["name"] == made.folder.name
    assert entry["kind"] in PROBES
    assert entry["location"] == "bundled"
    assert entry["files"] == digests(made.folder)
    assert entry["size"] == sum((made.folder / name).stat().st_size for name in entry["files"])


def test_the_card_is_right(made: Made) -> None:
    result = succeeded(learners("card", "check", made.folder, "--json"))
    assert result.json == {str(made.folder): []}


@dataclass(frozen=True)
class Published:
    """dry: what a dry run promised. value: what publishing answered."""

    folder: Path
    dry: dict[str, Any]
    value: dict[str, Any]

    @property
    def entry(self) -> dict[str, Any]:
        return tomllib.loads(self.value["entry_toml"])


@pytest.fixture(scope="module")
def published(made: Made, server: Server, monkeypatch_module: pytest.MonkeyPatch) -> Published:
    secret = token(server.root, f"maker-of-{made.folder.name}", "write", ("team",))
    monkeypatch_module.setenv("CONTRACT_TOKEN", secret)
    where = ("--endpoint", server.url, "--token-env", "CONTRACT_TOKEN")
    command = ("publish", made.folder, f"team/{made.folder.name}", "--tag", "v1.0", *where)
    dry = succeeded(learners(*command, "--dry-run", "--json"))
    value = succeeded(learners(*command, "--json"))
    return Published(made.folder, dry.json, value.json)


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_the_audit_finds_nothing_and_a_dry_run_sends_nothing(published: Published) -> None:
    assert published.dry["commit"] is None and published.dry["entry"] is None
    assert {change["kind"] for change in published.dry["changes"]} == {"added"}
    assert published.dry["changes"] == published.value["changes"]


def test_the_entry_of_what_was_published_is_that_of_the_run(
    made: Made, published: Published, server: Server
) -> None:
    entry, own = published.entry, made.entry
    assert entry.pop("location") == f"team/{own.pop('name')}" and own.pop("location") == "bundled"
    assert entry.pop("revision") == published.value["commit"]
    assert entry.pop("endpoint") == server.url
    entry.pop("name")
    for it in (entry, own):
        it["files"].pop("README.md")  # the example in the card loads from where it is
        it.pop("size")
    assert entry == own


@pytest.fixture(scope="module")
def stranger(
    made: Made,
    published: Published,
    server: Server,
    corpus: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What a machine that has nothing gets, by the name in a registry."""
    home = tmp_path_factory.mktemp("stranger")
    entries = home / "entries"
    entries.mkdir()
    name, kind = made.folder.name, published.entry["kind"]
    (entries / f"{name}.toml").write_text(published.value["entry_toml"])
    machine = Machine(home / "machine", server, None)
    done = machine.run(contract_helpers.__file__, "stranger", kind, entries, name, corpus)
    assert done.returncode == 0, done.stderr
    steps: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return steps


def test_it_loads_by_name_with_an_empty_cache(
    published: Published, stranger: dict[str, Any]
) -> None:
    assert stranger["registry"]["code"] == stranger["show"]["code"] == 0
    assert stranger["load"] == probe(published.entry["kind"], published.folder)


def test_it_is_locked_and_verified(
    made: Made, published: Published, stranger: dict[str, Any]
) -> None:
    assert stranger["lock"]["code"] == 0, stranger["lock"]["error"]
    pin = stranger["lock"]["value"]["new"][f"team:{made.folder.name}"]
    assert pin["commit"] == published.value["commit"]
    assert stranger["verify"]["code"] == 0, stranger["verify"]["error"]
    assert {item["name"] for item in stranger["verify"]["value"]} == {f"team:{made.folder.name}"}
    assert all(item["good"] for item in stranger["verify"]["value"])


def test_it_is_rebuilt_to_the_same_bytes(stranger: dict[str, Any]) -> None:
    assert stranger["rebuild"]["code"] == 0, stranger["rebuild"]["error"]
    assert stranger["rebuild"]["value"]["verdict"] == "identical"


def test_each_tiny_recipe_is_of_the_kind_it_is_called_by() -> None:
    for kind in recipe_kinds():
        assert tomllib.loads(recipe_of(kind).read_text())["kind"] == kind


def test_every_kind_of_artifact_can_be_asked_something() -> None:
    assert PROBES.keys() == {kind.kind for kind in artifact_kinds()}
    for kind in artifact_kinds():
        assert kind.loader in secondary_learners.__all__


@pytest.mark.parametrize("kind", [kind.kind for kind in artifact_kinds()])
def test_every_kind_of_artifact_ships(kind: str) -> None:
    """So that tests/formats holds what it says."""
    entries = content("registry").glob("*.toml")
    assert kind in {tomllib.loads(path.read_text())["kind"] for path in entries}
