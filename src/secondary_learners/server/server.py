"""Running the server: one process for one storage root, until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from secondary_learners.server.app import Front, close_app, create_app
from secondary_learners.server.hosts import is_loopback
from secondary_learners.server.logs import server_log
from secondary_learners.server.protocol import BoundedProtocol, WatchedServer
from secondary_learners.server.quick import Quick
from secondary_learners.server.store.alone import alone
from secondary_learners.server.store.database import make_root
from secondary_learners.server.store.limits import Limits
from secondary_learners.server.store.xorbs import drop_old_xorbs
from secondary_learners.server.upkeep import Upkeep

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Address", "Service", "serve"]

_FILES_WANTED = 4096
_FILES_BESIDE = 100  # two for each of 40 threads' connections to the database, and the rest


@dataclass(frozen=True)
class Address:
    """Where the server listens. `port` 0 takes a free one.

    `names`: further names it answers to. On loopback it answers to no other; elsewhere to any name
    when there are none.
    """

    host: str
    port: int
    names: tuple[str, ...] = ()

    @property
    def known_names(self) -> tuple[str, ...] | None:
        """What may stand in a request's Host header, or None for anything."""
        if not self.names and not is_loopback(self.host):
            return None
        return (self.host, *self.names)


@dataclass(frozen=True)
class Service:
    """How it is served: where, within which limits, and what is written down."""

    address: Address
    limits: Limits
    requests_per_minute: int | None = None
    access_log: Path | None = None
    upstream: str | None = None
    scorer: tuple[str, ...] | None = None

    @property
    def front(self) -> Front:
        return Front(
            self.address.known_names,
            self.requests_per_minute,
            self.access_log,
            self.upstream,
            self.scorer,
        )


def serve(root: Path, service: Service, say: Callable[[str], None]) -> None:
    """Serve the Hub in `root`, which is made if need be, until SIGINT or SIGTERM.

    `say` hears one line when connections are accepted. Raises
    SecondaryLearnersError when another process serves `root`, OSError when the port is taken.
    """
    address = service.address
    make_root(root)
    with alone(root), _listening(address) as listener, server_log():
        app = create_app(root, service.limits, service.front)
        app.state.hub.objects.empty_incoming()
        drop_old_xorbs(root)
        config = uvicorn.Config(
            app,
            http=_protocol(app.state.quick),
            log_config=None,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=30,
        )
        shown = f"[{address.host}]" if ":" in address.host else address.host
        server = WatchedServer(config)
        upkeep = Upkeep(app.state.hub, app.state.catalogue.refresh)
        with _stopping(server):
            upkeep.start()
            say(f"Serving {root} on http://{shown}:{listener.getsockname()[1]}")
            server.run(sockets=[listener])
        upkeep.stop()
        close_app(app)


def _protocol(quick: Quick) -> type[BoundedProtocol]:
    """With as many connections as there are files to open; more are allowed where they may be."""
    most = BoundedProtocol.most_connections
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = min(_FILES_WANTED, hard) if hard != resource.RLIM_INFINITY else _FILES_WANTED
        if soft < wanted:
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                soft = wanted
        most = max(16, min(most, (soft - _FILES_BESIDE) // 2))
    return type("Protocol", (BoundedProtocol,), {"most_connections": most, "quick": quick})


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
def _listening(address: Address) -> Iterator[socket.socket]:
    """A socket that accepts from now on: what comes before the loop runs waits in its queue."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # With the protocol spelt out asyncio sends small answers at once, not after 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        if os.name != "nt":  # there, it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(1024)
        yield listener
