"""Where connections are opened: a name is resolved once, every address of it is checked, and the
connection goes to the address that was checked. A name that leads elsewhere a moment later leads
nowhere; TLS still proves the name, which is the library's own work.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

import httpcore2

from app.outbound.addresses import Address
from app.outbound.errors import UnreachableError
from app.outbound.rules import Rules

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[Address]]]

# Of a host with more, these are tried; each gets its share of the time.
MOST_ADDRESSES = 4


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a name, the system's preferred one first.

    Raises:
        UnreachableError: there is no such name.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UnreachableError(f"the name {host} is not known", host) from None
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Opens TCP connections to addresses that the rules allow."""

    def __init__(self, rules: Rules, resolve: Resolve = resolve) -> None:
        self._rules = rules
        self._resolve = resolve
        self._plain = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's own signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of a host that answers.

        Raises:
            AddressNotAllowedError: one of its addresses must not be called.
            UnreachableError: there is no such name.
        """
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from error
        for address in addresses:
            self._rules.check_address(host, port, address)
        tried = addresses[:MOST_ADDRESSES]
        last_error: Exception = UnreachableError(f"the name {host} has no address", host)
        for address in tried:
            try:
                return await self._plain.connect_tcp(
                    str(address),
                    port,
                    timeout=None if timeout is None else timeout / len(tried),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last_error = error
        raise last_error

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's own signature
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Refused: a file has no address that could be checked."""
        raise UnreachableError("sockets in the file system are not called")

    async def sleep(self, seconds: float) -> None:
        """Wait; called by the library between tries."""
        await asyncio.sleep(seconds)
