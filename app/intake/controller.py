"""The webhook route: HTTP around the Intake."""

import asyncio
from typing import Any

import msgspec
from litestar import Controller, Request, Response, post
from litestar.datastructures import Headers
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from app.intake.intake import Intake
from app.intake.json_body import UnreadableBodyError
from app.intake.openapi import PROBLEM_RESPONSES
from app.intake.payload import InvalidPayloadError
from app.intake.signature import (
    INVOCATION_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    SignatureRefusedError,
)
from app.intake.writer import Admission, NotStoredError
from app.models.webhook_schemas import WebhookResponse, WebhookStatus
from app.problems import problem
from app.settings import get_settings

# Zendesk repeats a 503 only if its Retry-After is short.
RETRY_AFTER_SECONDS = "5"

MESSAGES = {
    WebhookStatus.ACCEPTED: "The email is stored and will be processed.",
    WebhookStatus.DUPLICATE: "The email was stored by an earlier delivery; nothing was added.",
}


class ZendeskWebhookController(Controller):
    """`/api/v1/zendesk`: where Zendesk's webhook delivers."""

    path = "/api/v1/zendesk"
    tags = ["Zendesk"]  # noqa: RUF012 - Litestar declares it so

    @post(
        "/webhook",
        status_code=200,
        operation_id="receiveZendeskWebhook",
        summary="Deliver one inbound email",
        request_max_body_size=get_settings().max_body_bytes,
        responses=PROBLEM_RESPONSES,
    )
    async def receive(self, request: Request[Any, Any, Any]) -> Response[WebhookResponse]:
        """Store one email durably, then answer. 200 means: it is in the database's log on disk."""
        settings = get_settings()
        intake: Intake = request.app.state.intake
        try:
            async with asyncio.timeout(settings.intake_deadline_seconds):
                return await _receive(request, intake)
        except TimeoutError:
            return _unavailable("the email could not be stored in time: send the webhook again")
        except NotStoredError as error:
            return _unavailable(str(error))


async def _receive(request: Request[Any, Any, Any], intake: Intake) -> Response[Any]:
    headers = request.headers
    refusal = _refuse_media_type(headers)
    if refusal is not None:
        return refusal
    reserved = 0
    chunks: list[bytes] = []
    try:
        async for chunk in request.stream():
            intake.reserve(len(chunk))
            reserved += len(chunk)
            chunks.append(chunk)
        admission = await intake.admit(
            b"".join(chunks),
            signature=headers.get(SIGNATURE_HEADER),
            timestamp=headers.get(TIMESTAMP_HEADER),
            invocation_id=headers.get(INVOCATION_HEADER),
        )
    except RequestEntityTooLarge:
        return problem(
            413,
            f"the body is larger than {get_settings().max_body_bytes} bytes "
            "(MAILROOM_MAX_BODY_BYTES)",
        )
    except SignatureRefusedError as error:
        return problem(401, str(error), headers={"WWW-Authenticate": "Zendesk-Webhook-Signature"})
    except UnreadableBodyError as error:
        return problem(400, str(error))
    except InvalidPayloadError as error:
        return problem(400, str(error), errors=error.errors)
    finally:
        intake.give_back(reserved)
    return _answer(admission)


def _refuse_media_type(headers: Headers) -> Response[Any] | None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        return problem(
            415, "the body has to be JSON: set the webhook's request format to JSON in Zendesk"
        )
    if headers.get("content-encoding", "identity").lower() != "identity":
        return problem(415, "the body must not be compressed: send it without Content-Encoding")
    return None


def _answer(admission: Admission) -> Response[Any]:
    status = WebhookStatus.DUPLICATE if admission.is_duplicate else WebhookStatus.ACCEPTED
    answer = WebhookResponse(status=status, message=MESSAGES[status], email_id=admission.email_id)
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _unavailable(detail: str) -> Response[Any]:
    """503, never 500: Zendesk repeats a 503 that carries a short Retry-After, and no 500."""
    return problem(503, detail, headers={"Retry-After": RETRY_AFTER_SECONDS})
