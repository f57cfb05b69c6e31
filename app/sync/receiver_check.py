"""Asks the receiver which deliveries it has, where it offers that (`MAILROOM_SYNC_CHECK_URL`)."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPMethod
from uuid import UUID, uuid4

from app.outbound.client import Limits, OutboundClient
from app.outbound.errors import OutboundError
from app.settings import Settings
from app.sync.differences import Looked
from app.sync.receiver import rules_of
from app.sync.reconciling import Asks, ReceiverCheckError
from app.sync.signing import Signer, id_of_email

# An answer that names all that are asked for at once, each with room to spare.
MOST_BYTES = 256 * 1024
TYPE = "deliveries.check"


@asynccontextmanager
async def asking_receiver(settings: Settings) -> AsyncIterator[Asks]:
    """A way to ask, over connections that are closed afterwards."""
    client = OutboundClient(
        rules_of(settings, settings.sync_check_url),
        Limits(total_seconds=settings.sync_timeout_seconds, most_bytes=MOST_BYTES),
        ca_file=settings.outbound_ca_file,
    )
    signer = Signer(settings.sync_secrets)

    async def asks(emails: Sequence[Looked]) -> set[UUID]:
        ids = {id_of_email(email.id, email.sync_version): email.id for email in emails}
        has = await _ask(client, signer, settings.sync_check_url, list(ids))
        return {ids[one] for one in has if one in ids}

    try:
        yield asks
    finally:
        await client.aclose()


async def _ask(client: OutboundClient, signer: Signer, url: str, ids: list[str]) -> list[str]:
    body = json.dumps({"type": TYPE, "ids": ids}, separators=(",", ":"))
    headers = {
        "content-type": "application/json",
        **signer.headers(f"check_{uuid4().hex}", body),
    }
    try:
        async with client.ask(
            HTTPMethod.POST, url, headers=headers, content=body.encode()
        ) as answer:
            if answer.status != 200:
                raise ReceiverCheckError(
                    f"the receiver's MAILROOM_SYNC_CHECK_URL answered {answer.status}: it has to "
                    "answer 200"
                )
            said = json.loads(await answer.read())
    except OutboundError as error:
        raise ReceiverCheckError(
            f"the receiver's MAILROOM_SYNC_CHECK_URL cannot be asked: {error}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ReceiverCheckError(_not_understood()) from error
    has = said.get("has") if isinstance(said, dict) else None
    if not isinstance(has, list) or not all(isinstance(one, str) for one in has):
        raise ReceiverCheckError(_not_understood())
    return has


def _not_understood() -> str:
    return (
        "the receiver's MAILROOM_SYNC_CHECK_URL did not answer with JSON such as "
        '{"has": ["email_..."]}: the ids, of those in the request, that it has'
    )
