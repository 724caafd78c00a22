"""Nothing that is stored is lost: by a start, by rot on the disk, by tidying up, by a backup."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from cli_helpers import learners
from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.server.api import uploads
from secondary_learners.server.api.sending import BrokenOff, Sending
from secondary_learners.server.store import objects as objects_module
from secondary_learners.server.store.collection import (
    collect_strays,
    collect_uploads,
    keeping_objects,
)
from secondary_learners.server.store.database import Database
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.limits import Limits
from secondary_learners.server.store.soundness import Soundness
from secondary_learners.server.store.tokens import create_token
from secondary_learners.server.upkeep import Upkeep
from server_helpers import Answer, InProcess, running, token

CREATE = {"name": "mini", "organization": "team"}
FILE = "/team/mini/resolve/main/w.bin"
DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def stocked(hub: InProcess, ann: str) -> InProcess:
    """team/mini with w.bin, a large file, and a.txt, a small one."""
    stock(hub, ann)
    return hub


def stock(hub: InProcess, ann: str) -> None:
    assert hub.ask("POST", "/api/repos/create", CREATE, ann).status == 200
    hub.upload(ann, DATA)
    assert commit_upload(hub, ann, SHA256).status == 200
    assert hub.commit(ann, {"a.txt": b"small"}).status == 200


def commit_upload(hub: InProcess, ann: str, sha256: str, path: str = "w.bin") -> Answer:
    lines = (
        {"key": "header", "value": {"summary": "s"}},
        {"key": "lfsFile", "value": {"path": path, "oid": sha256}},
    )
    body = "\n".join(map(json.dumps, lines)).encode()
    return hub.ask("POST", "/api/models/team/mini/commit/main", body, ann)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def made(root: Path) -> str:
    """A root with a repository, its server ended. Returns the token."""
    ann = token(root, "ann", "write", ["team"])
    with InProcess(root) as hub:
        stock(hub, ann)
    return ann


class TestStarting:
    @pytest.mark.parametrize("left", ["nothing", "an empty file", "an empty database", "a new one"])
    def test_without_its_database_nothing_is_touched(self, root: Path, left: str) -> None:
        made(root)
        before = files(root / "objects")
        saved = root.parent / "saved.sqlite3"
        (root / "hub.sqlite3").rename(saved)
        if left == "an empty file":
            (root / "hub.sqlite3").touch()
        elif left == "an empty database":
            with closing(sqlite3.connect(root / "hub.sqlite3")) as connection:
                connection.execute("VACUUM")
        elif left == "a new one":
            create_token(root.parent / "other", "eve", "read")
            shutil.copy(root.parent / "other" / "hub.sqlite3", root)
        started = learners("serve", root, "--port", 0)
        assert started.code == 1 and "Nothing was changed" in started.err
        assert "learners serve-restore" in started.err or "serve-check" in started.err
        assert learners("serve-token", "create", "eve", root, "--role", "read").code == 1
        assert files(root / "objects") == before
        saved.replace(root / "hub.sqlite3")
        with InProcess(root) as hub:
            assert hub.ask("GET", FILE).body == DATA

    def test_an_older_database_is_refused_and_can_be_accepted(self, root: Path) -> None:
        ann = made(root)
        shutil.copy(root / "hub.sqlite3", root.parent / "old.sqlite3")
        with InProcess(root) as hub:
            assert hub.commit(ann, {"b.txt": b"after the copy"}).status == 200
        before = files(root / "objects")
        shutil.copy(root.parent / "old.sqlite3", root / "hub.sqlite3")
        with pytest.raises(SecondaryLearnersError, match=r"older.*serve-check .* --repair"):
            Hub.open(root, Limits())
        assert files(root / "objects") == before
        accepted = learners("serve-check", root, "--repair", "--json")
        assert [(row["kind"], row["repaired"]) for row in accepted.json["problems"]] == [
            ("stray", "moved to strays/")
        ]
        assert files(root / "objects") | files(root / "strays") == before
        with InProcess(root) as hub:
            assert hub.ask("GET", FILE).body == DATA

    def test_a_root_without_a_mark_is_an_earlier_versions(self, root: Path) -> None:
        made(root)
        (root / "written").unlink()
        with InProcess(root) as hub:
            assert hub.ask("GET", FILE).body == DATA
        (root / "written").unlink()
        (root / "hub.sqlite3").unlink()
        create_token(root.parent / "other", "eve", "read")
        shutil.copy(root.parent / "other" / "hub.sqlite3", root)
        with pytest.raises(SecondaryLearnersError, match="no repository is in database"):
            Database(root / "hub.sqlite3")

    def test_a_start_keeps_what_it_cannot_explain(self, root: Path) -> None:
        made(root)
        with InProcess(root) as hub, hub.app.state.hub.objects.incoming() as incoming:
            incoming.write(b"the process ends here")
            stray = incoming.keep().sha256
        with running(root):
            assert stray in files(root / "objects")


class TestADatabaseThatFails:
    @pytest.mark.parametrize("command", [("serve",), ("serve-token", "list"), ("serve-check",)])
    def test_a_damaged_one_is_one_message(self, root: Path, command: tuple[str, ...]) -> None:
        made(root)
        (root / "hub.sqlite3").write_bytes(b"not a database" * 1000)
        before = files(root / "objects")
        result = learners(*command, root)
        assert result.code == 1 and "is damaged" in result.err
        assert "learners serve-restore" in result.err and files(root / "objects") == before

    def test_a_full_disk_when_a_token_is_made(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made(root)

        def full(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr("secondary_learners.server.store.tokens._namespace", full)
        result = learners("serve-token", "create", "bob", root, "--role", "read")
        assert result.code == 1 and "disk is full" in result.err


class TestRot:
    def test_a_flipped_bit_is_never_sent(self, stocked: InProcess, ann: str, root: Path) -> None:
        path = stocked.app.state.hub.objects.path(SHA256)
        assert stocked.ask("GET", FILE).body == DATA
        path.write_bytes(DATA[:-1] + b"\0")
        for headers in ({}, {"Range": "bytes=0-9"}):
            answer = stocked.ask("GET", FILE, headers=headers)
            assert answer.status == 500 and "missing or damaged" in answer.json()["error"]
        assert files(root / "damaged") == {SHA256}

    def test_what_the_disk_alone_changed_is_noticed_in_time(self, tmp_path: Path) -> None:
        """Size, inode and time stay as they were: only reading it again shows it."""
        clock = [0.0]
        soundness = Soundness(10, lambda: clock[0])
        path = tmp_path / "object"
        path.write_bytes(b"right")
        soundness.trust("0" * 64, path.stat())
        assert soundness.knows("0" * 64, path.stat())
        clock[0] = 10
        assert not soundness.knows("0" * 64, path.stat())

    def test_reading_it_all_again(self, stocked: InProcess, root: Path) -> None:
        hub = stocked.app.state.hub
        path, status = hub.objects.path(SHA256), hub.objects.path(SHA256).stat()
        path.write_bytes(DATA[::-1])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert hub.objects.soundness.knows(SHA256, path.stat())
        assert Upkeep(hub).once(1e12) == 1
        assert stocked.ask("GET", FILE).status == 500
        assert Upkeep(hub).once(1e12) == 0

    def test_a_large_file_is_hashed_while_it_is_sent(
        self, stocked: InProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("secondary_learners.server.api.sending._AT_FIRST", 100)
        monkeypatch.setattr("secondary_learners.server.api.sending._PIECE", 1000)
        path = stocked.app.state.hub.objects.path(SHA256)
        path.write_bytes(DATA)  # another time: it is hashed again
        assert stocked.ask("GET", FILE).body == DATA
        assert stocked.app.state.hub.objects.soundness.knows(SHA256, path.stat())
        path.write_bytes(b"\1" + DATA[1:])
        with pytest.raises(BrokenOff):
            stocked.ask("GET", FILE)
        assert stocked.ask("GET", FILE).status == 500

    def test_many_readers_wait_for_one_hashing(
        self, stocked: InProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A client that gives up and asks again does not make the server read it all again."""
        objects, read = stocked.app.state.hub.objects, list[Path]()

        def counting(path: Path) -> str:
            read.append(path)
            return hashlib.sha256(path.read_bytes()).hexdigest()

        monkeypatch.setattr(objects_module, "sha256_file", counting)
        objects.soundness.forget(SHA256)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(objects.is_sound, [SHA256] * 16))
        assert len(read) == 1
        assert objects.is_sound(SHA256, again=True) and len(read) == 2

    def test_what_cannot_be_read_is_damaged(
        self, stocked: InProcess, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(path: Path) -> str:
            raise OSError(5, "Input/output error")

        stocked.app.state.hub.objects.soundness.forget(SHA256)
        monkeypatch.setattr(objects_module, "sha256_file", failing)
        assert stocked.ask("GET", FILE).status == 500
        assert files(root / "damaged") == {SHA256}

    @pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
    @pytest.mark.parametrize("path", ["w.bin", "copy.bin"])
    @pytest.mark.parametrize("left", [None, 100, len(DATA)])
    @pytest.mark.parametrize("xet", [False, True])
    def test_uploading_it_again_heals_it(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
        left: int | None,
        xet: bool,
    ) -> None:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
        root = tmp_path / "hub"
        ann = token(root, "ann", "write", ["team"])
        with running(root) as server:
            api = HfApi(server.url, token=ann)
            api.create_repo("team/mini")
            api.upload_file(repo_id="team/mini", path_or_fileobj=DATA, path_in_repo="w.bin")
            stored = root / "objects" / SHA256[:2] / SHA256
            if left is None:
                stored.unlink()
            else:
                stored.write_bytes(b"x" * left)
            with pytest.raises(Exception, match="missing or damaged"):
                api.hf_hub_download("team/mini", "w.bin", cache_dir=tmp_path / "cache")
            api.upload_file(repo_id="team/mini", path_or_fileobj=DATA, path_in_repo=path)
            loaded = api.hf_hub_download("team/mini", "w.bin", cache_dir=tmp_path / "cache")
            assert Path(loaded).read_bytes() == DATA

    def test_a_truncated_one_is_asked_for_without_a_download(
        self, stocked: InProcess, ann: str
    ) -> None:
        os.truncate(stocked.app.state.hub.objects.path(SHA256), 10)
        preupload = {"files": [{"path": "w.bin", "size": len(DATA), "sample": ""}]}
        answer = stocked.ask("POST", "/api/models/team/mini/preupload/main", preupload, ann)
        assert answer.json()["files"][0]["oid"] is None
        assert commit_upload(stocked, ann, SHA256, "copy.bin").status == 400
        stocked.upload(ann, DATA)
        assert stocked.ask("GET", FILE).body == DATA

    def test_a_head_is_no_download(
        self, stocked: InProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stocked.app.state.hub.objects.path(SHA256).write_bytes(b"")
        monkeypatch.setattr(Sending, "is_sound", None)
        assert stocked.ask("HEAD", FILE, headers={"If-None-Match": "x"}).status == 200


class TestChecking:
    def test_all_is_well(self, root: Path) -> None:
        made(root)
        checked = learners("serve-check", root)
        assert checked.code == 0 and "Every object is there" in checked.out

    def test_each_kind_of_damage(self, root: Path) -> None:
        ann = made(root)
        small = hashlib.sha256(b"small").hexdigest()
        objects = root / "objects"
        with InProcess(root) as hub:
            assert hub.commit(ann, {"b.txt": b"gone"}).status == 200
            with hub.app.state.hub.objects.incoming() as incoming:
                incoming.write(b"stray")
                stray = incoming.keep().sha256
        gone = hashlib.sha256(b"gone").hexdigest()
        (objects / gone[:2] / gone).unlink()
        (objects / SHA256[:2] / SHA256).write_bytes(DATA[:-1])
        (objects / small[:2] / "notes.txt").write_text("mine")
        checked = learners("serve-check", root, "--json")
        assert checked.code == 1
        kinds = {row["kind"]: row for row in checked.json["problems"]}
        assert set(kinds) == {"damaged", "missing", "stray", "foreign"}
        assert "team/mini/w.bin" in kinds["damaged"]["detail"]
        assert "team/mini/b.txt" in kinds["missing"]["detail"]
        before = files(root)
        repaired = learners("serve-check", root, "--repair", "--json")
        assert repaired.code == 1 and repaired.json["lost"] == 2
        assert files(root) - {"lock"} == before  # moved, not deleted
        assert files(root / "damaged") == {SHA256} and files(root / "strays") == {stray}

    def test_a_good_copy_is_put_back(self, root: Path) -> None:
        made(root)
        (root / "strays").mkdir()
        (root / "objects" / SHA256[:2] / SHA256).rename(root / "strays" / SHA256)
        repaired = learners("serve-check", root, "--repair")
        assert repaired.code == 0 and "put back" in repaired.out
        with InProcess(root) as hub:
            assert hub.ask("GET", FILE).body == DATA

    def test_no_repair_while_it_is_served(self, root: Path) -> None:
        made(root)
        with running(root):
            assert learners("serve-check", root).code == 0
            refused = learners("serve-check", root, "--repair")
        assert refused.code == 1 and "Stop that server first" in refused.err

    def test_a_folder_that_is_not_a_root(self, tmp_path: Path) -> None:
        for command in ("serve-check", "serve-gc"):
            result = learners(command, tmp_path)
            assert result.code == 1 and "holds no Hub" in result.err
        assert list(tmp_path.iterdir()) == []


class TestCollecting:
    def test_what_no_commit_names_goes_after_its_grace(
        self, stocked: InProcess, ann: str, root: Path
    ) -> None:
        hub = stocked.app.state.hub
        unused = stocked.upload(ann, b"\0uploaded, in no commit")
        assert collect_uploads(hub, 60).count == 0
        assert collect_uploads(hub, -1).count == 1
        assert unused not in files(root / "objects")
        assert stocked.ask("GET", FILE).body == DATA
        assert stocked.commit(ann, {"a.txt": b"new"}).status == 200
        assert collect_uploads(hub, -1).count == 0  # the old a.txt is in a commit
        assert commit_upload(stocked, ann, unused, "u.bin").status == 400
        assert stocked.upload(ann, b"\0uploaded, in no commit") == unused
        assert commit_upload(stocked, ann, unused, "u.bin").status == 200

    def test_an_upload_that_is_there_already_counts_as_new(
        self, stocked: InProcess, ann: str
    ) -> None:
        hub = stocked.app.state.hub
        data = b"\0uploaded before"
        unused = stocked.upload(ann, data)
        with hub.database.transaction() as connection:
            connection.execute("UPDATE grants SET added = 1000")
        assert stocked.upload(ann, data) == unused  # nothing is sent: it is here
        assert collect_uploads(hub, 60).count == 0
        assert commit_upload(stocked, ann, unused, "u.bin").status == 200

    def test_strays_go_only_when_asked(self, stocked: InProcess, root: Path) -> None:
        hub = stocked.app.state.hub
        with hub.objects.incoming() as incoming:
            incoming.write(b"stray")
            stray = incoming.keep().sha256
        Upkeep(hub).once(1e12)
        assert collect_strays(hub, 60).count == 0
        assert stray in files(root / "objects")
        assert collect_strays(hub, -1).count == 1
        assert stray not in files(root / "objects")
        assert stocked.ask("GET", FILE).body == DATA

    def test_nothing_goes_while_a_backup_is_made(
        self, stocked: InProcess, ann: str, root: Path
    ) -> None:
        hub, before = stocked.app.state.hub, files(root / "objects")
        with keeping_objects(root):
            body = {"name": "mini", "organization": "team"}
            assert stocked.ask("DELETE", "/api/repos/delete", body, ann).status == 200
            assert files(root / "objects") == before
        assert collect_strays(hub, -1).count == len(before)

    def test_from_the_command_line(self, root: Path) -> None:
        ann = made(root)
        with InProcess(root) as hub:
            hub.upload(ann, b"\0never committed")
            assert learners("serve-gc", root, "--json").json["uploads"]["count"] == 0
            with hub.app.state.hub.database.transaction() as connection:
                connection.execute("UPDATE grants SET added = 1000")
            assert "Dropped 1 objects, 16 bytes" in learners("serve-gc", root).out
            assert hub.ask("GET", FILE).body == DATA


class TestBackingUp:
    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        return tmp_path / "backup"

    def test_there_and_back(self, root: Path, out: Path, tmp_path: Path) -> None:
        ann = made(root)
        first = learners("serve-backup", root, out, "--json").json
        assert (first["copied"], first["there"]) == (3, 0)
        with running(root) as server:  # while it is served
            HfApi(server.url, token=ann).create_tag("team/mini", tag="v1.0")
            second = learners("serve-backup", root, out, "--json").json
        assert (second["copied"], second["there"]) == (0, 3)
        assert (out.stat().st_mode | (out / "databases").stat().st_mode) & 0o077 == 0
        assert learners("serve-restore", out, tmp_path / "new").code == 0
        with InProcess(tmp_path / "new") as hub:
            assert hub.ask("GET", "/team/mini/resolve/v1.0/w.bin").body == DATA
            assert hub.commit(ann, {"b.txt": b"goes on"}).status == 200
        assert learners("serve-check", tmp_path / "new").code == 0
        older = ("--database", first["database"])
        assert learners("serve-restore", out, tmp_path / "old", *older).code == 0
        with InProcess(tmp_path / "old") as hub:
            assert hub.ask("GET", "/team/mini/resolve/v1.0/w.bin").status == 404
            assert hub.ask("GET", FILE).body == DATA

    def test_a_root_that_lost_its_database(self, root: Path, out: Path) -> None:
        ann = made(root)
        learners("serve-backup", root, out)
        with InProcess(root) as hub:
            assert hub.commit(ann, {"b.txt": b"after the backup"}).status == 200
        before = files(root / "objects")
        refused = learners("serve-restore", out, root)
        assert refused.code == 1 and "has a database already" in refused.err
        (root / "hub.sqlite3").unlink()
        assert learners("serve-restore", out, root).code == 0
        assert files(root / "objects") == before
        with InProcess(root) as hub:
            assert hub.ask("GET", FILE).body == DATA

    def test_damage_is_said_and_the_rest_copied(
        self, root: Path, out: Path, tmp_path: Path
    ) -> None:
        made(root)
        (root / "objects" / SHA256[:2] / SHA256).write_bytes(b"rotten")
        backed = learners("serve-backup", root, out)
        assert backed.code == 1 and f"{SHA256} is damaged" in backed.out
        assert len(files(out / "objects")) == 2
        restored = learners("serve-restore", out, tmp_path / "new")
        assert restored.code == 1 and f"{SHA256} is missing" in restored.out
        with InProcess(tmp_path / "new") as hub:
            assert hub.ask("GET", "/team/mini/resolve/main/a.txt").body == b"small"

    def test_a_backup_that_rotted(self, root: Path, out: Path, tmp_path: Path) -> None:
        made(root)
        learners("serve-backup", root, out)
        copy = out / "objects" / SHA256[:2] / SHA256
        copy.write_bytes(DATA[::-1])
        restored = learners("serve-restore", out, tmp_path / "new")
        assert restored.code == 1 and f"{SHA256} is damaged" in restored.out
        assert learners("serve-backup", root, out, "--verify", "--json").json["copied"] == 1
        assert copy.read_bytes() == DATA

    def test_what_is_not_a_backup(self, root: Path, tmp_path: Path) -> None:
        made(root)
        result = learners("serve-restore", root, tmp_path / "new")
        assert result.code == 1 and "is not a backup" in result.err
        result = learners("serve-backup", tmp_path / "nothing", tmp_path / "out")
        assert result.code == 1 and "holds no Hub" in result.err


@pytest.fixture
def format_1(root: Path) -> Iterator[Path]:
    """A root as the version of 21 November 2026 made it: see tests/server/format1.sql."""
    root.mkdir()
    script = Path(__file__).with_name("format1.sql").read_text()
    with closing(sqlite3.connect(root / "hub.sqlite3")) as connection:
        connection.executescript(script)
    card = b"---\ntags: [old]\n---\n"
    for data in (b"one", b"two", card, uploads.GIT_ATTRIBUTES, DATA):
        sha256 = hashlib.sha256(data).hexdigest()
        (root / "objects" / sha256[:2]).mkdir(parents=True, exist_ok=True)
        (root / "objects" / sha256[:2] / sha256).write_bytes(data)
    yield root


class TestAnOlderFormat:
    def test_it_reads_as_it_did(self, format_1: Path) -> None:
        token = "sl_a-token-of-format-1"
        with InProcess(format_1) as hub:
            head = hub.ask("GET", "/api/models/team/mini").json()
            assert head["sha"] == "3495215b68b26664447549ca8fec2897a571644d"
            assert {row["rfilename"] for row in head["siblings"]} == {
                *(".gitattributes", "README.md", "c.txt", "w.bin")
            }
            assert head["tags"] == ["old"]
            assert hub.ask("GET", "/team/mini/resolve/v1.0/a/b.txt").body == b"one"
            assert hub.ask("GET", FILE).body == DATA
            assert hub.commit(token, {"d.txt": b"new"}).status == 200
            commits = hub.ask("GET", "/api/models/team/mini/commits/main").json()
            assert len(commits) == 4
            database = hub.app.state.hub.database
            (size,) = database.row("SELECT bytes FROM repositories")
            assert size == 1365 + 20 + 3 + 3 + len(DATA) + 3
            made = hub.ask("POST", "/api/repos/create", CREATE | {"name": "next"}, token)
            assert made.status == 200
            assert database.row("SELECT id FROM repositories WHERE name = 'next'")[0] == 4
        assert learners("serve-check", format_1).code == 0
        with InProcess(format_1) as hub:
            assert hub.ask("GET", "/team/mini/resolve/main/d.txt").body == b"new"

    def test_what_it_was_stays_beside_it(self, format_1: Path) -> None:
        Database(format_1 / "hub.sqlite3").close()
        kept = format_1 / "hub.sqlite3.format1"
        assert kept.stat().st_mode & 0o077 == 0
        with closing(sqlite3.connect(kept)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
            assert connection.execute("SELECT count(*) FROM grants").fetchone()[0] == 5
