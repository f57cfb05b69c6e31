"""How the end of a job asks for its delivery: what the UPDATE that ends it sets besides, in SQL.

So no crash can come between an end and its delivery. Everything else of the `sync_` columns is
`app.sync.transitions`.
"""

from typing import Self

import attrs

from app.settings import Settings


@attrs.frozen
class DeliveredEnds:
    """Which ends of jobs are delivered."""

    completed: bool = False
    failed: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.delivers, settings.delivers and settings.sync_failed)


NOTHING = DeliveredEnds()


def asked(is_wanted: str, at: str) -> str:
    """The assignments of an UPDATE of `incoming_emails` that ends a job: there is a new result, to
    be delivered at once if it is wanted, and otherwise the one before is delivered no more.

    A delivery of the result before that is under way keeps its token and its lease: the new one is
    not sent beside it, so that it is the last to arrive.

    What is delivered no more has had a try, as far as its erasure is concerned: one may be under
    way, and whoever did not hear of its end cannot tell whether it arrived.

    Args:
        is_wanted: a boolean, in SQL.
        at: when it ended, in SQL.
    """
    return f"""sync_version = sync_version + 1,
    sync_status = CASE WHEN {is_wanted} THEN 'pending' WHEN sync_status = 'pending'
        THEN 'not_applicable' ELSE sync_status END,
    sync_next_attempt_at = CASE WHEN {is_wanted} THEN {at} END,
    sync_retry_count = CASE WHEN {is_wanted} THEN 0 WHEN sync_status = 'pending'
        THEN GREATEST(sync_retry_count, 1) ELSE sync_retry_count END,
    sync_error = CASE WHEN {is_wanted} THEN NULL ELSE sync_error END"""


# Nothing is left to be delivered of it; whoever was told of the email is told that by an event. A
# request that is under way is cut, since its claim stands no longer: the event comes after it.
ERASED = """sync_status = CASE WHEN sync_status = 'pending' THEN 'not_applicable'
        ELSE sync_status END,
    sync_next_attempt_at = NULL, sync_error = NULL,
    sync_token = NULL, sync_lease_expires_at = NULL"""
