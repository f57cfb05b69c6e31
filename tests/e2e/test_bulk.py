"""Workers that are killed in the middle of what they do for many emails at once, and workers of an
older version beside them."""

import contextlib
import os
import signal
from collections import Counter
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
import pytest
from support import Process, Services, wait_until

from app.jobs.broker import make_broker, prepare_broker
from app.jobs.messages import make_message
from app.settings import Settings

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"

EMAILS = 30
LEASE = {"MAILROOM_LEASE_SECONDS": "4", "MAILROOM_MESSAGE_LOST_SECONDS": "2"}

HANDLER = """
import os, signal
from pathlib import Path

import app.jobs.keeper
import app.jobs.results
from app.jobs.transitions import claiming, ending
from app.jobs.transitions.claiming import Claimed

app.jobs.keeper.RESCUE_EVERY_SECONDS = 0.3

def strike():
    if not Path("struck").exists():
        Path("struck").touch()
        os.kill(os.getpid(), signal.SIGKILL)

async def handle(email):
    with Path("runs").open("a") as runs:
        runs.write(f"{email.id}\\n")

real_claim, real_complete = claiming.claim, ending.complete

async def claim(*arguments, **named):
    made = await real_claim(*arguments, **named)
    if WHEN == "after the claim" and sum(isinstance(one, Claimed) for one in made) > 1:
        strike()
    return made

async def complete(database, completions, **named):
    if WHEN == "before the results" and len(completions) > 1:
        strike()
    ends = await real_complete(database, completions, **named)
    if WHEN == "after the results" and len(completions) > 1:
        strike()
    return ends

claiming.claim = claim
app.jobs.results.ENDS[ending.Completion] = complete
"""


def put(connection: Connection, emails: int) -> list[UUID]:
    """Store emails as the Intake does, with one commit. Returns their ids."""
    rows = connection.execute(
        "INSERT INTO incoming_emails (from_email, received_at)"
        " SELECT 'erika@example.com', now() + n * interval '1 ms'"
        " FROM generate_series(1, %s) AS n RETURNING id",
        [emails],
    ).fetchall()
    connection.execute("NOTIFY mailroom_received")
    return [row["id"] for row in rows]


def states(connection: Connection) -> dict[str, int]:
    rows = connection.execute("SELECT processing_status FROM incoming_emails").fetchall()
    return dict(Counter(str(row["processing_status"]) for row in rows))


def runs(services: Services) -> Counter[str]:
    path = services.folder / "runs"
    return Counter(path.read_text().split() if path.exists() else [])


@pytest.mark.parametrize("when", ["after the claim", "before the results", "after the results"])
def test_a_worker_killed_amid_many_emails_loses_none(
    services: Services, connection: Connection, when: str
) -> None:
    services.write_handler(f"WHEN = {when!r}\n{HANDLER}")
    put(connection, EMAILS)
    killed: Process = services.start_worker(concurrency=100, **LEASE)
    wait_until(lambda: (services.folder / "struck").exists(), services.log)
    # Who started the process that is gone by now ends, too, as soon as it notices.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    in_hand = "completed" if when == "after the results" else "processing"
    assert states(connection)[in_hand] > 1
    services.start_worker(concurrency=100, **LEASE)
    wait_until(
        lambda: states(connection) == {"completed": EMAILS},
        lambda: f"{states(connection)} {services.log()}",
    )
    rows = connection.execute("SELECT * FROM incoming_emails").fetchall()
    for row in rows:
        # Those that it had in hand were claimed once more, and no handler ran without a claim.
        assert 1 <= runs(services)[str(row["id"])] <= row["claims"] <= 2
        assert row["retry_count"] == 0
        assert row["lost_claims"] == row["claims"] - 1


def test_messages_of_an_older_version_are_understood(
    services: Services, connection: Connection, broker_url: str
) -> None:
    """And those that ask for the same emails twice, in both forms."""
    services.environment["BROKER_URL"] = broker_url
    services.write_handler(f"WHEN = 'never'\n{HANDLER}")
    ids = put(connection, 6)
    connection.execute("UPDATE incoming_emails SET processing_status = 'queued', queued_at = now()")
    broker = make_broker(
        Settings(broker_url=broker_url, queue=services.queue), services.environment["DATABASE_URL"]
    )
    prepare_broker(broker)
    broker.declare_queue(services.queue)
    for older in ids[:3]:
        broker.enqueue(make_message(services.queue, [older]))
    broker.enqueue(make_message(services.queue, ids))
    broker.close()
    services.start_worker(MAILROOM_MESSAGE_LOST_SECONDS="3600")
    wait_until(
        lambda: states(connection) == {"completed": 6},
        lambda: f"{states(connection)} {services.log()}",
    )
    assert set(runs(services).values()) == {1}
