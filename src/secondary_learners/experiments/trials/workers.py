"""Jobs done here, or by processes of their own that end with this one, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from secondary_learners.errors import SecondaryLearnersError, TrialsError
from secondary_learners.experiments.trials.training import Evaluation, Job, Work, train

__all__ = ["do_jobs"]

Next = Callable[[], Job | None]
Event = tuple[Job, Evaluation | None]


def do_jobs(work: Work, processes: int, next_job: Next) -> Generator[Event, None, None]:
    """Do every job that `next_job` gives, `processes` at a time, until it gives none.

    Yields each evaluation of a job, and None at its end. `next_job` may give None while others run,
    and is asked again after each of them.

    Raises what a job raised, and TrialsError for a process that died.
    """
    yield from _do_here(work, next_job) if processes == 1 else _do_apart(work, processes, next_job)


def _do_here(work: Work, next_job: Next) -> Iterator[Event]:
    threads = torch.get_num_threads()
    torch.set_num_threads(work.settings.threads)
    try:
        while (job := next_job()) is not None:
            for evaluation in train(work, job):
                yield job, evaluation
            yield job, None
    finally:
        torch.set_num_threads(threads)


def _do_apart(work: Work, processes: int, next_job: Next) -> Iterator[Event]:
    context = multiprocessing.get_context("spawn")  # forking a process with threads may hang it
    idle: list[Connection] = []
    busy: dict[Connection, Job] = {}
    started: list[BaseProcess] = []
    try:
        while True:
            while (idle or len(started) < processes) and (job := next_job()) is not None:
                if not idle:
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
                    process.start()
                    theirs.close()
                    started.append(process)
                    idle.append(ours)
                connection = idle.pop()
                connection.send(job)
                busy[connection] = job
            if not busy:
                return
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                message = _receive(ready, busy[ready])
                job = busy[ready]
                if message is None:
                    del busy[ready]
                    idle.append(ready)
                yield job, message
    finally:
        for each in started:
            each.terminate()
        for each in started:
            each.join()
        for connection in (*idle, *busy):
            connection.close()


def _receive(connection: Connection, job: Job) -> Evaluation | None:
    try:
        message = connection.recv()
    except (EOFError, ConnectionResetError) as error:
        raise TrialsError(
            f"the process with the trial {job.task}, {job.arm}, seeds {job.init_seed} and "
            f"{job.order_seed} died, perhaps for want of memory. What is finished is kept: run the "
            "same command again, with fewer --processes."
        ) from error
    if isinstance(message, Exception):
        raise message
    assert message is None or isinstance(message, Evaluation)
    return message


def _serve(work: Work, connection: Connection) -> None:
    """Do the jobs that come, and end with the process that sends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other one ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(work.settings.threads)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            for evaluation in train(work, job):
                connection.send(evaluation)
            answer: Any = None
        except SecondaryLearnersError as error:
            answer = error
        except Exception:
            answer = RuntimeError(f"in a trial's process:\n{traceback.format_exc()}")
        connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
