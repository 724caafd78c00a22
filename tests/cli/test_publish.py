"""`learners publish`, in a process of its own as users run it, and `learners card check`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli_helpers import Result, Tiny, learners
from secondary_learners.content import content
from server_helpers import running, token


@dataclass(frozen=True)
class Shell:
    """A shell with a Hub and, it may be, a token in its environment."""

    home: Path
    url: str
    root: Path

    def __call__(self, *arguments: object, **environment: str) -> Result:
        mine = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        given = {"HF_HOME": str(self.home), "HF_ENDPOINT": self.url} | environment
        done = subprocess.run(
            [sys.executable, "-m", "secondary_learners", *map(str, arguments)],
            env=mine | given,
            capture_output=True,
            text=True,
        )
        return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    root = tmp_path_factory.mktemp("hub")
    with running(root) as server:
        yield Shell(tmp_path_factory.mktemp("home"), server.url, root)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(content("learners") / "books-mini", tmp_path / "books")


def test_publish_prints_the_registry_entry(shell: Shell, folder: Path) -> None:
    environment = {"HF_TOKEN": token(shell.root, "user", "write")}
    command = ("publish", folder, "user/books", "--tag", "v1.0")
    dry = shell(*command, "--dry-run", **environment)
    assert dry.code == 0 and "nothing was sent" in dry.out
    assert "(new, public unless that Hub makes new ones private: --private)" in dry.out
    private = shell(*command, "--dry-run", "--private", **environment)
    assert "(new, private)" in private.out
    assert all(name in dry.out for name in ("added", "model.safetensors", "README.md", "v1.0"))
    done = shell(*command, **environment)
    assert done.code == 0, done.err
    entry = tomllib.loads(done.out)  # stdout is the entry and nothing else
    assert (entry["location"], entry["endpoint"]) == ("user/books", shell.url)
    assert f"commit {entry['revision']}, tagged v1.0" in done.err
    again = shell(*command, "--json", **environment)
    assert again.json["commit"] == again.json["parent"] == entry["revision"]
    assert tomllib.loads(again.json["entry_toml"]) == entry
    assert {change["kind"] for change in again.json["changes"]} == {"unchanged", "kept-on-hub"}


def test_without_xet(shell: Shell, folder: Path) -> None:
    environment = {"HF_TOKEN": token(shell.root, "plain", "write"), "HF_HUB_DISABLE_XET": "1"}
    done = shell("publish", folder, "plain/books", "--public", **environment)
    assert tomllib.loads(done.out)["location"] == "plain/books", done.err


def test_a_token_by_the_name_of_its_variable(shell: Shell, folder: Path) -> None:
    writer = token(shell.root, "named", "write")
    elsewhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_secret", "OURS": writer}
    command = ("publish", folder, "named/books", "--endpoint", shell.url)
    refused = shell(*command, **elsewhere)
    assert refused.code == 1 and "--token-env" in refused.err
    done = shell(*command, "--token-env", "OURS", "--quiet", **elsewhere)
    assert (done.code, done.err) == (0, "")
    unset = shell(*command, "--token-env", "NOWHERE", **elsewhere)
    assert unset.code == 2 and "NOWHERE" in unset.err


def test_without_a_token_the_ways_to_one_are_named(shell: Shell, folder: Path) -> None:
    refused = shell("publish", folder, "user/books")
    assert refused.code == 1
    assert "hf auth login" in refused.err
    assert "learners serve-token create USER ROOT --role write" in refused.err


def test_offline_is_said_in_plain_words(shell: Shell, folder: Path) -> None:
    environment = {"HF_TOKEN": "x", "HF_HUB_OFFLINE": "1"}
    refused = shell("publish", folder, "user/books", **environment)
    assert refused.code == 1 and "HF_HUB_OFFLINE is set" in refused.err
    assert "Traceback" not in refused.err


def test_a_folder_that_is_not_fit_names_all_that_is_wrong(folder: Path) -> None:
    (folder / "model.pkl").touch()
    (folder / "recipe.toml").unlink()
    result = learners("publish", folder, "user/books")
    assert result.code == 1
    assert "model.pkl" in result.err and "recipe.toml" in result.err


def test_a_learner_of_own_text_asks_for_its_license_alone(tiny: Tiny) -> None:
    result = learners("card", "check", tiny.learner, "--json")
    assert result.code == 1
    assert [problem["kind"] for problem in result.json[str(tiny.learner)]] == ["license"]


def test_card_check_says_what_is_wrong(folder: Path) -> None:
    good = learners("card", "check", folder, content("learners") / "mini")
    assert (good.code, good.out.count("nothing is wrong")) == (0, 2)
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: apache-2.0", "license: mine"))
    bad = learners("card", "check", card)
    assert bad.code == 1 and "license: 'mine'" in bad.out
    assert json.loads(learners("card", "check", card, "--json").out)[str(card)]
    gone = learners("card", "check", folder / "work")
    assert gone.code == 1 and "there is no card" in gone.err
