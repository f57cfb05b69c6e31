"""What a handler looks at that was not fetched with its email: fetched now, while it waits."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg

from app.handlers.seam import Retry
from app.jobs.claimed_email import LATE, FetchLate
from app.jobs.postgres_broker import BoundedConnection, connection_parameters

SELECT_LATE = "SELECT raw_payload::text, original_body FROM incoming_emails WHERE id = %s"


def late_columns_of(url: str) -> FetchLate:
    """What fetches them from a database, over a connection for once: it is rare.

    It raises Retry where that is away.
    """

    def fetch(email_id: UUID) -> Sequence[Any]:
        parameters = {**connection_parameters(url), "application_name": "mailroom"}
        try:
            with BoundedConnection.connect(**parameters) as connection:
                row = connection.execute(SELECT_LATE, [email_id]).fetchone()
        except psycopg.Error as error:
            raise Retry(f"the payload could not be read: {type(error).__name__}") from error
        return row or (None,) * len(LATE)

    return fetch
