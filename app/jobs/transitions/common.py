"""What all changes of `processing_status` after the Intake have in common.

Each is one guarded UPDATE (compare and set): it names the states it may leave, and the claimer's
ones also name its fencing token, so a worker that lost its claim changes nothing. A function
returns what it changed; nothing changed is an answer, not an error. What changed is counted there,
so that the metrics agree with the rows.
"""

from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.models.entries import told

Database: TypeAlias = (
    "asyncpg.Pool[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
    " | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)


@attrs.frozen
class Claim:
    """The right to finish one email, as long as its token stands.

    `started_at` is the fencing token: each claim of an email has a later one than the last.
    """

    email_id: UUID
    started_at: datetime
    retry_count: int
    lost_claims: int
    """How many earlier claims ended without a result: their worker vanished."""


# What `queued` means is told by `queued_at`: a message for the email was given to the broker then,
# or, where it is null, has to be given once the next attempt is due. Each has an index of its own.
# As a plain comparison of the state they would let the planner, by its statistics, go by the index
# on state and time, and over all the entries there of emails that have been queued.
IS_QUEUED = "(processing_status = 'queued') IS TRUE"
WITH_MESSAGE = f"{IS_QUEUED} AND queued_at IS NOT NULL"
WITHOUT_MESSAGE = f"{IS_QUEUED} AND queued_at IS NULL"
STATE_AND_TIME = "processing_status, received_at"
DUE_AT = "COALESCE(next_attempt_at, '-infinity')"
# Beside a condition on the ids. As a plain comparison of the state it would invite the planner,
# where statistics say that few emails are in work, to go by the index on the state, and over all
# the entries there of emails that are in work no longer.
HELD = "(email.processing_status = 'processing') IS TRUE"

IS_PAUSED = "EXISTS (SELECT FROM processing_pauses)"
"""A person has paused processing; see `app.jobs.pausing`."""


def in_state_since(state: str, moment: str) -> str:
    """The emails in a state that were received since a moment, in SQL; the oldest first. The index
    on both columns is entered there, not at the beginning of the state."""
    return (
        f"({STATE_AND_TIME}) >= ('{state}', {moment}) AND processing_status <= '{state}'"
        f" ORDER BY {STATE_AND_TIME}"
    )


def ended(error: str, *, attempt: str = "retry_count + 1", more: str = "") -> str:
    """The attempt errors with that of a claim that ends. `error` and `more` are SQL.

    What stands right of SET sees the row as it was, so worker and moment are those of that claim.
    """
    return told(f"""jsonb_build_object(
        'at', now(), 'attempt', {attempt}, 'started_at', started_at, 'error', {error},
        'worker', claimed_by{more})""")


VANISHED = ended("'its worker vanished'")


def locked(condition: str) -> str:
    """What a statement begins with that reads the clock because a lease or a pause begins.

    It may wait for the row longer than a lease lasts. now() is the start of the transaction, and an
    UPDATE alone has worked out its values before it waits.
    """
    return f"""WITH locked AS MATERIALIZED (
    SELECT id FROM incoming_emails WHERE {condition} FOR UPDATE
),
held AS MATERIALIZED (SELECT id, clock_timestamp() AS at FROM locked)"""  # noqa: S608 - a constant


def changed(tag: str) -> bool:
    """Whether a statement changed the one row that it may change."""
    return tag == "UPDATE 1"
