"""What a server writes to its log: when it was, and a repeated failure once a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Repeats", "server_log"]

_EVERY_S = 60.0
_REMEMBERED = 1000


class Repeats(logging.Filter):
    """Lets a message through once a minute, with the number of those it held back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = _what(record), self._clock()
        last = self._last.get(key)
        if last is not None and now - last[0] < _EVERY_S:
            self._last[key] = (last[0], last[1] + 1)
            return False
        if len(self._last) >= _REMEMBERED:
            self._last.clear()
        self._last[key] = (now, 0)
        if last is not None and last[1]:
            record.msg = f"{record.getMessage().rstrip()} ({last[1]:,} more of this since)"
            record.args = ()
        return True


def _what(record: logging.LogRecord) -> object:
    """The same for two records of one failure: an exception is known by where it was raised."""
    if record.exc_info and record.exc_info[1] is not None:
        kind, _, trace = record.exc_info
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = None if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        return record.name, kind, place
    return record.name, record.levelno, record.getMessage()


@contextmanager
def server_log() -> Iterator[None]:
    """While the block runs, everything that is logged in this process is written so."""
    handlers, repeats = list(logging.getLogger().handlers), Repeats()
    formatters = [handler.formatter for handler in handlers]
    for handler in handlers:
        handler.addFilter(repeats)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    try:
        yield
    finally:
        for handler, formatter in zip(handlers, formatters, strict=True):
            handler.removeFilter(repeats)
            handler.setFormatter(formatter)
