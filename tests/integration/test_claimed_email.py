"""What of an email is fetched for its handler, and when."""

import json
import pickle
from collections.abc import Sequence
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import one_email
import pytest
from support import make_settings

from app.handlers.loading import as_handler
from app.jobs import claimed_email
from app.jobs.claimed_email import LateColumns
from app.jobs.claimer import Claimer
from app.jobs.late_columns import late_columns_of
from app.jobs.leases import HeldClaims
from app.models.incoming_email import IncomingEmail

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

PAYLOAD = {"ticket_id": "1", "more": ["ä", None]}


@pytest.fixture(autouse=True)
def learns_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claimed_email, "EMAILS_TO_LEARN", 2)


async def process(pool: Pool, late: LateColumns, handler: Any, number: int) -> list[UUID]:
    """Have emails processed, one after the other."""
    claimer = Claimer(make_settings(), as_handler(handler, threads=1), pool, HeldClaims(), late)
    ids = [
        await pool.fetchval(
            "INSERT INTO incoming_emails (from_email, raw_payload, original_body)"
            " VALUES ('erika@example.com', $1, $2) RETURNING id",
            json.dumps(PAYLOAD),
            b"as it came",
        )
        for _ in range(number)
    ]
    for email_id in ids:
        await one_email.process(claimer, email_id)
    return ids


class Fetching:
    """Fetches, and counts."""

    def __init__(self, database_url: str) -> None:
        self._fetch = late_columns_of(database_url)
        self.ids: list[UUID] = []

    def __call__(self, email_id: UUID) -> Sequence[Any]:
        self.ids.append(email_id)
        return self._fetch(email_id)


async def test_a_payload_at_which_nobody_looks_is_not_fetched_any_longer(
    pool: Pool, database_url: str
) -> None:
    fetching = Fetching(database_url)
    emails: list[IncomingEmail] = []

    async def handle(email: IncomingEmail) -> None:
        emails.append(email)

    late = LateColumns(fetching)
    await process(pool, late, handle, 3)
    assert not late.are_wanted
    assert fetching.ids == []
    # Whoever looks all the same finds it.
    assert [email.raw_payload for email in emails] == [PAYLOAD] * 3
    assert emails[2].original_body == b"as it came"
    assert fetching.ids == [emails[2].id]


async def test_a_handler_that_looks_seldom_waits_for_it_once(pool: Pool, database_url: str) -> None:
    fetching = Fetching(database_url)
    seen: list[Any] = []

    async def handle(email: IncomingEmail) -> dict[str, Any] | None:
        seen.append(email.id)
        return {"found": email.raw_payload} if len(seen) > 3 else None

    late = LateColumns(fetching)
    ids = await process(pool, late, handle, 8)
    assert fetching.ids == [ids[3]]
    rows = await pool.fetch("SELECT id, extracted_data FROM incoming_emails")
    found = {row["id"]: row["extracted_data"] for row in rows}
    assert [json.loads(found[one] or "null") for one in ids] == [None] * 3 + [
        {"found": PAYLOAD}
    ] * 5


async def test_a_payload_that_cannot_be_fetched_is_a_retry(pool: Pool) -> None:
    late = LateColumns(late_columns_of("postgresql://nobody@127.0.0.1:1/nothing"))
    late.handled(2)

    async def handle(email: IncomingEmail) -> None:
        email.raw_payload  # noqa: B018

    (email_id,) = await process(pool, late, handle, 1)
    row = await pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
    assert row is not None
    assert row["processing_status"] == "queued"
    (entry,) = json.loads(row["attempt_errors"])
    assert entry["error"] == "the payload could not be read: OperationalError"


async def test_an_email_goes_to_other_processes_whole(pool: Pool, database_url: str) -> None:
    copies: list[IncomingEmail] = []

    async def handle(email: IncomingEmail) -> None:
        copies.append(pickle.loads(pickle.dumps(email)))  # noqa: S301

    ids = await process(pool, LateColumns(Fetching(database_url)), handle, 3)
    assert [copy.id for copy in copies] == ids
    for copy in copies:
        assert copy.raw_payload == PAYLOAD
        assert copy.original_body == b"as it came"
        assert copy.to_dict()["attempt_errors"] == []
        assert copy.processing_status == "processing"
