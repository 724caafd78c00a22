"""Documents and tokens a second of `learners score --out FOLDER/`, by workers and corpus size.

    python benchmarks/scale.py --corpus FOLDER

FOLDER holds books/*.txt, or books.tar.xz. Six paragraphs are a document; documents go into 8
compressed shards (.jsonl.gz) of three sizes, and those of the middle size also into 64. Each run is
a process of its own, measured from its start to its end: seconds of the clock, CPU seconds of all
its processes, and the most memory that one of them had. "reading" reads the same rows, by the same
workers, and writes the same sidecars without a learner. What a run of one document takes is the
cost of starting. The fastest of the rounds is reported.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common import RESULTS, table, write_result

from secondary_learners.text.corpus import Source, read_documents

SHARDS, MANY = 8, 64
SIZES = (1, 4, 16)  # million characters
LEARNER = "books-mini"
READER = Path(__file__).with_name("scale_reading.py")


def write_pool(folder: Path, texts: Iterator[str], characters: int, shards: int) -> dict[str, int]:
    """Shards of documents with so many characters together."""
    rows, size = [], 0
    for number, text in enumerate(texts):
        if size >= characters:
            break
        rows.append(json.dumps({"text": text, "id": f"d{number}"}) + "\n")
        size += len(text)
    folder.mkdir()
    for shard in range(shards):
        data = "".join(rows[shard::shards]).encode()
        (folder / f"part-{shard:02}.jsonl.gz").write_bytes(gzip.compress(data, mtime=0))
    return {"documents": len(rows), "characters": size}


def documents(corpus: Path | None) -> list[str]:
    """Six paragraphs each, shuffled."""
    source = (
        Source("books", files="books/*.txt", archive="books.tar.xz", block_characters=1500)
        if corpus
        else Source("books", builtin="python-docstrings", block_characters=1500)
    )
    texts = [one.text for one in read_documents((source,), corpus, clean=str)]
    random.Random(0).shuffle(texts)
    return texts


def measured(command: Sequence[str], out: Path) -> dict[str, float]:
    """Of one process with its workers, which writes into `out`."""
    shutil.rmtree(out, ignore_errors=True)
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return {
        "seconds": round(time.monotonic() - begun, 3),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "megabytes": round(usage.ru_maxrss / 1024, 1),
    }


def tokens_of(out: Path) -> int:
    return int(json.loads((out / "run.json").read_bytes())["tokens"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, help="without it, text that ships with Python")
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for scale.json")
    options = parser.parse_args(arguments)
    sizes = [0.02] if options.quick else list(SIZES)
    texts = documents(options.corpus)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pools: dict[str, dict[str, Any]] = {}
        for name, size, shards in (
            ("one document", 0, 1),
            *((f"{size:g} M characters", size, SHARDS) for size in sizes),
            *((f"{size:g} M characters, {MANY} shards", size, MANY) for size in sizes[1:2]),
        ):
            pool = folder / str(len(pools))
            pools[name] = write_pool(pool, iter(texts), max(1, int(size * 1e6)), shards)
            pools[name] |= {"shards": shards, "pool": str(pool)}
        rows = []
        workers = (1,) if options.quick else (1, 2)
        for name, pool_facts in pools.items():
            for count in workers:
                for kind in ("scoring", "reading"):
                    rows.append(row(name, pool_facts, kind, count, folder, options.quick))
        for facts in pools.values():
            del facts["pool"]
    show(rows)
    data = {"books": options.corpus} if options.corpus else {}
    write_result(
        options.out / "scale.json",
        {"learner": LEARNER, "corpora": pools, "runs": rows},
        seeds=(0,),
        data={name: path / "books.tar.xz" for name, path in data.items()},
    )


def row(
    name: str, pool: dict[str, Any], kind: str, workers: int, folder: Path, quick: bool
) -> dict[str, Any]:
    """The fastest of the rounds, with rates."""
    out = folder / "out"
    if kind == "reading":
        command = [sys.executable, str(READER), pool["pool"], str(out), str(workers)]
    else:
        options = ["-l", LEARNER, "--out", f"{out}/", "--workers", str(workers), "--quiet"]
        command = [sys.executable, "-m", "secondary_learners", "score", pool["pool"], *options]
    runs = [measured(command, out) for _ in range(1 if quick else 2)]
    best = min(runs, key=lambda one: one["seconds"])
    if kind == "scoring":
        pool["tokens"] = tokens_of(out)
    return {"corpus": name, "what": kind, "workers": workers, **best} | {
        "documents_a_second": round(pool["documents"] / best["seconds"]),
        "tokens_a_second": round(pool["tokens"] / best["seconds"]),
        "tokens_a_cpu_second": round(pool["tokens"] / best["cpu_seconds"]),
    }


def show(rows: Sequence[dict[str, Any]]) -> None:
    names = list(rows[0])
    print(table([name.replace("_", " ") for name in names], [list(one.values()) for one in rows]))


if __name__ == "__main__":
    main()
