"""The bounds of the quarantine, on a real database."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from support import make_settings

from app.audit.actors import Actor
from app.intake.keeper import IntakeKeeper
from app.intake.quarantine import Quarantine
from app.intake.refusals import LONGEST_HEADER, Refusal, discard, find_refusal
from app.models.audit_entry import ActorKind, Door
from app.models.quarantined_webhook import RefusalReason

Pool = asyncpg.Pool


def refusal(**fields: Any) -> Refusal:
    return Refusal(
        **{
            "id": uuid4(),
            "reason": RefusalReason.INVALID,
            "detail": "from_email: is missing",
            "remote_address": "192.0.2.7",
            "headers": {},
            "body": b"{}",
            **fields,
        }
    )


async def store(quarantine: Quarantine, *refusals: Refusal) -> list[bool]:
    return list(await asyncio.gather(*map(quarantine.store, refusals)))


@pytest.mark.parametrize("bound", ["rows", "bytes"])
async def test_however_many_strangers_come_a_signed_webhook_finds_room(
    pool: "Pool[asyncpg.Record]", bound: str
) -> None:
    bounds = {"rows": {"quarantine_max_rows": 10}, "bytes": {"quarantine_max_bytes": 10_000}}
    quarantine = Quarantine(make_settings(**bounds[bound]), pool)
    body = b"x" * (900 if bound == "bytes" else 1)
    strangers = [
        refusal(reason=RefusalReason.SIGNATURE, remote_address=f"192.0.2.{number}", body=body)
        for number in range(30)
    ]
    kept = await store(quarantine, *strangers)
    assert kept.count(True) == 8
    # Behind a proxy that does not tell addresses, all have the same one.
    ours = refusal(is_signed=True, body=body, remote_address="192.0.2.1")
    assert await store(quarantine, ours) == [True]
    assert await store(quarantine, refusal(body=body)) == [False]
    await quarantine.close()
    found = await find_refusal(pool, ours.id)
    assert found is not None
    assert found.is_signed


async def test_a_signed_webhook_is_not_refused_for_the_share_of_its_address(
    pool: "Pool[asyncpg.Record]",
) -> None:
    quarantine = Quarantine(make_settings(quarantine_max_rows=10), pool)
    assert (await store(quarantine, *(refusal() for _ in range(8)))).count(True) == 5
    assert await store(quarantine, *(refusal(is_signed=True) for _ in range(6))) == (
        [True] * 5 + [False]
    )
    await quarantine.close()


@pytest.mark.parametrize("days", [0, 36_500])
async def test_the_quarantine_keeps_what_is_old_without_a_bound_of_age(
    pool: "Pool[asyncpg.Record]", days: float
) -> None:
    settings = make_settings(quarantine_max_age_days=days)
    quarantine, old = Quarantine(settings, pool), refusal()
    assert await store(quarantine, old) == [True]
    await pool.execute("UPDATE quarantined_webhooks SET received_at = now() - interval '9 years'")
    assert await store(quarantine, refusal(remote_address="192.0.2.8")) == [True]
    await quarantine.close()
    keeper = IntakeKeeper(settings, pool)
    await keeper.run_once()
    await keeper.close()
    assert await find_refusal(pool, old.id) is not None


async def test_headers_are_cut_and_counted(pool: "Pool[asyncpg.Record]") -> None:
    quarantine = Quarantine(make_settings(quarantine_max_bytes=100_000), pool)
    headers = dict.fromkeys(("user-agent", "content-type"), "ÿ" * 1000000)
    kept = await store(
        quarantine, *(refusal(headers=headers, is_signed=True, body=b"x" * 20) for _ in range(50))
    )
    await quarantine.close()
    assert 0 < kept.count(True) < 50
    taken = await pool.fetchval(
        "SELECT sum(octet_length(headers::text) + octet_length(detail) + octet_length(body))"
        " FROM quarantined_webhooks"
    )
    assert taken <= 100_000
    (longest,) = await pool.fetchrow(
        "SELECT max(length(headers ->> 'user-agent')) FROM quarantined_webhooks"
    )
    assert longest == LONGEST_HEADER


async def test_what_is_too_old_goes_without_a_further_refusal(
    pool: "Pool[asyncpg.Record]",
) -> None:
    await pool.execute(
        "INSERT INTO quarantined_webhooks (reason, received_at)"
        " SELECT 'invalid', now() - interval '31 days' FROM generate_series(1, 2500)"
    )
    await pool.execute("INSERT INTO quarantined_webhooks (reason) VALUES ('invalid')")
    keeper = IntakeKeeper(make_settings(), pool)
    async with asyncio.timeout(60):
        while await pool.fetchval("SELECT count(*) FROM quarantined_webhooks") > 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await keeper.close()


async def test_the_audit_log_tells_what_was_discarded_from_what_was_gone(
    pool: "Pool[asyncpg.Record]",
) -> None:
    quarantine = Quarantine(make_settings(), pool)
    there, gone = refusal(), refusal()
    await store(quarantine, there)
    olga = Actor(kind=ActorKind.USER, name="olga", door=Door.PAGE)
    await discard(pool, [there.id, gone.id], actor=olga)
    entries = await pool.fetch("SELECT object, result FROM audit_entries")
    assert {row["object"]: row["result"] for row in entries} == {
        str(there.id): "done",
        str(gone.id): "nothing",
    }
    await quarantine.close()
