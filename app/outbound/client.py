"""The client itself: one answer at a time, within bounds, redirects followed one by one.

Nothing of the environment is heeded (proxies, .netrc), nothing is decompressed, no cookie is kept.
"""

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPMethod
from pathlib import Path
from typing import Self

import attrs
import httpx2

from app.http.host_names import Origin
from app.outbound.errors import (
    EncodedError,
    IncompleteError,
    OutboundError,
    TimedOutError,
    TooLargeError,
    TooManyRedirectsError,
    UnreachableError,
    UntrustedError,
)
from app.outbound.network import CheckedNetwork, Resolve, resolve
from app.outbound.rules import Rules, origin_of
from app.outbound.transport import CheckedTransport, trusted

USER_AGENT = "Mailroom"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTED = frozenset({HTTPMethod.GET, HTTPMethod.HEAD})


@attrs.frozen
class Limits:
    """What an answer may cost."""

    total_seconds: float
    """From the call to the last byte, all redirects included."""
    most_bytes: int
    """Of the body."""
    least_bytes_per_second: float = 0.0
    """Of the body, on average since `slow_after_seconds`."""
    slow_after_seconds: float = 10.0
    silent_seconds: float = 20.0
    """Between two bytes."""
    connect_seconds: float = 10.0


@attrs.frozen
class Credentials:
    """What proves who we are, and to whom. It is left out of every other request."""

    origin: Origin
    authorization: str = attrs.field(repr=False)
    paths: tuple[str, ...] = ("/",)
    """What the path has to begin with."""

    @classmethod
    def basic(cls, origin: Origin, user: str, password: str, paths: tuple[str, ...]) -> Self:
        """HTTP's basic authentication."""
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        return cls(origin, f"Basic {encoded}", paths)

    def fit(self, url: httpx2.URL) -> bool:
        """Whether a request to this URL may carry them."""
        # A server may take `%2e%2e/` for a step upwards, and so leave the paths that are meant; or
        # `%2e/` for nothing, and give out what was looked up here by another path.
        is_plain = not any(odd in url.path for odd in ("..", "/./", "\\", "//"))
        return origin_of(url) == self.origin and is_plain and url.path.startswith(self.paths)


@attrs.define
class Answer:
    """What was answered, with its body still to be read."""

    url: httpx2.URL
    """Where it came from at last. Its query may be a secret: neither log nor store it."""
    status: int
    headers: httpx2.Headers
    redirects: int
    _response: httpx2.Response = attrs.field(repr=False)
    _limits: Limits = attrs.field(repr=False)

    @property
    def host(self) -> str:
        """The host that it came from."""
        return origin_of(self.url).host

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body as it comes, some 64 KiB at once at most.

        Raises:
            TooLargeError: it says, or turns out, to be larger than the limits allow.
            TimedOutError: it comes too slowly.
            IncompleteError: it ended early.
            EncodedError: it is compressed.
        """
        self._refuse_early()
        # Without a size: with one, few bytes would be waited with until there are more.
        body = self._response.aiter_raw()
        total, waited = 0, 0.0
        while True:
            begin = time.monotonic()
            block = await anext(body, None)
            # The time that our own side takes is not the other's slowness.
            waited += time.monotonic() - begin
            if block is None:
                return
            total += len(block)
            if total > self._limits.most_bytes:
                raise self._too_large()
            slow = self._limits.slow_after_seconds
            if waited > slow and total < self._limits.least_bytes_per_second * waited:
                raise TimedOutError(
                    f"{self.host} sends fewer than {self._limits.least_bytes_per_second:.0f} "
                    "bytes a second",
                    self.host,
                )
            yield block

    async def read(self) -> bytes:
        """The whole body, within the limits.

        Raises:
            OutboundError: as `blocks` says.
        """
        return b"".join([block async for block in self.blocks()])

    def _refuse_early(self) -> None:
        # The parser lets digits alone pass, and not many.
        if int(self.headers.get("content-length", 0)) > self._limits.most_bytes:
            raise self._too_large()
        if self.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise EncodedError(f"{self.host} sends it compressed, unasked", self.host)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"it has more than {self._limits.most_bytes} bytes", self.host)


class OutboundClient:
    """Calls whom its rules allow, over connections of the event loop it is used in."""

    def __init__(
        self,
        rules: Rules,
        limits: Limits,
        *,
        ca_file: Path | None = None,
        resolve: Resolve = resolve,
        kept_connections: int = 20,
    ) -> None:
        """`ca_file` names certificate authorities (PEM) that are trusted beside the system's;
        `kept_connections` stay open for a while for further requests."""
        self._rules = rules
        self._limits = limits
        self._http = httpx2.AsyncClient(
            transport=CheckedTransport(
                CheckedNetwork(rules, resolve),
                trusted(ca_file),
                kept_connections=kept_connections,
            ),
            follow_redirects=False,
            trust_env=False,
        )

    @asynccontextmanager
    async def ask(
        self,
        method: HTTPMethod,
        url: str | httpx2.URL,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        credentials: Credentials | None = None,
        before_redirect: Callable[[httpx2.URL, httpx2.URL], None] | None = None,
    ) -> AsyncIterator[Answer]:
        """Send a request, and give its answer while the block runs.

        Redirects are followed for GET and HEAD; each goes through the rules again, and credentials
        are left behind for good as soon as one leads to another host. `before_redirect` sees from
        where one leads to where, and may raise. Other methods get the redirect as their answer.

        Raises:
            OutboundError: the class says why, also from within the block.
        """
        host: str | None = None
        try:
            async with asyncio.timeout(self._limits.total_seconds) as deadline:
                target = self._rules.check(url)
                for redirects in range(self._rules.most_redirects + 1):
                    host = origin_of(target).host
                    if credentials is not None and credentials.origin != origin_of(target):
                        credentials = None
                    async with self._send(
                        method, target, headers, content, credentials
                    ) as response:
                        following = self._following(method, response)
                        if following is None:
                            yield Answer(
                                target,
                                response.status_code,
                                response.headers,
                                redirects,
                                response,
                                self._limits,
                            )
                            return
                    following = self._rules.check(following)
                    if before_redirect is not None:
                        before_redirect(target, following)
                    target = following
                raise TooManyRedirectsError(
                    f"it sends on more than {self._rules.most_redirects} times", host
                )
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise TimedOutError(
                f"it took longer than {self._limits.total_seconds:.0f} seconds", host
            ) from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise _explained(error, host) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _following(self, method: HTTPMethod, response: httpx2.Response) -> httpx2.URL | str | None:
        """Where a redirect leads that is to be followed; None for other answers."""
        location = response.headers.get("location", "")
        may_follow = self._rules.most_redirects > 0 and method in _REDIRECTED
        if response.status_code not in _REDIRECTS or not may_follow or not location:
            return None
        try:
            return response.url.join(location)
        except httpx2.InvalidURL:
            # The rules say what is wrong with it.
            return location

    @asynccontextmanager
    async def _send(
        self,
        method: HTTPMethod,
        url: httpx2.URL,
        headers: Mapping[str, str] | None,
        content: bytes | None,
        credentials: Credentials | None,
    ) -> AsyncIterator[httpx2.Response]:
        sent = {"accept-encoding": "identity", "user-agent": USER_AGENT, **(headers or {})}
        if credentials is not None and credentials.fit(url):
            sent["authorization"] = credentials.authorization
        # Cookies of one answer must not travel to another email's file.
        self._http.cookies.clear()
        async with self._http.stream(
            method,
            url,
            headers=sent,
            content=content,
            timeout=httpx2.Timeout(
                self._limits.silent_seconds, connect=self._limits.connect_seconds, pool=None
            ),
        ) as response:
            yield response


def _explained(error: Exception, host: str | None) -> OutboundError:
    """What an error of the library means."""
    name = host or "the host"
    if isinstance(error, httpx2.TimeoutException):
        return TimedOutError(f"{name} does not answer in time", host)
    if isinstance(error, httpx2.ConnectError):
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return UntrustedError(
                    f"{name} has no certificate that is trusted ({cause.verify_message})", host
                )
            cause = cause.__cause__ or cause.__context__
        return UnreachableError(f"{name} cannot be reached", host)
    if isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError):
        return IncompleteError(f"{name} ended the connection, or spoke no proper HTTP", host)
    return UnreachableError(f"{name} cannot be asked ({type(error).__name__})", host)
