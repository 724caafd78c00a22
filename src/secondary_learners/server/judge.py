"""Scores of texts, from a process beside the server: it loads what was uploaded, this one never."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondary_learners.server.errors import Refused

__all__ = ["Explained", "Judge", "Material", "NotScored"]

_DEADLINE_S = 60.0  # the first answer waits for torch
_IDLE_S = 300.0
_WAITING = 8


@dataclass(frozen=True)
class Material:
    """The files of a learner: where each lies, and its sha256."""

    files: Mapping[str, Path]
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Explained:
    """A text's score, and its tokens, each with what it adds to the score."""

    score: float
    tokens: Sequence[tuple[str, float]]


class NotScored(Exception):
    """Why a learner cannot score here."""


class Judge:
    """One process for all: started when it is asked, ended when it was not for a while.

    `command`: what runs it (see `engines/answering.py` for what is written to it). It never asks
    another machine for anything.
    """

    def __init__(self, command: Sequence[str], deadline_s: float = _DEADLINE_S) -> None:
        self._command, self._deadline_s = tuple(command), deadline_s
        self._process: subprocess.Popen[str] | None = None
        self._turn, self._places = threading.Lock(), threading.Semaphore(_WAITING)
        self._idle: threading.Timer | None = None
        self._closed = False

    def explain(self, material: Material, texts: Sequence[str]) -> list[Explained | None]:
        """None for a text without a token. Blocks: use a thread.

        Raises NotScored, and Refused 503 when too many wait already.
        """
        if not self._places.acquire(blocking=False):
            raise Refused(503, "Too many texts wait to be scored.", headers={"Retry-After": "10"})
        try:
            with self._turn:
                answer = self._ask(
                    {
                        "files": {name: str(path) for name, path in material.files.items()},
                        "digests": dict(material.digests),
                        "texts": list(texts),
                    }
                )
        finally:
            self._places.release()
        if "error" in answer:
            raise NotScored(str(answer["error"]))
        return [_explained(each) for each in answer["explained"]]

    def close(self) -> None:
        """For good, also in the middle of a text."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()
        self._rest()

    def _rest(self) -> None:
        with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            self._end()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        if self._closed:
            raise NotScored("the server is ending.")
        if self._idle is not None:
            self._idle.cancel()
        process = self._started()
        late = threading.Timer(self._deadline_s, process.kill)
        late.start()
        try:
            assert process.stdin is not None and process.stdout is not None
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(question) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
        finally:
            late.cancel()
        if not line.endswith("\n"):
            self._end()
            return {"error": "it took too long, or more memory than there is."}
        self._idle = threading.Timer(_IDLE_S, self._rest)
        self._idle.daemon = True
        self._idle.start()
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
            environment.pop("HF_TOKEN", None)
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=environment,
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with suppress(BrokenPipeError):
                    stream.close()


def _explained(value: Any) -> Explained | None:
    if value is None:
        return None
    return Explained(value["score"], [(piece, share) for piece, share in value["tokens"]])
