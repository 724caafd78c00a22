"""Users' machines: commands and Python in processes of their own, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server_helpers import Server

__all__ = ["Machine"]


@dataclass(frozen=True)
class Machine:
    """A user's machine: its own caches and settings, its own token."""

    home: Path
    server: Server
    token: str | None
    xet: bool = True

    def run(self, *arguments: object, offline: bool = False) -> subprocess.CompletedProcess[str]:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("HF_", "SECON"))
        }
        environment |= {
            "HF_HOME": str(self.home / "hf"),
            "HF_ENDPOINT": self.server.url,
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_HUB_DISABLE_XET": "0" if self.xet else "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1",
            "SECONDARY_LEARNERS_HOME": str(self.home / "ours"),
        }
        if self.token is not None:
            environment["HF_TOKEN"] = self.token
        self.home.mkdir(exist_ok=True)
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, env=environment, cwd=self.home, capture_output=True, text=True
        )

    def learners(self, *arguments: object) -> Any:
        """What `learners ARGUMENTS --json` answers."""
        done = self.run("-m", "secondary_learners", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def python(self, code: str, *arguments: object, offline: bool = False) -> str:
        done = self.run("-c", code, *arguments, offline=offline)
        assert done.returncode == 0, done.stderr
        return done.stdout
