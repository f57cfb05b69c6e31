"""The client that handlers are given: httpx2's own, whose connections go through our rules. What is
written in a handler may well call an address that stands in an email."""

import httpx2

from app.outbound.client import CheckedTransport, trusted
from app.outbound.errors import AddressNotAllowedError, HostNotAllowedError
from app.outbound.network import CheckedNetwork
from app.outbound.rules import Rules
from app.settings import Settings

# Seconds between two bytes, and for a connection; the run as a whole has the handler's limit.
SILENT_SECONDS = 30.0
CONNECT_SECONDS = 10.0

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class DryRunError(RuntimeError):
    """In a dry run a handler was about to change something elsewhere."""


def make_client(settings: Settings, *, is_dry_run: bool = False) -> httpx2.AsyncClient:
    """A client for handlers, over connections of the event loop it is used in. It calls public
    hosts by https, and others where MAILROOM_OUTBOUND_INTERNAL_HOSTS names them; redirects are
    followed where a request says so.

    Args:
        is_dry_run: refuse requests that may change something.
    """
    rules = Rules.from_settings(settings, hosts=None)

    async def check(request: httpx2.Request) -> None:
        if is_dry_run and request.method not in SAFE_METHODS:
            raise DryRunError(f"it would send {request.method} to {request.url.host}")
        with _mend():
            rules.check(request.url)

    return httpx2.AsyncClient(
        transport=_Transport(CheckedNetwork(rules), trusted(settings.outbound_ca_file)),
        timeout=httpx2.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
        headers={"user-agent": "Mailroom"},
        event_hooks={"request": [check]},
        trust_env=False,
    )


class _Transport(CheckedTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        with _mend():
            return await super().handle_async_request(request)


class _mend:  # noqa: N801 - a context manager, which reads as a function
    """Has a refusal say what to do, since it is told to whoever runs the handler."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AddressNotAllowedError | HostNotAllowedError):
            raise type(error)(
                f"{error}. If it is meant to be called, name it in "
                "MAILROOM_OUTBOUND_INTERNAL_HOSTS, such as http://crm.internal:8080",
                error.host,
            ) from None
