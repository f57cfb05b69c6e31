"""Bounds of an outbound call that its users do not set: slowness, silence, several addresses."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPMethod
from pathlib import Path

import attrs
import httpx2
import pytest
from fake_zendesk import (
    CDN_HOST,
    Asked,
    FakeZendesk,
    begin,
    drip,
    running_zendesk,
    status,
)
from support import free_port, make_settings

from app.outbound.addresses import Address
from app.outbound.busy_hosts import (
    DEFAULT_SECONDS,
    LONGEST_SECONDS,
    BusyHostError,
    BusyHosts,
    retry_after_seconds,
)
from app.outbound.client import Limits, OutboundClient
from app.outbound.errors import (
    AddressNotAllowedError,
    OutboundError,
    TimedOutError,
    TooManyRedirectsError,
    UnreachableError,
)
from app.outbound.network import CheckedNetwork
from app.outbound.rules import Rules

LIMITS = Limits(total_seconds=60.0, most_bytes=10_000_000)
Client = Callable[..., OutboundClient]


@pytest.fixture
async def zendesk(tmp_path: Path) -> AsyncIterator[FakeZendesk]:
    async with running_zendesk(tmp_path) as zendesk:
        yield zendesk


@pytest.fixture
async def make_client(zendesk: FakeZendesk) -> AsyncIterator[Client]:
    made = []

    def make(**limits: float) -> OutboundClient:
        rules = Rules.from_settings(make_settings(outbound_open_loopback=True), [CDN_HOST])
        client = OutboundClient(rules, attrs.evolve(LIMITS, **limits), ca_file=zendesk.ca_file)
        made.append(client)
        return client

    yield make
    for client in made:
        await client.aclose()


async def read(client: OutboundClient, url: str) -> bytes:
    async with client.ask(HTTPMethod.GET, url) as got:
        return await got.read()


def link(zendesk: FakeZendesk, name: str) -> str:
    return f"{zendesk.cdn_url}/attachment/{name}"


async def test_a_slow_answer_is_given_up(zendesk: FakeZendesk, make_client: Client) -> None:
    zendesk.add("a", cdn=drip)
    client = make_client(least_bytes_per_second=10_000.0, slow_after_seconds=0.2)
    with pytest.raises(TimedOutError, match="fewer than 10000 bytes a second"):
        await read(client, link(zendesk, "a"))


class Clock:
    """Stands still but when it is moved."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


async def test_a_reader_who_takes_time_does_not_make_the_host_slow(
    zendesk: FakeZendesk, make_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("app.outbound.client.time", clock)
    content = b"x" * 200_000
    zendesk.add("a", content=content)
    client = make_client(least_bytes_per_second=10_000.0, slow_after_seconds=0.5)
    got = b""
    async with client.ask(HTTPMethod.GET, link(zendesk, "a")) as asked:
        async for block in asked.blocks():
            got += block
            clock.now += 1_000.0
    assert got == content


async def test_a_silent_host_is_given_up(zendesk: FakeZendesk, make_client: Client) -> None:
    is_over = asyncio.Event()

    async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
        begin(writer, 200, content_length="100")
        writer.write(b"x")
        await is_over.wait()

    zendesk.add("a", cdn=silent)
    with pytest.raises(TimedOutError, match="does not answer in time"):
        await read(make_client(silent_seconds=0.3), link(zendesk, "a"))
    is_over.set()


async def test_a_redirect_of_what_changes_something_is_not_followed(
    zendesk: FakeZendesk, make_client: Client
) -> None:
    zendesk.add("b")
    zendesk.add("a", cdn=status(307, location="/attachment/b"))
    async with make_client().ask(HTTPMethod.POST, link(zendesk, "a"), content=b"") as got:
        assert got.status == 307
    assert len(zendesk.asked) == 1


async def test_redirects_without_an_end_are_ended(
    zendesk: FakeZendesk, make_client: Client
) -> None:
    zendesk.add("a", cdn=status(302, location="/attachment/a"))
    with pytest.raises(TooManyRedirectsError):
        await read(make_client(), link(zendesk, "a"))
    assert len(zendesk.asked) == 4


async def test_the_whole_call_has_an_end(zendesk: FakeZendesk, make_client: Client) -> None:
    zendesk.add("a", cdn=drip)
    with pytest.raises(TimedOutError, match="longer than"):
        await read(make_client(total_seconds=0.5), link(zendesk, "a"))


async def test_a_timeout_of_the_callers_own_stays_its_own(
    zendesk: FakeZendesk, make_client: Client
) -> None:
    zendesk.add("a")

    async def give_up() -> None:
        async with make_client().ask(HTTPMethod.GET, link(zendesk, "a")):
            raise TimeoutError("my own")

    with pytest.raises(TimeoutError, match="my own"):
        await give_up()


def resolving_to(*addresses: str) -> Callable[[str, int], object]:
    async def resolve(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address(address) for address in addresses]

    return resolve


def network(*addresses: str) -> CheckedNetwork:
    rules = Rules(hosts=None, opens_loopback=True)
    return CheckedNetwork(rules, resolving_to(*addresses))  # type: ignore[arg-type]


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    stream = await network("127.0.0.2", "127.0.0.1").connect_tcp("a.example", port, timeout=10)
    assert stream.get_extra_info("server_addr") == ("127.0.0.1", port)
    await stream.aclose()
    server.close()


async def test_no_address_is_tried_where_one_must_not_be_called() -> None:
    with pytest.raises(AddressNotAllowedError):
        await network("127.0.0.1", "10.0.0.1").connect_tcp("a.example", free_port(), timeout=1)


async def test_a_name_without_an_address_is_told() -> None:
    with pytest.raises(UnreachableError, match=r"a\.example"):
        await network().connect_tcp("a.example", 443, timeout=1)


async def test_a_name_that_nobody_knows_is_told(tmp_path: Path) -> None:
    client = OutboundClient(Rules(hosts=None), LIMITS)
    with pytest.raises(UnreachableError, match="is not known"):
        await read(client, "https://does-not-exist.invalid/")
    await client.aclose()


async def test_files_of_the_system_are_no_hosts() -> None:
    with pytest.raises(OutboundError):
        await network().connect_unix_socket("/run/docker.sock")


async def test_errors_name_hosts_and_no_secrets(zendesk: FakeZendesk, make_client: Client) -> None:
    zendesk.add("a", cdn=status(302, location="https://evil.example/x?token=s3cret"))
    with pytest.raises(OutboundError) as caught:
        await read(make_client(), link(zendesk, "a") + "?token=s3cret")
    assert "s3cret" not in str(caught.value) and caught.value.host == "evil.example"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("0", 0.0),
        ("99999999", LONGEST_SECONDS),
        ("-1", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("٣", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 99 Jan 1970 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_read(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value) == seconds


def test_retry_after_may_be_a_date() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=600)
    assert retry_after_seconds(format_datetime(moment, usegmt=True)) == pytest.approx(600, abs=60)


def test_a_host_that_asks_to_wait_and_gives_no_number_rests_for_a_minute() -> None:
    busy = BusyHosts()
    with pytest.raises(BusyHostError) as caught:
        busy.heed("a.example", 429, httpx2.Headers())
    assert caught.value.seconds == DEFAULT_SECONDS
    with pytest.raises(BusyHostError):
        busy.check("a.example")
    busy.check("b.example")
    busy.heed("b.example", 503, httpx2.Headers())
    busy.check("b.example")
