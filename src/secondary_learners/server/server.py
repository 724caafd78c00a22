"""Running the server: one process for one storage root, until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from secondary_learners.server.app import create_app
from secondary_learners.server.protocol import BoundedProtocol
from secondary_learners.server.store.alone import alone
from secondary_learners.server.store.database import make_root
from secondary_learners.server.store.limits import Limits
from secondary_learners.server.store.xorbs import drop_old_xorbs
from secondary_learners.server.upkeep import Upkeep

__all__ = ["is_loopback", "serve"]


def serve(root: Path, host: str, port: int, limits: Limits, say: Callable[[str], None]) -> None:
    """Serve the Hub in `root`, which is made if need be, until SIGINT or SIGTERM.

    `port` 0 takes a free one. `say` hears one line when connections are accepted. Raises
    SecondaryLearnersError when another process serves `root`, OSError when the port is taken.
    """
    make_root(root)
    with alone(root), _listening(host, port) as listener:
        app = create_app(root, limits)
        app.state.hub.objects.empty_incoming()
        drop_old_xorbs(root)
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=30,
        )
        shown = f"[{host}]" if ":" in host else host
        server = uvicorn.Server(config)
        upkeep = Upkeep(app.state.hub)
        with _stopping(server):
            upkeep.start()
            say(f"Serving {root} on http://{shown}:{listener.getsockname()[1]}")
            server.run(sockets=[listener])
        upkeep.stop()
        app.state.hub.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _stopping(server: uvicorn.Server) -> Iterator[None]:
    """SIGINT and SIGTERM end the server, not the process.

    uvicorn finishes what is under way, then sends itself the signal again: these handlers get it.
    """

    def stop(number: int, frame: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that accepts from now on: what comes before the loop runs waits in its queue."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol spelt out asyncio sends small answers at once, not after 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        if os.name != "nt":  # there, it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
        yield listener
