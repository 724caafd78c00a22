"""Shards by the processes of this machine.

datatrove's own local executor is the engine `datatrove`. It is not the default: it needs an extra,
one exception ends all of its tasks, and it says nothing before a task is done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import Empty
from typing import Any

from secondary_learners.engines.work import Report, Result, Work
from secondary_learners.errors import SecondaryLearnersError

__all__ = ["run"]

_PATIENCE = 0.25  # seconds between two looks at what workers report

_reports: Any = None  # of a worker: the queue that its reports go to


def run(work: Work[Result], items: Sequence[Any], workers: int, report: Report) -> Iterator[Result]:
    """The results of `work` on each item, in the order in which they are ready."""
    if workers == 1 or len(items) == 1:
        for item in items:
            yield work(item, report)
        return
    context = get_context("spawn")
    reports = context.Queue()
    watched, held = context.Pipe(duplex=False)  # workers end when `held` is closed, also by a kill
    pool = ProcessPoolExecutor(workers, context, _begin, (reports, watched))
    try:
        waiting = {pool.submit(_one, work, item) for item in items}
        while waiting:
            ready, waiting = wait(waiting, _PATIENCE, FIRST_COMPLETED)
            _pass_on(reports, report)
            for future in ready:
                yield future.result()
    except BrokenProcessPool as error:
        raise SecondaryLearnersError(
            "a worker was killed, as happens where memory is short. Run the same command again, "
            "with fewer --workers: what is done is kept."
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        held.close()


def _begin(reports: Any, watched: Connection) -> None:
    global _reports
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started us ends us
    threading.Thread(target=_end_with, args=(watched,), daemon=True).start()


def _end_with(watched: Connection) -> None:
    """End this process when the one that started it has ended, however."""
    try:
        watched.recv()
    except EOFError:
        os._exit(1)


def _one(work: Work[Result], item: Any) -> Result:
    return work(item, _reports.put)


def _pass_on(reports: Any, report: Report) -> None:
    while True:
        try:
            report(reports.get_nowait())
        except Empty:
            return
