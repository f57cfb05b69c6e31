"""Refused webhooks that no retry can admit: what keeps them out, and how an operator mends them."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import attrs
import pytest
from support import SECRET, email, make_settings, signed

from app.intake.admission import Admission
from app.intake.intake import Intake
from app.intake.mending import MendingError, admit_mended, as_text, examine
from app.intake.payload import InvalidPayloadError
from app.intake.quarantine import Quarantine
from app.intake.refusals import Refusal, find_refusal
from app.intake.refused import RefusedError
from app.intake.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from app.models.quarantined_webhook import RefusalReason
from app.retention.erasure import erase_email

Pool = asyncpg.Pool

BROKEN = b'{"ticket_id": "7", "from_email": "kim@example.org", "subject": "the "A-17" order"}'
MENDED = b'{"ticket_id": "7", "from_email": "kim@example.org", "subject": "the \\"A-17\\" order"}'


@pytest.fixture
async def intake(pool: "Pool[asyncpg.Record]") -> AsyncIterator[Intake]:
    intake = Intake(make_settings(), pool)
    yield intake
    await intake.close()


async def refuse(
    pool: "Pool[asyncpg.Record]", body: bytes, *, secret: str | None = None
) -> Refusal:
    """A webhook that came two days ago and was refused."""
    came = datetime.now(UTC) - timedelta(days=2)
    delivery = signed(body, at=came, **({"secret": secret} if secret else {}))
    refusal = Refusal(
        id=uuid4(),
        received_at=came,
        reason=RefusalReason.UNREADABLE,
        detail="the body is not JSON",
        remote_address="192.0.2.7",
        headers=delivery["headers"],
        body=body,
    )
    quarantine = Quarantine(make_settings(), pool)
    assert await quarantine.store(refusal)
    await quarantine.close()
    return refusal


async def rows(pool: "Pool[asyncpg.Record]") -> list[dict[str, Any]]:
    return [dict(row) for row in await pool.fetch("SELECT * FROM incoming_emails")]


async def test_a_mended_email_has_its_time_of_receipt_and_its_original(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    refusal = await refuse(pool, BROKEN)
    findings = examine(intake, refusal)
    assert findings.is_genuine
    assert "not JSON" in findings.wrong[0]
    assert examine(intake, refusal, MENDED).wrong == []
    with pytest.raises(RefusedError):
        await admit_mended(intake, pool, refusal, by="olga")
    admission = await admit_mended(intake, pool, refusal, body=MENDED, by="olga")
    (row,) = await rows(pool)
    assert row["id"] == admission.email_id
    assert row["subject"] == 'the "A-17" order'
    assert row["received_at"] == refusal.received_at
    assert row["original_body"] == BROKEN
    assert row["processing_status"] == "received"
    (told,) = json.loads(row["attempt_errors"])
    assert "mended and admitted from the quarantine by olga" in told["error"]
    assert await find_refusal(pool, refusal.id) is None


async def test_a_charset_is_heeded_where_it_was_declared(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    body = '{"ticket_id": "1", "from_email": "", "subject": "Größe 5 €"}'.encode("cp1252")
    refusal = await refuse(pool, body)
    declared = {**refusal.headers, "content-type": "application/json; charset=windows-1252"}
    refusal = attrs.evolve(refusal, headers=declared)
    assert "Größe 5 €" in as_text(refusal)
    assert [wrong.partition(":")[0] for wrong in examine(intake, refusal).wrong] == ["from_email"]
    await admit_mended(intake, pool, refusal, by="olga", without_sender=True)
    (row,) = await rows(pool)
    assert (row["subject"], row["original_body"]) == ("Größe 5 €", body)


async def test_a_field_that_a_text_brought_along_is_not_admitted(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    body = (
        b'{"ticket_id": "7", "from_email": "kim@example.org", '
        b'"subject": "hello", "from_email": "evil@example.net", "q": "", "body_text": "x"}'
    )
    refusal = await refuse(pool, body)
    (wrong,) = examine(intake, refusal).wrong
    assert "from_email comes twice" in wrong
    for text in (None, body + b" "):
        with pytest.raises(RefusedError, match="from_email comes twice"):
            await admit_mended(intake, pool, refusal, body=text, by="olga")
    assert await rows(pool) == []
    assert await find_refusal(pool, refusal.id) is not None


async def test_what_is_admitted_twice_or_sent_again_is_one_email(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    refusal = await refuse(pool, BROKEN)
    first = await admit_mended(intake, pool, refusal, body=MENDED, by="olga")
    again = await admit_mended(intake, pool, refusal, body=MENDED + b" ", by="ada")
    assert again.is_duplicate
    assert again.email_id == first.email_id
    assert len(await rows(pool)) == 1


async def test_nobodys_signature_needs_an_operators_word(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    body = json.dumps(email()).encode()
    refusal = await refuse(pool, body, secret="of a stranger")
    assert not examine(intake, refusal).is_genuine
    with pytest.raises(MendingError, match="MAILROOM_WEBHOOK_SECRETS"):
        await admit_mended(intake, pool, refusal, by="olga")
    assert await rows(pool) == []
    await admit_mended(intake, pool, refusal, by="olga", accept_unsigned=True)
    (row,) = await rows(pool)
    # The signature is a stranger's text, and may be that of another email.
    assert row["delivery_signature"] == f"quarantine:{refusal.id}"
    assert row["original_body"] is None


async def test_an_email_without_a_sender_can_be_admitted(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    body = b'{"ticket_id": "4711", "from_email": "", "body_text": "a call of an unknown person"}'
    refusal = await refuse(pool, body)
    assert examine(intake, refusal).wrong == [
        "from_email: is blank: it has to be sent with a value"
    ]
    with pytest.raises(InvalidPayloadError):
        await admit_mended(intake, pool, refusal, by="olga")
    await admit_mended(intake, pool, refusal, by="olga", without_sender=True)
    (row,) = await rows(pool)
    assert (row["from_email"], row["raw_body_text"]) == ("", "a call of an unknown person")
    assert "admitted from the quarantine by olga" in row["attempt_errors"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"ticket_id": "{{ticket.id}}"},
        {"ticket_id": "{{ ticket.id }}", "from_email": "{{ticket.requester.email}}"},
        {"from_email": "Kim <{{current_user.email}}>"},
        {"from_email": "{% if ticket.requester.email %}a@example.org{% endif %}"},
        {"ticket_id": "#{{- ticket.id -}}"},
    ],
)
async def test_a_template_that_was_not_rendered_is_no_email(
    intake: Intake, pool: "Pool[asyncpg.Record]", wrong: dict[str, str]
) -> None:
    with pytest.raises(InvalidPayloadError, match="placeholder") as refused:
        intake.check(json.dumps(email(**wrong)).encode())
    assert {error.field for error in refused.value.errors} == set(wrong)
    assert "template" in str(refused.value)


async def test_a_customer_may_write_braces(intake: Intake, pool: "Pool[asyncpg.Record]") -> None:
    body = email(
        subject="{{ticket.title}} looks wrong",
        body_text="I typed {{x}} and {% if y %}",
        from_name="{{who}}",
        webhook_id="{{ticket.id}}",
    )
    intake.check(json.dumps(body).encode())


# It says what ends where in two ways.
UNREADABLE = (
    b'{"ticket_id": "7", "from_email": "kim@example.org", "subject": "the "A" "x", "y", "b": "c"}'
)


async def deliver(
    intake: Intake, body: bytes, invocation_id: str | None, *, minutes_ago: int = 0
) -> Admission:
    at = (datetime.now(UTC) - timedelta(minutes=minutes_ago)).isoformat()
    return await intake.admit(
        body,
        email_id=uuid4(),
        signature=sign(SECRET, at, body),
        timestamp=at,
        invocation_id=invocation_id,
    )


async def test_an_unreadable_delivery_that_comes_again_is_one_email(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    first = await deliver(intake, UNREADABLE, "A", minutes_ago=2)
    assert first.unreadable
    again = await deliver(intake, UNREADABLE, "A")
    assert (again.email_id, again.is_duplicate) == (first.email_id, True)
    # Another delivery is another email, and without an id nobody knows.
    for invocation_id in ("B", None):
        assert not (await deliver(intake, UNREADABLE, invocation_id)).is_duplicate
    assert len(await rows(pool)) == 3


async def test_a_mended_event_is_recognised_and_found_as_one(
    intake: Intake, pool: "Pool[asyncpg.Record]"
) -> None:
    mended = json.dumps(
        {
            "account_id": 7,
            "id": "e-1",
            "type": "zen:event-type:ticket.comment_added",
            "time": "2026-06-09T08:36:44Z",
            "detail": {"id": "5", "via": {"channel": "mail"}, "subject": "x"},
            "event": {"comment": {"id": "77", "body": "the A-17 order"}},
        }
    ).encode()
    broken = mended.replace(b"A-17", b'"A-17" "x", "y')
    refusal = await refuse(pool, broken)
    stored = await intake.admit(
        broken,
        email_id=refusal.id,
        signature=refusal.headers[SIGNATURE_HEADER],
        timestamp=refusal.headers[TIMESTAMP_HEADER],
        invocation_id="A",
        received_at=refusal.received_at,
    )
    assert stored.unreadable
    await admit_mended(intake, pool, refusal, body=mended, by="olga")
    (row,) = await rows(pool)
    assert row["processing_status"] == "received"
    assert (row["zendesk_account_id"], row["zendesk_comment_id"]) == ("7", "77")
    again = await deliver(intake, mended, "A")
    assert (again.email_id, again.is_duplicate) == (stored.email_id, True)


@pytest.mark.parametrize("by_event", [True, False])
async def test_the_copy_of_an_erased_email_leaves_the_quarantine(
    intake: Intake, pool: "Pool[asyncpg.Record]", by_event: bool
) -> None:
    other, refusal = await refuse(pool, MENDED), await refuse(pool, UNREADABLE)
    stored = await intake.admit(
        UNREADABLE,
        email_id=uuid4(),
        signature=refusal.headers[SIGNATURE_HEADER],
        timestamp=refusal.headers[TIMESTAMP_HEADER],
        invocation_id=None,
        received_at=refusal.received_at,
    )
    assert stored.email_id and stored.unreadable
    if by_event:
        gone = {
            "id": "e-2",
            "type": "zen:event-type:ticket.permanently_deleted",
            "detail": {"id": "7"},
        }
        await deliver(intake, json.dumps(gone).encode(), None)
    else:
        assert stored.email_id
        assert await erase_email(pool, stored.email_id, by="erika")
        assert not await erase_email(pool, stored.email_id, by="erika")
    assert await find_refusal(pool, refusal.id) is None
    assert await find_refusal(pool, other.id) is not None
