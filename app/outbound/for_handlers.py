"""The client that handlers are given: httpx2's own, whose connections go through our rules. What is
written in a handler may well call an address that stands in an email."""

from pathlib import Path

import httpx2

from app.outbound.errors import AddressNotAllowedError, HostNotAllowedError, UnreachableError
from app.outbound.network import CheckedNetwork
from app.outbound.rules import Rules
from app.outbound.transport import CheckedTransport, trusted

# Seconds between two bytes, and for a connection; the run as a whole has the handler's limit.
SILENT_SECONDS = 30.0
CONNECT_SECONDS = 10.0

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MEND = (
    "if it is meant to be called, name it in MAILROOM_OUTBOUND_INTERNAL_HOSTS, such as "
    "http://crm.internal:8080"
)


class DryRunError(RuntimeError):
    """In a dry run a handler was about to change something elsewhere."""


def make_client(
    rules: Rules, *, ca_file: Path | None = None, mend: str = MEND, is_dry_run: bool = False
) -> httpx2.AsyncClient:
    """A client for handlers, over connections of the event loop it is used in. Redirects are
    followed where a request says so.

    Args:
        rules: whom it may call.
        ca_file: certificate authorities (PEM) that are trusted beside the system's.
        mend: what to do about somebody who may not be called.
        is_dry_run: refuse requests that may change something.
    """
    return with_transport(_RuledTransport(rules, ca_file, mend), is_dry_run=is_dry_run)


def with_transport(
    transport: httpx2.AsyncBaseTransport, *, is_dry_run: bool = False
) -> httpx2.AsyncClient:
    """The same client with another transport, such as one that answers in a test."""
    return httpx2.AsyncClient(
        transport=transport,
        timeout=httpx2.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
        headers={"user-agent": "Mailroom"},
        event_hooks={"request": [_refuse_changes]} if is_dry_run else {},
        trust_env=False,
    )


async def _refuse_changes(request: httpx2.Request) -> None:
    if request.method not in SAFE_METHODS:
        raise DryRunError(f"it would send {request.method} to {request.url.host}")


class _RuledTransport(CheckedTransport):
    def __init__(self, rules: Rules, ca_file: Path | None, mend: str) -> None:
        super().__init__(CheckedNetwork(rules), trusted(ca_file))
        self._rules = rules
        self._mend = mend

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            self._rules.check(request.url)
            return await super().handle_async_request(request)
        except (AddressNotAllowedError, HostNotAllowedError) as error:
            # It is told to whoever runs the handler.
            raise type(error)(f"{error}: {self._mend}", error.host) from None
        except UnreachableError as error:
            # As of a client without rules: what is written for any outage is meant for this one.
            raise httpx2.ConnectError(str(error), request=request) from error
