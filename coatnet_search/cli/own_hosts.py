"""Refuses requests whose Host header names another machine, so that no web page can reach the dashboard by a name of
its own that suddenly points here (DNS rebinding)."""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

REFUSED = b"This server answers to the names of its own machine alone.\n"
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.%]+)\]|(?P<name>[a-z0-9._-]+))(?::\d{1,5})?", re.ASCII)


def names_here(host: str) -> frozenset[str]:
    """Names under which a server that is bound to ``host`` may be asked for."""
    machine = socket.gethostname().lower()
    return frozenset({"localhost", host.lower(), machine, machine.partition(".")[0]})


class OwnHosts:
    """An ASGI application in front of another one, for HTTP and web sockets: one Host header, with one of ``names`` or
    a loopback address. Where the server is bound to more than the loopback any plain address will do: only names can
    be made to point elsewhere."""

    def __init__(self, app: App, host: str) -> None:
        self._app, self._names, self._wide = app, names_here(host), not is_loopback(host)

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        hosts = [value for name, value in scope.get("headers", ()) if name.lower() == b"host"]
        if scope["type"] == "lifespan" or (len(hosts) == 1 and self.knows(hosts[0].decode("latin-1"))):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(REFUSED)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSED})

    def knows(self, host: str) -> bool:
        found = _HOST.fullmatch(host.strip().lower())
        if not found:
            return False
        name = (found["six"] or found["name"]).rstrip(".")
        if name in self._names or is_loopback(name):
            return True
        return self._wide and _address(name) is not None


def is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
