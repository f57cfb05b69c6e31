"""Zendesk's addresses: fetched, kept, compared, and never a reason to lose email by mistake."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support import make_settings
from zendesk.account import Account
from zendesk.ips_api import EGRESS, IPS
from zendesk.server import FakeApi, running_api

from app.chores_of import chores_of
from app.intake.sender_ranges import AddressRefusedError, SenderRanges, judge
from app.jobs.chores import ChoreContext
from app.settings import Settings
from app.telemetry.metrics import Sender
from app.zendesk.errors import ZendeskShapeError
from app.zendesk.ip_ranges import read_ranges, refresh

NETWORKS = tuple(ipaddress.ip_network(one) for one in EGRESS)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with running_api(Account()) as api:
        yield api


def settings_of(api: FakeApi, **values: Any) -> Settings:
    return make_settings(**api.settings, outbound_open_loopback=True, **values)


def context_of(pool: Any) -> ChoreContext:
    async def note(text: str) -> None:
        pass

    return ChoreContext(pool, asyncio.Event(), note)


@pytest.mark.parametrize(
    ("host", "sender"),
    [
        ("216.198.63.255", Sender.INSIDE),
        ("::ffff:216.198.0.1", Sender.INSIDE),
        ("2606:4700::1", Sender.INSIDE),
        ("216.198.64.0", Sender.OUTSIDE),
        ("2607::1", Sender.OUTSIDE),
        ("127.0.0.1", Sender.HIDDEN),
        ("10.0.0.7", Sender.HIDDEN),
        ("fd00::1", Sender.HIDDEN),
        ("unix", Sender.HIDDEN),
        ("", Sender.HIDDEN),
    ],
)
def test_an_address_is_zendesks_or_anothers_or_hidden(host: str, sender: Sender) -> None:
    assert judge(host, NETWORKS) is sender


@pytest.mark.parametrize(
    "egress",
    [
        None,
        [],
        "216.198.0.0/18",
        ["216.198.0.0/18", "nonsense"],
        ["216.198.0.0/18", None],
        [216],
        ["0.0.0.0/0"],
        ["216.198.0.1/18"],
        ["216.198.0.0/18"] * 2_000,
    ],
)
def test_a_list_that_is_not_good_is_none(egress: Any) -> None:
    with pytest.raises(ZendeskShapeError):
        read_ranges({"ips": {"egress": {"all": egress}}})


async def test_the_last_good_list_is_kept_and_heeded(pool: Any, api: FakeApi) -> None:
    settings = settings_of(api, zendesk_ips="enforce")
    ranges = SenderRanges(settings, pool)
    await ranges.run_once()
    # Nothing is known, so nothing is refused.
    assert ranges.check("8.8.8.8") is Sender.UNKNOWN
    assert await refresh(settings, context_of(pool)) == "3 ranges of addresses"
    assert "authorization" not in api.asked[-1].headers
    await ranges.run_once(now=float("inf"))
    assert ranges.check("216.198.1.1") is Sender.INSIDE
    assert ranges.check("127.0.0.1") is Sender.HIDDEN
    with pytest.raises(AddressRefusedError):
        ranges.check("8.8.8.8")
    api.account.parts[IPS] = []
    with pytest.raises(ZendeskShapeError):
        await refresh(settings, context_of(pool))
    again = SenderRanges(settings, pool)
    await again.run_once()
    assert again.check("216.198.1.1") is Sender.INSIDE


async def test_by_default_it_is_counted_and_not_refused(pool: Any, api: FakeApi) -> None:
    settings = settings_of(api)
    await refresh(settings, context_of(pool))
    ranges = SenderRanges(settings, pool)
    await ranges.run_once()
    for host in ("8.8.8.8", "8.8.4.4", "10.0.0.1", "216.198.1.1"):
        ranges.count(ranges.check(host))
    await ranges.run_once(now=float("inf"))
    row = await pool.fetchrow("SELECT outside, hidden, outside_at FROM zendesk_ranges")
    assert (row["outside"], row["hidden"]) == (2, 1)
    assert row["outside_at"] is not None


async def test_a_stored_list_that_cannot_be_read_refuses_nothing(pool: Any, api: FakeApi) -> None:
    settings = settings_of(api, zendesk_ips="enforce")
    await pool.execute(
        "INSERT INTO zendesk_ranges (account, ranges) VALUES ($1, '[\"x\"]')", api.url
    )
    ranges = SenderRanges(settings, pool)
    await ranges.run_once()
    assert ranges.check("8.8.8.8") is Sender.UNKNOWN


def test_it_is_fetched_where_an_account_is_named() -> None:
    def names(**values: Any) -> set[str]:
        return {chore.name for chore in chores_of(make_settings(**values))}

    assert "zendesk-ips" not in names()
    assert "zendesk-ips" in names(zendesk_subdomain="example")
    assert "zendesk-ips" not in names(zendesk_subdomain="example", zendesk_ips="off")
