"""Two processes on one machine, started without anything that watches over them."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from torch.distributed import TCPStore


def launch_two(script: str, *arguments: object, timeout: float = 180) -> list[tuple[int, str]]:
    """Exit codes and messages of two processes that run `script` with `arguments`.

    They meet where this process listens: a port that was free a moment ago may be taken again.
    """
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        **os.environ,
        "PYTHONPATH": ":".join(sys.path),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(meeting.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # as torchrun tells the processes it starts
    }
    command = [sys.executable, "-c", script, *map(str, arguments)]
    both = [
        subprocess.Popen(
            command,
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:  # a deadlock would show here
        messages = [process.communicate(timeout=timeout)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    return [(process.returncode, text) for process, text in zip(both, messages, strict=True)]
