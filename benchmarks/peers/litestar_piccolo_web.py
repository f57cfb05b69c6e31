"""Litestar with one Piccolo insert a request, into Mailroom's own table."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, Request, post
from litestar.exceptions import NotAuthorizedException
from litestar.params import JSONBody

from app.database.engine import DB
from app.models.incoming_email import IncomingEmail
from benchmarks.peers.webhook import (
    PATH,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Payload,
    is_signed,
    row_of,
)


@asynccontextmanager
async def connection_pool(app: Litestar) -> AsyncIterator[None]:
    """Connections for the time of the app."""
    await DB.start_connection_pool()
    yield
    await DB.close_connection_pool()


@post(PATH, status_code=200)
async def webhook(data: JSONBody[Payload], request: Request) -> dict[str, str]:
    """Verify, insert, answer."""
    body = await request.body()
    headers = request.headers
    if not is_signed(body, headers[SIGNATURE_HEADER], headers[TIMESTAMP_HEADER]):
        raise NotAuthorizedException
    row = row_of(data, body)
    await IncomingEmail.insert(IncomingEmail(row))
    return {"status": "accepted", "id": str(row["id"])}


app = Litestar([webhook], lifespan=[connection_pool])
