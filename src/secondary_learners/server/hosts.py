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

__all__ = ["KnownHosts", "is_loopback"]

_REMEMBERED = 1000


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class KnownHosts:
    """Middleware: requests for another host than `hosts`, or an address of this machine, fail."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._known: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        if host and host not in self._known:
            name = _name(host.decode("latin-1"))
            if name not in self._hosts and not is_loopback(name):
                message = (
                    f"This server does not answer to the name {name[:100]!r}. Whoever runs it may "
                    "allow it: `learners serve ROOT --allow-host NAME`."
                )
                await refusal(Refused(421, message))(scope, receive, send)
                return
            if len(self._known) < _REMEMBERED:
                self._known.add(host)
        await self._app(scope, receive, send)


def _name(host: str) -> str:
    """The Host header without its port, in small letters."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]
