"""The messages that ask workers for emails: one to about a hundred with one message.

What a message costs the broker and Dramatiq is shared where the line is long; an email that comes
alone waits for no company. The first id stands where older versions have the only one, the others
where these do not look: an older worker processes the first, and the others count as lost messages
after a while. This version understands the messages of older ones.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import dramatiq

ACTOR_NAME = "process_email"
FURTHER_IDS = "email_ids"
CANARY = "canary"
MOST_IDS = 100
# So many messages at least are made of a batch, so that several processes share it.
MESSAGES_OF_BATCH = 4


def ids_of_message(batch: int, *, at_once: int) -> int:
    """How many emails of a batch one message asks for, where a process takes so many at once."""
    return max(1, min(batch // MESSAGES_OF_BATCH, MOST_IDS, at_once))


def make_message(queue: str, email_ids: Sequence[UUID]) -> dramatiq.Message[None]:
    """The message that asks for some emails; one at least."""
    first, *further = map(str, email_ids)
    return dramatiq.Message(
        queue_name=queue,
        actor_name=ACTOR_NAME,
        args=(first,),
        kwargs={},
        options={FURTHER_IDS: further} if further else {},
    )


def make_canary_message(queue: str, token: UUID) -> dramatiq.Message[None]:
    """The message of a canary. An older version finds no email of this id, and does nothing."""
    return make_message(queue, [token]).copy(options={CANARY: True})


def is_canary(message: dramatiq.Message[Any]) -> bool:
    """Whether a message asks for a canary."""
    return bool(message.options.get(CANARY))


def ids_in(message: dramatiq.Message[Any]) -> list[UUID]:
    """The emails that a message asks for."""
    return [UUID(email_id) for email_id in (*message.args, *message.options.get(FURTHER_IDS, ()))]
