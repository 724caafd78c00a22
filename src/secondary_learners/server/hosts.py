"""Which names this server answers to.

A page on the web can make a browser ask a name that leads to 127.0.0.1, and would read what the
server answers. It cannot make the browser say another name than that: those are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from secondary_learners.server.errors import Refused
from secondary_learners.server.refusals import refusal

__all__ = ["HostGate", "KnownHosts", "is_loopback"]

_REMEMBERED = 1000


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class KnownHosts:
    """The names that have passed, and the rule for those that have not."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = {host.lower() for host in hosts}
        self._known: set[bytes] = set()

    def passes(self, host: bytes) -> bool:
        """Whether `host`, a Host header, is one of them, or an address of this machine."""
        if host in self._known:
            return True
        name = _name(host.decode("latin-1"))
        if host and name not in self._hosts and not is_loopback(name):
            return False
        if len(self._known) < _REMEMBERED:
            self._known.add(host)
        return True

    def has_seen(self, host: bytes) -> bool:
        """Whether this very header has passed before."""
        return host in self._known


class HostGate:
    """Middleware: requests for a host that does not pass are refused."""

    def __init__(self, app: ASGIApp, hosts: KnownHosts) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        if self._hosts.passes(host):
            await self._app(scope, receive, send)
            return
        message = (
            f"This server does not answer to the name {_name(host.decode('latin-1'))[:100]!r}. "
            "Whoever runs it may allow it: `learners serve ROOT --allow-host NAME`."
        )
        await refusal(Refused(421, message))(scope, receive, send)


def _name(host: str) -> str:
    """The Host header without its port, in small letters."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]
