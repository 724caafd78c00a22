"""`learners serve` under load, against nginx serving the same files in the same run.

    python benchmarks/serve.py [--quick] [--out FOLDER]

Needs nginx and wrk on the machine. Downloads go through the Hub's own address of a file
(/OWNER/NAME/resolve/main/PATH), which looks up the repository, the revision and the right to read;
nginx serves the bare file, so its figures are the ceiling. Then a file of 300 MB is published with
the real client, with Xet left on and without, and downloaded again. Memory is the server's own.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from common import RESULTS, table, write_result

from secondary_learners.server.store.tokens import create_token

FILES = {"small.json": 2_000, "learner.safetensors": 8_000_000}
UPLOAD = """
import sys
from huggingface_hub import HfApi
endpoint, token, repository, path = sys.argv[1:]
api = HfApi(endpoint=endpoint, token=token)
api.create_repo(repository, exist_ok=True)
api.upload_file(path_or_fileobj=path, path_in_repo="large.safetensors", repo_id=repository)
"""
DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
endpoint, token, repository, folder = sys.argv[1:]
hf_hub_download(repository, "large.safetensors", endpoint=endpoint, token=token, cache_dir=folder)
"""


@dataclass(frozen=True)
class Size:
    """How much is measured. seconds: of each run of wrk; large: bytes of the published file."""

    seconds: int = 4
    rounds: int = 3
    clients: tuple[int, ...] = (1, 8, 32)
    large: int = 300_000_000


@dataclass(frozen=True)
class Load:
    """What wrk saw; `failed` counts answers that were not 2xx and broken connections."""

    per_second: float
    megabytes_per_second: float
    failed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a second of each, for the tests")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args()
    size = Size(1, 1, (2,), 20_000_000) if options.quick else Size()
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    missing = [tool for tool in ("nginx", "wrk") if shutil.which(tool) is None]
    if missing:
        sys.exit(
            f"this benchmark needs {' and '.join(missing)}. Try `apt install nginx-light wrk`."
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        token = create_token(folder / "hub", "team", "write", ())
        with server(folder / "hub") as (url, process), nginx(folder) as plain:
            upload_small(folder, url, token)
            downloads = measure_downloads(size, url, plain, process.pid)
            publishing = measure_publishing(size, folder, url, token, process.pid)
    write_result(options.out / "serve.json", {"downloads": downloads, "publishing": publishing})


def measure_downloads(size: Size, url: str, plain: str, pid: int) -> dict[str, object]:
    """Requests and megabytes a second for each file and number of clients, ours and nginx's."""
    before, peak = resident(pid), Peak(pid)
    figures, rows = {}, []
    with peak:
        for file in FILES:
            for clients in size.clients:
                addresses = {
                    "nginx": f"{plain}/{file}",
                    "serve": f"{url}/team/files/resolve/main/{file}",
                }
                loads = {name: best_of(size, url, clients) for name, url in addresses.items()}
                ours, theirs = loads["serve"], loads["nginx"]
                figures[f"{file}, {clients} clients"] = {k: asdict(v) for k, v in loads.items()} | {
                    "share_of_nginx": round(ours.per_second / theirs.per_second, 4)
                }
                rows.append(
                    (
                        f"{file}, {clients}",
                        ours.per_second,
                        theirs.per_second,
                        ours.megabytes_per_second,
                        theirs.megabytes_per_second,
                        ours.per_second / theirs.per_second,
                    )
                )
    header = ("file, clients", "/s", "nginx /s", "MB/s", "nginx MB/s", "share")
    print(table(header, rows))
    memory = {"before_mb": before, "peak_mb": peak.megabytes}
    print(f"memory of the server: {before:.0f} MB before, at most {peak.megabytes:.0f} MB\n")
    return {"size": asdict(size), "figures": figures, "memory": memory}


def best_of(size: Size, url: str, clients: int) -> Load:
    return max(
        (wrk(url, clients, size.seconds) for _ in range(size.rounds)),
        key=lambda load: load.per_second,
    )


def wrk(url: str, clients: int, seconds: int) -> Load:
    threads = min(clients, 2)
    command = ["wrk", "-t", str(threads), "-c", str(clients), "-d", f"{seconds}s", url]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    per_second = re.search(r"Requests/sec:\s+([\d.]+)", out)
    transfer = re.search(r"Transfer/sec:\s+([\d.]+)(KB|MB|GB)", out)
    assert per_second is not None and transfer is not None, out
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, broken.groups())) if broken else 0
    unit = {"KB": 1024, "MB": 1024**2, "GB": 1024**3}[transfer[2]]
    return Load(float(per_second[1]), round(float(transfer[1]) * unit / 1e6, 2), failed)


def measure_publishing(
    size: Size, folder: Path, url: str, token: str, pid: int
) -> dict[str, object]:
    """Seconds and memory while a file of random bytes goes up and comes down again."""
    path = folder / "large.safetensors"
    with path.open("wb") as file:
        for _ in range(size.large // 1_000_000):
            file.write(os.urandom(1_000_000))
    figures: dict[str, object] = {}
    for name, disabled in (("xet", "0"), ("lfs", "1")):
        environment = os.environ | {
            "HF_HUB_DISABLE_XET": disabled,
            "HF_HOME": str(folder / f"home-{name}"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        before, peak, repository = resident(pid), Peak(pid), f"team/large-{name}"
        arguments = [url, token, repository]
        with peak:
            up = timed([sys.executable, "-c", UPLOAD, *arguments, str(path)], environment)
            down = timed(
                [sys.executable, "-c", DOWNLOAD, *arguments, str(folder / f"down-{name}")],
                environment,
            )
        found = next((folder / f"down-{name}").rglob("large.safetensors"))
        assert found.resolve().stat().st_size == size.large
        figures[name] = {
            "megabytes": size.large / 1e6,
            "upload_seconds": round(up, 2),
            "download_seconds": round(down, 2),
            "memory": {"before_mb": before, "peak_mb": peak.megabytes},
        }
        print(
            f"{size.large / 1e6:.0f} MB, {name}: up {up:.1f} s, down {down:.1f} s, "
            f"memory {before:.0f} MB before, at most {peak.megabytes:.0f} MB"
        )
    return figures


def timed(command: list[str], environment: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, env=environment)
    return time.perf_counter() - begun


def upload_small(folder: Path, url: str, token: str) -> None:
    from huggingface_hub import CommitOperationAdd, HfApi

    (folder / "www").mkdir()
    for name, size in FILES.items():
        data = os.urandom(size // 2)
        text = name.endswith(".json")
        (folder / "www" / name).write_bytes(data.hex().encode() if text else data * 2)
    api = HfApi(endpoint=url, token=token)
    api.create_repo("team/files")
    api.create_commit(
        "team/files",
        [CommitOperationAdd(name, str(folder / "www" / name)) for name in FILES],
        commit_message="files",
    )


@contextmanager
def server(root: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "secondary_learners", "serve", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
        assert found is not None
        try:
            yield found[0], process
        finally:
            process.terminate()


@contextmanager
def nginx(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
        events {{ worker_connections 512; }}
        http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
          server {{ listen 127.0.0.1:{port}; root {folder}/www; }} }}"""
    )
    with subprocess.Popen(["nginx", "-c", str(configuration), "-p", str(folder)]) as process:
        time.sleep(1)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def resident(pid: int) -> float:
    """Resident memory of a process in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return round(int(found[1]) * 1024 / 1e6, 1) if found else 0.0


class Peak:
    """The most resident memory of a process while the block runs, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self.pid, self.megabytes, self._stop = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.megabytes = max(self.megabytes, resident(self.pid))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


if __name__ == "__main__":
    main()
