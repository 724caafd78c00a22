"""`learners serve` killed at random moments, and left to run: is anything lost, does anything grow?

    python benchmarks/serve_faults.py [--kills 500] [--soak 3600] [--seed 0] [--out FOLDER]

A client uploads, commits and deletes without pause; beside it run `serve-gc` and `serve-backup`.
Server, gc and backup are killed with SIGKILL after a random time, again and again. At the end every
file that was acknowledged must be there, byte for byte, `serve-check` must find nothing lost or
damaged, and every backup that was finished must restore whole. Then, without kills, bursts of
requests: open files, memory and log of the server must not grow.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import RESULTS, table, write_result
from serve import resident

from secondary_learners.server.store.tokens import create_token

LARGE = 400_000
COMMAND = [sys.executable, "-m", "secondary_learners"]


@dataclass
class Acknowledged:
    """What the server has answered to. `files`: number of each file that must be there."""

    files: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)


class Client:
    """Commits and deletes until it is cut off, over HTTP without retries."""

    def __init__(self, host: str, token: str, state: Acknowledged, chance: random.Random) -> None:
        self._host, self._token, self._state, self._chance = host, token, state, chance
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while True:
                if self._state.files and self._chance.random() < 0.25:
                    self._delete(self._chance.choice(sorted(self._state.files)))
                else:
                    self._commit(max(self._state.files | self._state.unsure, default=0) + 1)
        except (OSError, http.client.HTTPException):
            pass

    def _commit(self, number: int) -> None:
        data = large(number)
        sha256 = hashlib.sha256(data).hexdigest()
        self._state.unsure.add(number)
        objects = {"operation": "upload", "objects": [{"oid": sha256, "size": len(data)}]}
        batch = self._send("POST", "/team/r.git/info/lfs/objects/batch", json.dumps(objects))
        actions = batch["objects"][0].get("actions")
        if actions:
            self._send("PUT", actions["upload"]["href"].split(self._host, 1)[1], data)
            self._state.done["uploads"] += 1
        small = base64.b64encode(str(number).encode()).decode()
        self._operations(
            {"key": "lfsFile", "value": {"path": f"{number}.bin", "oid": sha256}},
            {"key": "file", "value": {"path": f"{number}.txt", "content": small}
             | {"encoding": "base64"}},
        )  # fmt: skip
        self._state.unsure.discard(number)
        self._state.files.add(number)
        self._state.done["commits"] += 1

    def _delete(self, number: int) -> None:
        self._state.files.discard(number)
        self._state.unsure.add(number)
        self._operations(
            *(
                {"key": "deletedFile", "value": {"path": f"{number}.{end}"}}
                for end in ("bin", "txt")
            )
        )
        self._state.unsure.discard(number)
        self._state.done["deletes"] += 1

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
            self._state.done[f"answers {answer.status}"] += 1
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
    state, chance = Acknowledged(), random.Random(seed)
    for number in range(count):
        server = start(root, log)
        if number == 0:
            request(server.host, "POST", "/api/repos/create", token, {"name": "r"} | TEAM)
        commands = (
            ("serve-gc", str(root), "--grace-hours", "0.002"),
            ("serve-backup", str(root), str(backup)),
        )
        none = subprocess.DEVNULL
        others = [
            subprocess.Popen([*COMMAND, *command], stdout=none, stderr=none, text=True)
            for command in commands
        ]
        client = Client(server.host, token, state, chance)
        client.thread.start()
        time.sleep(chance.uniform(0.05, 2.0))
        for process in (server.process, *others):
            process.kill()
            process.wait()
        client.thread.join(60)
    return {"kills": count, **verdict(root, backup, log, token, state)}


TEAM = {"organization": "team"}


def request(host: str, method: str, path: str, token: str, body: Any = None) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        sent = json.dumps(body) if body is not None else None
        connection.request(method, path, sent, {"authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def verdict(root: Path, backup: Path, log: Path, token: str, state: Acknowledged) -> dict[str, Any]:
    server = start(root, log)
    lost, torn = [], []
    for number in sorted(state.files):
        for end, data in (("bin", large(number)), ("txt", str(number).encode())):
            path = f"/team/r/resolve/main/{number}.{end}"
            status, body = request(server.host, "GET", path, token)
            if status != 200:
                lost.append(path)
            elif body != data:
                torn.append(path)
    server.process.terminate()
    server.process.wait()
    check = json.loads(learners("serve-check", str(root), "--json"))
    kinds = Counter(problem["kind"] for problem in check["problems"])
    snapshots = sorted((backup / "databases").glob("2*.sqlite3"))
    whole = 0
    for snapshot in snapshots[:: max(1, len(snapshots) // 10)]:
        with tempfile.TemporaryDirectory() as name:
            there = Path(name) / "restored"
            learners("serve-restore", str(backup), str(there), "--database", snapshot.stem)
            whole += json.loads(learners("serve-check", str(there), "--json"))["lost"] == 0
    tried = len(snapshots[:: max(1, len(snapshots) // 10)])
    return {
        "acknowledged_files": 2 * len(state.files),
        "lost": len(lost),
        "torn": len(torn),
        "check": dict(kinds) | {"lost": check["lost"]},
        "backups": {"finished": len(snapshots), "restored": tried, "whole": whole},
        "done": dict(state.done),
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
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
