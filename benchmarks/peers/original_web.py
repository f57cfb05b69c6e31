"""The webhook of the original design: FastAPI, a synchronous session, Dramatiq in the request."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from sqlalchemy.orm import Session

from benchmarks.peers import original
from benchmarks.peers.webhook import (
    PATH,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Payload,
    is_signed,
)

app = FastAPI()


async def verified(request: Request) -> None:
    """Refuse what nobody signed."""
    headers = request.headers
    signature, timestamp = headers[SIGNATURE_HEADER], headers[TIMESTAMP_HEADER]
    if not is_signed(await request.body(), signature, timestamp):
        raise HTTPException(401)


def session() -> Iterator[Session]:
    """A session for each request."""
    with original.make_session() as made:
        yield made


@app.post(PATH, dependencies=[Depends(verified)])
def webhook(payload: Payload, session: Annotated[Session, Depends(session)]) -> dict[str, str]:
    """Insert and commit, send, mark and commit."""
    email_id = original.accept(session, payload.model_dump())
    return {"status": "accepted", "id": str(email_id)}
