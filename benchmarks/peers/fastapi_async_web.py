"""FastAPI with asynchronous SQLAlchemy: one session, one insert and one commit a request."""

import json
import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.peers.sqlalchemy_table import IncomingEmail
from benchmarks.peers.webhook import (
    PATH,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Payload,
    is_signed,
    row_of,
)

engine = create_async_engine(
    make_url(os.environ["BENCHMARK_DATABASE"]).set(drivername="postgresql+asyncpg")
)
make_session = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


async def session() -> AsyncIterator[AsyncSession]:
    """A session for each request."""
    async with make_session() as made:
        yield made


@app.post(PATH)
async def webhook(
    payload: Payload, request: Request, session: Annotated[AsyncSession, Depends(session)]
) -> dict[str, str]:
    """Verify, insert and commit, answer."""
    body = await request.body()
    headers = request.headers
    if not is_signed(body, headers[SIGNATURE_HEADER], headers[TIMESTAMP_HEADER]):
        raise HTTPException(401)
    row = row_of(payload, body)
    row |= {name: json.loads(row[name]) for name in ("raw_payload", "attachment_urls")}
    session.add(IncomingEmail(**row))
    await session.commit()
    return {"status": "accepted", "id": str(row["id"])}
