"""The receiver over HTTP: events go out, signed, and its answer is judged."""

import asyncio
import ipaddress
import sys
from collections.abc import Sequence
from datetime import timedelta
from http import HTTPMethod

import httpx2

from app.errors import MailroomError
from app.http.host_names import Origin
from app.models.fit import fit_text
from app.outbound.busy_hosts import retry_after_seconds
from app.outbound.client import Answer, Limits, OutboundClient
from app.outbound.errors import (
    AddressNotAllowedError,
    HostNotAllowedError,
    OutboundError,
    TimedOutError,
    UnreachableError,
)
from app.outbound.network import resolve
from app.outbound.rules import Rules
from app.setting_groups.delivery import origin_of
from app.settings import Settings
from app.sync.answers import LONGEST_ANSWER, Verdict, unreached, verdict_of
from app.sync.event import Event, EventMaker
from app.sync.signing import Signer, id_of_batch

CONNECT_SECONDS = 10.0
# An answer is read on so that its connection can be used again, up to here.
MOST_ANSWER_BYTES = 64 * 1024
ANSWER_SECONDS = 5.0
RESOLVE_SECONDS = 5.0
KEPT_BYTES = 4 * LONGEST_ANSWER

MEND = (
    "a receiver in your own network is named in MAILROOM_OUTBOUND_INTERNAL_HOSTS, as "
    "crm.internal:8443 or http://crm.internal:8080"
)


class ReceiverNotAllowedError(MailroomError):
    """MAILROOM_SYNC_URL or MAILROOM_SYNC_CHECK_URL leads where nothing may be sent."""


def rules_of(settings: Settings, url: str) -> Rules:
    """Whom deliveries may call: the receiver alone. On this machine it may be in development."""
    origin = origin_of(url)
    near = {origin} if settings.is_near(origin) else set[Origin]()
    return Rules(
        hosts=frozenset({origin.host}),
        internal=frozenset({*settings.outbound_internal_hosts, *near}),
        opens_loopback=settings.outbound_open_loopback,
        most_redirects=0,
    )


async def check_receiver(settings: Settings) -> None:
    """See that the receiver may be called and asked, as far as its names are known now.

    Raises:
        ReceiverNotAllowedError: it may not, or a name leads to an address that may not.
    """
    for name, url in (
        ("MAILROOM_SYNC_URL", settings.sync_url),
        ("MAILROOM_SYNC_CHECK_URL", settings.sync_check_url),
    ):
        if url:
            await _check_url(settings, name, url)


async def _check_url(settings: Settings, name: str, url: str) -> None:
    rules, origin = rules_of(settings, url), origin_of(url)
    try:
        rules.check(url)
        try:
            addresses = [ipaddress.ip_address(origin.host)]
        except ValueError:
            async with asyncio.timeout(RESOLVE_SECONDS):
                addresses = await resolve(origin.host, origin.port)
        for address in addresses:
            rules.check_address(origin.host, origin.port, address)
    except (UnreachableError, TimeoutError):
        # It may be known later; each connection is checked again.
        return
    except OutboundError as error:
        raise ReceiverNotAllowedError(f"{name}: {error}; {MEND}") from error


class HttpReceiver:
    """Delivers to a URL, over connections of the event loop it is used in that are kept alive."""

    def __init__(self, settings: Settings, maker: EventMaker) -> None:
        self._url = settings.sync_url
        self._is_batch = settings.sync_batch > 1
        self._maker = maker
        self._signer = Signer(settings.sync_secrets)
        self._content_type = maker.content_type(is_batch=self._is_batch)
        self._client = OutboundClient(
            rules_of(settings, settings.sync_url),
            Limits(
                total_seconds=settings.sync_timeout_seconds,
                # What is longer is no error here: it is read no further.
                most_bytes=sys.maxsize,
                silent_seconds=settings.sync_timeout_seconds,
                connect_seconds=min(CONNECT_SECONDS, settings.sync_timeout_seconds),
            ),
            ca_file=settings.outbound_ca_file,
            kept_connections=settings.sync_concurrency,
        )

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        """Send events, in one request."""
        encoded = [self._maker.encode(event) for event in events]
        if self._is_batch:
            webhook_id, body = id_of_batch([event.id for event in events]), ",".join(encoded)
            body = f"[{body}]"
        else:
            webhook_id, body = events[0].id, encoded[0]
        headers = {
            "content-type": self._content_type,
            **self._signer.headers(webhook_id, body),
        }
        status, said, rest = 0, "", None
        try:
            async with self._client.ask(
                HTTPMethod.POST, self._url, headers=headers, content=body.encode()
            ) as answer:
                status = answer.status
                seconds = retry_after_seconds(answer.headers.get("retry-after"))
                rest = None if seconds is None else timedelta(seconds=seconds)
                said = await _beginning(answer)
        except OutboundError as error:
            # Its body does not matter, but that it answered.
            if not status:
                return _unreached(error)
        return verdict_of(status, said, rest)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _beginning(answer: Answer) -> str:
    """What it says, as far as it is kept. A body that is long or slow is not waited for."""
    begun, total = bytearray(), 0
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            async for block in answer.blocks():
                begun += block[: KEPT_BYTES - len(begun)]
                total += len(block)
                if total > MOST_ANSWER_BYTES:
                    break
    except (OutboundError, TimeoutError, httpx2.HTTPError, httpx2.StreamError):
        pass
    return fit_text(begun.decode("utf-8", "replace"))


def _unreached(error: OutboundError) -> Verdict:
    told = str(error)
    if isinstance(error, AddressNotAllowedError | HostNotAllowedError):
        told = f"{told}; {MEND}"
    return unreached(told, slows_down=isinstance(error, TimedOutError))
