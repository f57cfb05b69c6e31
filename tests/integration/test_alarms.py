"""Alarms begin once and end once, however often they are found, and each is told just so often."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from receivers import Receiver, running_receiver
from support import make_settings

from app.alerts import alarms, herald, sending
from app.alerts.alarms import Trouble
from app.alerts.herald import Herald
from app.models.alarm import AlarmKind
from app.settings import Settings

Pool = asyncpg.Pool

SECRET = "whsec_" + "A" * 43 + "="
QUIET = Trouble("no email came for 3 hours", "see the webhook")
LOUD = Trouble("no email came for 4 hours", "see the webhook")


def settings_for(
    folder: Path, *receivers: Receiver, others: Sequence[str] = (), **values: Any
) -> Settings:
    return make_settings(
        alert_url=",".join([*others, *(f"slack+{receiver.url()}" for receiver in receivers)]),
        outbound_open_loopback=True,
        outbound_ca_file=folder / "ca.pem",
        **{"alert_settle_seconds": 0, **values},
    )


async def make_due(pool: "Pool[asyncpg.Record]") -> None:
    """Let the pauses between tries, and the leases, be over."""
    await pool.execute("UPDATE alarm_notices SET next_attempt_at = now()")


def said(receiver: Receiver) -> list[str]:
    return [posted.body.decode().split("\\n")[0] for posted in receiver.posted]


BEGAN = '{"text": "Mailroom: ALARM silence: no email came for 3 hours'
ENDED = '{"text": "Mailroom: over: silence: no email came for 3 hours'


async def test_an_alarm_is_told_once_when_it_begins_and_once_when_it_ends(
    pool: "Pool[asyncpg.Record]", tmp_path: Path
) -> None:
    async with running_receiver(tmp_path) as one, running_receiver(tmp_path) as other:
        settings = settings_for(tmp_path, one, other)
        for _ in range(3):
            await alarms.begin(pool, AlarmKind.SILENCE, QUIET)
            # Each time another process, which knows nothing of the one before.
            await Herald(settings, pool).run_once()
        for _ in range(3):
            await alarms.end(pool, AlarmKind.SILENCE)
            await Herald(settings, pool).run_once()
            await make_due(pool)
    assert said(one) == said(other) == [BEGAN, ENDED]
    assert await alarms.find_open(pool) == []


async def test_what_could_not_be_told_is_told_later_and_to_nobody_twice(
    pool: "Pool[asyncpg.Record]", tmp_path: Path
) -> None:
    async with (
        running_receiver(tmp_path, statuses=[500, 500, 200]) as bad,
        running_receiver(tmp_path) as good,
    ):
        settings = settings_for(tmp_path, bad, good)
        await alarms.begin(pool, AlarmKind.SILENCE, QUIET)
        assert await Herald(settings, pool).run_once() == 1
        [alarm] = await alarms.find_open(pool)
        assert alarm.not_told_because == "localhost answers 500 no"
        # Before its pause is over, nobody is asked again.
        assert await Herald(settings, pool).run_once() == 0
        assert len(bad.posted) == 1
        for arrived in (0, 1, 0):
            await make_due(pool)
            assert await Herald(settings, pool).run_once() == arrived
    assert len(bad.posted) == 3
    assert said(good) == [BEGAN]
    [alarm] = await alarms.find_open(pool)
    assert alarm.not_told_because is None
    tries = await pool.fetch("SELECT tries, state FROM alarm_notices ORDER BY tries")
    assert [tuple(row) for row in tries] == [(1, "told"), (3, "told")]


async def test_a_message_that_breaks_keeps_nobody_else_waiting_and_is_written_down(
    pool: "Pool[asyncpg.Record]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object, **__: object) -> None:
        raise AttributeError

    monkeypatch.setattr(sending, "send_mail", breaks)
    mail = "smtp://localhost?to=ops@example.com&from=mailroom@example.com"
    async with running_receiver(tmp_path) as receiver:
        settings = settings_for(tmp_path, receiver, others=[mail])
        await alarms.begin(pool, AlarmKind.SILENCE, QUIET)
        assert await Herald(settings, pool).run_once() == 1
    assert said(receiver) == [BEGAN]
    [alarm] = await alarms.find_open(pool)
    assert alarm.not_told_because is not None
    assert "broke with AttributeError" in alarm.not_told_because


async def test_an_alarm_that_comes_and_goes_is_one_alarm(
    pool: "Pool[asyncpg.Record]", tmp_path: Path
) -> None:
    async with running_receiver(tmp_path) as receiver:
        settings = settings_for(tmp_path, receiver, alert_settle_seconds=3600)
        for _ in range(4):
            await alarms.begin(pool, AlarmKind.SILENCE, QUIET)
            assert len(await alarms.find_open(pool)) == 1
            await Herald(settings, pool).run_once()
            await alarms.end(pool, AlarmKind.SILENCE)
            await Herald(settings, pool).run_once()
        assert said(receiver) == [BEGAN]
        await pool.execute("UPDATE alarms SET ended_at = ended_at - interval '2 hours'")
        await Herald(settings, pool).run_once()
        await alarms.begin(pool, AlarmKind.SILENCE, LOUD)
        await Herald(settings, pool).run_once()
    assert said(receiver) == [BEGAN, ENDED, BEGAN.replace("3 hours", "4 hours")]


async def test_an_alarm_that_ended_before_it_could_be_told_is_told_by_its_end_alone(
    pool: "Pool[asyncpg.Record]", tmp_path: Path
) -> None:
    async with running_receiver(tmp_path, statuses=[503, 200]) as receiver:
        settings = settings_for(tmp_path, receiver)
        await alarms.begin(pool, AlarmKind.SILENCE, QUIET)
        await Herald(settings, pool).run_once()
        await alarms.end(pool, AlarmKind.SILENCE)
        await make_due(pool)
        assert await Herald(settings, pool).run_once() == 1
    assert said(receiver) == [BEGAN, ENDED]
    states = await pool.fetch("SELECT moment, state FROM alarm_notices ORDER BY moment")
    assert [tuple(row) for row in states] == [("began", "dropped"), ("ended", "told")]


async def test_of_two_heralds_at_once_one_tells(
    pool: "Pool[asyncpg.Record]", tmp_path: Path
) -> None:
    async with running_receiver(tmp_path) as receiver:
        settings = settings_for(tmp_path, receiver)
        kinds = [(AlarmKind.SUSPENDED, str(day)) for day in range(8)]
        await asyncio.gather(*(alarms.begin(pool, kind, QUIET, key=key) for kind, key in kinds * 3))
        told = await asyncio.gather(*(Herald(settings, pool).run_once() for _ in range(4)))
    assert sum(told) == len(receiver.posted) == 8


async def test_what_a_killed_process_was_telling_is_told_after_its_lease_with_the_same_id(
    pool: "Pool[asyncpg.Record]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(*_: object) -> None:
        raise asyncio.CancelledError

    async with running_receiver(tmp_path) as receiver:
        settings = settings_for(tmp_path, receiver)
        await alarms.begin(pool, AlarmKind.SILENCE, QUIET)
        with monkeypatch.context() as patched:
            patched.setattr(herald, "send", killed)
            with pytest.raises(asyncio.CancelledError):
                await Herald(settings, pool).run_once()
        noticed = await pool.fetchval("SELECT id FROM alarm_notices")
        assert await Herald(settings, pool).run_once() == 0
        await make_due(pool)
        assert await Herald(settings, pool).run_once() == 1
    assert await pool.fetchval("SELECT id FROM alarm_notices WHERE state = 'told'") == noticed


async def test_of_a_kind_just_what_was_found_is_open(pool: "Pool[asyncpg.Record]") -> None:
    await alarms.begin(pool, AlarmKind.SILENCE, QUIET)
    await alarms.keep(pool, AlarmKind.SUSPENDED, {"a": QUIET, "b": QUIET})
    await alarms.keep(pool, AlarmKind.SUSPENDED, {"b": LOUD, "c": QUIET})
    found = [(alarm.kind, alarm.key, alarm.text) for alarm in await alarms.find_open(pool)]
    assert sorted(found) == [
        ("silence", "", QUIET.text),
        ("suspended", "b", LOUD.text),
        ("suspended", "c", QUIET.text),
    ]
    counted = await alarms.count_open(pool)
    assert (counted[AlarmKind.SUSPENDED], counted[AlarmKind.ZENDESK]) == (2, 0)


async def test_what_is_over_for_months_is_forgotten(
    pool: "Pool[asyncpg.Record]", tmp_path: Path
) -> None:
    async with running_receiver(tmp_path) as receiver:
        settings = settings_for(tmp_path, receiver)
        await alarms.begin(pool, AlarmKind.SILENCE, QUIET)
        await Herald(settings, pool).run_once()
        await alarms.end(pool, AlarmKind.SILENCE)
        await Herald(settings, pool).run_once()
        await alarms.begin(pool, AlarmKind.ZENDESK, QUIET)
        await pool.execute("UPDATE alarms SET closed_at = closed_at - interval '91 days'")
        await Herald(settings, pool).run_once()
    assert [a.kind for a in await alarms.find_open(pool)] == ["zendesk"]
    assert await pool.fetchval("SELECT count(*) FROM alarms") == 1
    assert await pool.fetchval("SELECT count(*) FROM alarm_notices") == 1
