"""Messages of one email and of many, between workers of this version and of older ones."""

import inspect
from uuid import uuid4

import dramatiq
import pytest

from app.jobs.messages import ACTOR_NAME, MOST_IDS, ids_in, ids_of_message, make_message


@pytest.mark.parametrize("number", [1, 2, 100])
def test_a_message_asks_for_all_its_emails_in_their_order(number: int) -> None:
    ids = [uuid4() for _ in range(number)]
    sent = make_message("mailroom", ids).encode()
    assert ids_in(dramatiq.Message.decode(sent)) == ids


def test_a_message_of_an_older_version_asks_for_its_one_email() -> None:
    email_id = uuid4()
    older = dramatiq.Message(
        queue_name="mailroom",
        actor_name=ACTOR_NAME,
        args=(str(email_id),),
        kwargs={},
        options={"retries": 3, "redis_message_id": "x"},
    )
    assert ids_in(older) == [email_id]


def test_an_older_worker_finds_the_first_email_where_it_expects_it() -> None:
    ids = [uuid4() for _ in range(3)]

    async def process_email(email_id: str) -> None:
        """The actor as it was up to version 0.1."""

    message = dramatiq.Message.decode(make_message("mailroom", ids).encode())
    assert message.actor_name == "process_email"
    called = inspect.signature(process_email).bind(*message.args, **message.kwargs)
    assert called.arguments == {"email_id": str(ids[0])}


@pytest.mark.parametrize(
    ("batch", "at_once", "expected"),
    [
        (1, 100, 1),
        (7, 100, 1),
        (8, 100, 2),
        (200, 100, 50),
        (200, 8, 8),
        (200, 1, 1),
        (1_000, 1_000, MOST_IDS),
    ],
)
def test_messages_grow_with_the_line_and_leave_something_for_other_processes(
    batch: int, at_once: int, expected: int
) -> None:
    assert ids_of_message(batch, at_once=at_once) == expected
