"""Webhooks on which Mailroom itself fails: signed, each ends as an email or in the quarantine."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import pytest
from litestar import Litestar
from support import email, make_settings, signed

from app.intake import intake as intake_module
from app.intake.controller import ZendeskWebhookController
from app.intake.email_row import EmailRow, make_row
from app.intake.intake import Intake
from app.intake.mending import what_is_wrong
from app.intake.openapi import WEBHOOK_PATH
from app.intake.quarantine import Quarantine
from app.intake.refusals import refusals
from app.intake.retrying import Again, try_again
from app.intake.sender_ranges import SenderRanges
from app.intake.signature import INVOCATION_HEADER
from app.telemetry.request_id import RequestIds

Post = Callable[..., Any]
Pool = asyncpg.Pool


@pytest.fixture
async def intake(pool: "Pool[asyncpg.Record]") -> AsyncIterator[Intake]:
    intake = Intake(make_settings(), pool)
    yield intake
    await intake.close()


@pytest.fixture
async def post(pool: "Pool[asyncpg.Record]", intake: Intake) -> AsyncIterator[Post]:
    """Posts to the webhook route."""
    app = Litestar([ZendeskWebhookController], middleware=[RequestIds], logging_config=None)
    app.state.intake = intake
    app.state.quarantine = quarantine = Quarantine(make_settings(), pool)
    app.state.sender_ranges = SenderRanges(make_settings(), pool)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://mailroom") as client:
        yield lambda **arguments: client.post(WEBHOOK_PATH, **arguments)
    await quarantine.close()


@pytest.fixture
def defect(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No row is made of an email about a defect."""

    def fail(*arguments: Any, **named: Any) -> EmailRow:
        row = make_row(*arguments, **named)
        if row.subject == "defect":
            raise IndexError("string index out of range")
        return row

    monkeypatch.setattr(intake_module, "make_row", fail)
    return monkeypatch


async def kept(pool: "Pool[asyncpg.Record]") -> list[asyncpg.Record]:
    return await pool.fetch("SELECT * FROM quarantined_webhooks")


async def count_emails(pool: "Pool[asyncpg.Record]") -> int:
    count: int = await pool.fetchval("SELECT count(*) FROM incoming_emails")
    return count


async def refuse_spam(pool: "Pool[asyncpg.Record]") -> None:
    await pool.execute(
        "ALTER TABLE incoming_emails ADD CONSTRAINT no_spam CHECK (subject <> 'spam')"
    )


async def test_what_a_defect_of_ours_keeps_out_is_in_the_quarantine_once(
    pool: "Pool[asyncpg.Record]", post: Post, defect: pytest.MonkeyPatch
) -> None:
    delivery = signed(email(subject="defect"))
    answers = [await post(**delivery)]
    # Zendesk's further try: signed anew, of the same invocation.
    again = signed(delivery["content"])
    again["headers"][INVOCATION_HEADER] = delivery["headers"][INVOCATION_HEADER]
    answers.append(await post(**again))
    assert [answer.status_code for answer in answers] == [503, 503]
    assert [answer.headers["retry-after"] for answer in answers] == ["5", "5"]
    assert await count_emails(pool) == 0
    (row,) = await kept(pool)
    assert (row["reason"], row["is_signed"]) == ("unstorable", True)
    assert row["body"] == delivery["content"]
    assert row["detail"] == answers[0].json()["detail"]


async def test_what_is_kept_and_stored_by_a_further_try_is_one_email(
    pool: "Pool[asyncpg.Record]", post: Post, intake: Intake, defect: pytest.MonkeyPatch
) -> None:
    payload = {**email(subject="defect"), "webhook_id": None}
    delivery = signed(payload)
    assert (await post(**delivery)).status_code == 503
    assert len(await kept(pool)) == 1
    defect.undo()
    again = signed(delivery["content"])
    again["headers"][INVOCATION_HEADER] = delivery["headers"][INVOCATION_HEADER]
    assert (await post(**again)).json()["status"] == "accepted"
    async for page in refusals(pool):
        assert [*(await try_again(intake, page)).values()] == [Again.DUPLICATE]
    assert await count_emails(pool) == 1


async def test_what_the_database_refuses_for_good_is_in_the_quarantine(
    pool: "Pool[asyncpg.Record]", post: Post
) -> None:
    await refuse_spam(pool)
    answer = await post(**signed(email(subject="spam")))
    assert answer.status_code == 503
    assert "the database refuses this email" in answer.json()["detail"]
    (row,) = await kept(pool)
    assert (row["reason"], row["is_signed"]) == ("unstorable", True)


async def test_a_stranger_fills_the_quarantine_no_more_than_before(
    pool: "Pool[asyncpg.Record]", post: Post, defect: pytest.MonkeyPatch
) -> None:
    assert (await post(**signed(email(subject="defect"), secret="another"))).status_code == 401
    (row,) = await kept(pool)
    assert (row["reason"], row["is_signed"]) == ("signature", False)


async def test_one_that_fails_keeps_no_other_in_the_quarantine(
    pool: "Pool[asyncpg.Record]", post: Post, intake: Intake, defect: pytest.MonkeyPatch
) -> None:
    await refuse_spam(pool)
    subjects = ["one", "defect", "spam", "two"]
    for subject in subjects:
        delivery = signed(email(subject=subject))
        delivery["headers"]["content-type"] = "text/plain"
        assert (await post(**delivery)).status_code == 415
    async for page in refusals(pool):
        results = Counter((await try_again(intake, page)).values())
    assert results == Counter({Again.ACCEPTED: 2, Again.NOT_STORED: 2})


async def test_an_operator_is_told_of_a_defect(intake: Intake, defect: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise IndexError("string index out of range")

    defect.setattr(intake_module, "check_payload", fail)
    (said,) = what_is_wrong(intake, json.dumps(email()).encode())
    assert said.startswith("Mailroom fails to store this email, as its log tells")
