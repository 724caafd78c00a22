"""`learners serve` killed at random moments, and left to run: is anything lost, does anything grow?

    python benchmarks/serve_faults.py [--kills 500] [--soak 3600] [--seed 0] [--out FOLDER]
                                      [--folder KEPT]

A client uploads, commits and deletes without pause; beside it run `serve-gc` and `serve-backup`.
Each of the three is killed with SIGKILL after a random time, again and again; only kills of a
process that was running count. At the end every file that was acknowledged must be there, byte for
byte, `serve-check` must find nothing lost or damaged, and every backup that was finished must
restore whole. Then, without kills, bursts of requests: open files, memory and log of the server
must not grow.

With --folder, hub, backups and a journal of all that was sent and answered stay there, and the same
command goes on where it was broken off.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, table, write_result
from serve import resident

from secondary_learners.server.store.tokens import create_token

LARGE = 400_000
COMMAND = [sys.executable, "-m", "secondary_learners"]


class Journal:
    """What was sent and what was answered, a line for each, written before the next step.

    `files`: the number of each file that must be there; `unsure`: of those that may be.
    """

    def __init__(self, path: Path) -> None:
        self.files: set[int] = set()
        self.unsure: set[int] = set()
        self.counts: Counter[str] = Counter()
        self._file = path.open("a+")
        self._file.seek(0)
        for line in self._file.read().splitlines():
            self._apply(*line.split("\t"))

    def note(self, event: str, detail: str | int = "") -> None:
        self._file.write(f"{event}\t{detail}\n")
        self._file.flush()
        self._apply(event, str(detail))

    def _apply(self, event: str, detail: str) -> None:
        if event in ("adding", "deleting"):
            self.files.discard(int(detail))
            self.unsure.add(int(detail))
        elif event in ("commits", "deletes"):
            self.unsure.discard(int(detail))
            if event == "commits":
                self.files.add(int(detail))
        if event not in ("adding", "deleting"):
            self.counts[event if event != "killed" else f"killed in {detail}"] += 1

    @property
    def kills(self) -> int:
        return sum(n for event, n in self.counts.items() if event.startswith("killed in"))


class Client:
    """Uploads, commits and deletes until it is cut off, over HTTP without retries."""

    def __init__(self, host: str, token: str, journal: Journal, chance: random.Random) -> None:
        self._host, self._token, self._journal, self._chance = host, token, journal, chance
        self.doing = "a pause"
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while True:
                known = self._journal.files
                drawn = self._chance.random()
                if known and drawn < 0.25:
                    self._delete(self._chance.choice(sorted(known)))
                elif drawn < 0.35:
                    self._upload(self._chance.randbytes(LARGE))  # no commit names it: gc drops it
                else:
                    self._commit(max(known | self._journal.unsure, default=0) + 1)
        except (OSError, http.client.HTTPException):
            pass

    def _upload(self, data: bytes) -> str:
        self.doing = "an upload"
        sha256 = hashlib.sha256(data).hexdigest()
        objects = {"operation": "upload", "objects": [{"oid": sha256, "size": len(data)}]}
        batch = self._send("POST", "/team/r.git/info/lfs/objects/batch", json.dumps(objects))
        actions = batch["objects"][0].get("actions")
        if actions:
            self._send("PUT", actions["upload"]["href"].split(self._host, 1)[1], data)
            self._journal.note("uploads")
        return sha256

    def _commit(self, number: int) -> None:
        self._journal.note("adding", number)
        sha256 = self._upload(large(number))
        small = base64.b64encode(str(number).encode()).decode()
        self.doing = "a commit"
        self._operations(
            {"key": "lfsFile", "value": {"path": f"{number}.bin", "oid": sha256}},
            {"key": "file", "value": {"path": f"{number}.txt", "content": small}
             | {"encoding": "base64"}},
        )  # fmt: skip
        self._journal.note("commits", number)

    def _delete(self, number: int) -> None:
        self._journal.note("deleting", number)
        self.doing = "a delete"
        self._operations(
            *(
                {"key": "deletedFile", "value": {"path": f"{number}.{end}"}}
                for end in ("bin", "txt")
            )
        )
        self._journal.note("deletes", number)

    def _operations(self, *lines: dict[str, Any]) -> None:
        header = {"key": "header", "value": {"summary": "s"}}
        body = "".join(json.dumps(line) + "\n" for line in (header, *lines))
        self._send("POST", "/api/models/team/r/commit/main", body)

    def _send(self, method: str, path: str, body: str | bytes) -> Any:
        with closing(http.client.HTTPConnection(self._host, timeout=30)) as connection:
            headers = {"authorization": f"Bearer {self._token}"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        if answer.status != 200:
            self._journal.note(f"answers {answer.status}")
            raise http.client.HTTPException(data)
        return json.loads(data) if data else None


def large(number: int) -> bytes:
    return random.Random(number).randbytes(LARGE)


@dataclass(frozen=True)
class Running:
    """A server that accepts connections."""

    process: subprocess.Popen[str]
    host: str


def start(root: Path, log: Path) -> Running:
    with log.open("a") as errors:
        process = subprocess.Popen(
            [*COMMAND, "serve", str(root), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "http://" in line, f"the server did not start: {log.read_text()[-2000:]}"
    return Running(process, line.rsplit("http://", 1)[1].strip())


def kills(root: Path, backup: Path, log: Path, count: int, seed: int) -> dict[str, Any]:
    token = create_token(root, "ann", "write", ["team"])
    journal = Journal(root.parent / "journal")
    chance = random.Random(f"{seed} {journal.kills}")
    commands = {
        "gc": ("serve-gc", str(root), "--grace-hours", "0.002"),
        "backup": ("serve-backup", str(root), str(backup)),
    }
    while journal.kills < count:
        server = start(root, log)
        request(server.host, "POST", "/api/repos/create", token, {"name": "r"} | TEAM)
        client = Client(server.host, token, journal, chance)
        client.thread.start()
        beside = [
            threading.Thread(target=killed, args=(command, name, journal, chance.uniform(0.1, 3.0)))
            for name, command in commands.items()
        ]
        for thread in beside:
            thread.start()
        time.sleep(chance.uniform(0.05, 2.0))
        doing = client.doing
        server.process.kill()
        server.process.wait()
        journal.note("killed", doing)
        for thread in (client.thread, *beside):
            thread.join(60)
    return {"kills": journal.kills, **verdict(root, backup, log, token, journal)}


def killed(command: Sequence[str], name: str, journal: Journal, after: float) -> None:
    """Run it, and kill it after so many seconds if it has not ended."""
    none = subprocess.DEVNULL
    process = subprocess.Popen([*COMMAND, *command], stdout=none, stderr=none)
    try:
        process.wait(after)
        journal.note(f"{name} ended")
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        journal.note("killed", name)


TEAM = {"organization": "team"}


def request(host: str, method: str, path: str, token: str, body: Any = None) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        sent = json.dumps(body) if body is not None else None
        connection.request(method, path, sent, {"authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def verdict(root: Path, backup: Path, log: Path, token: str, journal: Journal) -> dict[str, Any]:
    server = start(root, log)
    lost, torn = [], []
    for number in sorted(journal.files | journal.unsure):
        for end, data in (("bin", large(number)), ("txt", str(number).encode())):
            path = f"/team/r/resolve/main/{number}.{end}"
            status, body = request(server.host, "GET", path, token)
            if status == 200 and body != data:
                torn.append(path)
            elif status != 200 and number in journal.files:
                lost.append(path)
    server.process.terminate()
    server.process.wait()
    check = json.loads(learners("serve-check", str(root), "--json"))
    kinds = Counter(problem["kind"] for problem in check["problems"])
    snapshots = sorted((backup / "databases").glob("2*.sqlite3"))
    tried = snapshots[:: max(1, len(snapshots) // 10)]
    whole = 0
    for snapshot in tried:
        with tempfile.TemporaryDirectory() as name:
            there = Path(name) / "restored"
            learners("serve-restore", str(backup), str(there), "--database", snapshot.stem)
            whole += json.loads(learners("serve-check", str(there), "--json"))["lost"] == 0
    return {
        "acknowledged_files": 2 * len(journal.files),
        "lost": len(lost),
        "torn": len(torn),
        "check": dict(kinds) | {"lost": check["lost"]},
        "backups": {"finished": len(snapshots), "restored": len(tried), "whole": whole},
        "done": dict(sorted(journal.counts.items())),
    }


def learners(*arguments: str) -> str:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True).stdout


def soak(root: Path, log: Path, seconds: float) -> dict[str, Any]:
    token = create_token(root, "eve", "read")
    server = start(root, log)
    pid, samples = server.process.pid, []
    paths = ["/api/models/team/r/tree/main?recursive=1", "/", "/team/r", "/api/models", "/%00/x"]

    def one(number: int) -> int:
        try:
            return request(server.host, "GET", paths[number % len(paths)], token)[0]
        except OSError:
            return 0

    statuses: Counter[int] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with ThreadPoolExecutor(60) as pool:
            statuses.update(pool.map(one, range(300)))
        time.sleep(min(11.0, seconds / 10))
        files = len(os.listdir(f"/proc/{pid}/fd"))
        samples.append((files, resident(pid), log.stat().st_size))
    server.process.terminate()
    server.process.wait()
    names = ("open_files", "memory_mb", "log_bytes")
    figures = {
        name: {"first": values[0], "most": max(values), "last": values[-1]}
        for name, values in zip(names, zip(*samples, strict=True), strict=True)
    }
    return {"seconds": seconds, "bursts": len(samples), "answers": dict(statuses), **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--soak", type=float, default=3600, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--folder", type=Path, help="keep hub and journal here, and go on from it")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        root, log = folder / "hub", folder / "log"
        log.touch()
        killed = kills(root, folder / "backup", log, options.kills, options.seed)
        print(json.dumps(killed, indent=1))
        soaked = soak(root, log, options.soak) if options.soak else {}
        if soaked:
            rows = [
                (key, value["first"], value["most"], value["last"])
                for key, value in soaked.items()
                if isinstance(value, dict) and "most" in value
            ]
            print(table(("", "first", "most", "last"), rows))
    write_result(
        options.out / "serve_faults.json",
        {"kills": killed, "soak": soaked},
        seeds=[options.seed],
    )


if __name__ == "__main__":
    main()
