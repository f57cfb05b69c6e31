"""The webhook route: HTTP around the Intake."""

import asyncio
import time
from typing import Any
from uuid import UUID

import attrs
import msgspec
import structlog
from litestar import Controller, Request, Response, post
from litestar.exceptions import HTTPException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.types import Receive, Scope, Send
from opentelemetry.trace import SpanKind

from app.http.bodies import RETRY_AFTER_SECONDS, TooMuchHeldError, read_body
from app.http.problems import problem
from app.intake.admission import Admission
from app.intake.canary import read_canary
from app.intake.intake import Intake
from app.intake.openapi import PROBLEM_RESPONSES, WEBHOOK_PATH
from app.intake.payload import InvalidPayloadError
from app.intake.probe import PROBE_HEADER, answer_probe
from app.intake.quarantine import Quarantine
from app.intake.refusals import KEPT_HEADERS, Refusal, id_of_call
from app.intake.refused import RefusedError
from app.intake.row_writer import NotStoredError
from app.intake.sender_ranges import SenderRanges
from app.intake.signature import (
    INVOCATION_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    SignatureRefusedError,
)
from app.intake.unstorable import UnstorableError
from app.models.quarantined_webhook import QuarantinedWebhook, RefusalReason
from app.models.webhook_schemas import WebhookResponse
from app.models.webhook_status import WebhookStatus
from app.settings import get_settings
from app.telemetry.metrics import ACCEPT_SECONDS, UNAVAILABLE, WEBHOOKS
from app.telemetry.request_id import STATE_KEY
from app.telemetry.tracing import span

log = structlog.get_logger(__name__)

MESSAGES = {
    WebhookStatus.ACCEPTED: "The email is stored and will be processed.",
    WebhookStatus.DUPLICATE: "The email was stored by an earlier delivery; nothing was added.",
    WebhookStatus.ACKNOWLEDGED: "There is no email to be stored.",
}


CONTENT_TYPE = (b"content-type", b"application/json")

MOST_BYTES = get_settings().max_body_bytes

# `X-Forwarded-For` of a proxy that uvicorn trusts may hold anything.
LONGEST_ADDRESS = QuarantinedWebhook.remote_address.length


def encode_answer(status: WebhookStatus, email_id: UUID | None) -> bytes:
    """The body of an answer 200."""
    answer = WebhookResponse(status=status, message=MESSAGES[status], email_id=email_id)
    return msgspec.json.encode(answer)


# What is before an email's id in it and what is behind.
ANSWERS = {
    status: encode_answer(status, UUID(int=0)).split(str(UUID(int=0)).encode())
    for status in WebhookStatus
}
ANSWERED = {status: WEBHOOKS.labels(status) for status in WebhookStatus}


class _Written(Response[Any]):
    """An answer 200 as bytes.

    Of Litestar's `Response` it is what a router asks for: to make that, an `ASGIResponse` of it and
    its headers anew was a tenth of the route's profile.
    """

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        self._body = body

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        return self._send

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = (b"content-length", b"%d" % len(self._body))
        await send(
            {"type": "http.response.start", "status": 200, "headers": [CONTENT_TYPE, length]}
        )
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


class MediaTypeError(RefusedError):
    """The webhook is not sent as plain JSON."""

    reason = RefusalReason.MEDIA_TYPE
    status = 415


class ZendeskWebhookController(Controller):
    """Where Zendesk's webhook delivers."""

    path = WEBHOOK_PATH
    tags = ["Zendesk"]  # noqa: RUF012 - Litestar declares it so

    @post(
        status_code=200,
        operation_id="receiveZendeskWebhook",
        summary="Deliver one inbound email",
        request_max_body_size=MOST_BYTES,
        responses=PROBLEM_RESPONSES,
    )
    async def receive(self, request: Request[Any, Any, Any]) -> Response[WebhookResponse]:
        """Store one email durably, then answer. 200 means: it is in the database's log on disk.

        It may come from a trigger, in the fields below, or as an event of an event subscription,
        which has Zendesk's own envelope. What is refused is kept in the quarantine for a while.
        """
        state = request.app.state
        email_id: UUID = request.scope["state"][STATE_KEY]
        try:
            async with asyncio.timeout(get_settings().intake_deadline_seconds):
                with span("receive webhook", email_id, SpanKind.SERVER):
                    return await _receive(request, email_id, state.intake, state.quarantine)
        except TimeoutError:
            return _unavailable("the email could not be stored in time: send the webhook again")
        except NotStoredError as error:
            return _unavailable(str(error))
        except TooMuchHeldError as error:
            return _unavailable(error.detail)
        except HTTPException:
            raise
        except Exception:
            # A defect of ours must not lose the email: Zendesk does not repeat a 500.
            log.exception("webhook_not_stored")
            return _unavailable("the server failed to store the email: send the webhook again")


async def _receive(
    request: Request[Any, Any, Any], email_id: UUID, intake: Intake, quarantine: Quarantine
) -> Response[Any]:
    began = time.perf_counter()
    headers = _Headers(request.scope)
    body = b""
    try:
        body = await read_body(request.scope, request.receive, most_bytes=MOST_BYTES)
        _check_media_type(headers)
        if headers.get(PROBE_HEADER) is not None:
            return answer_probe(request, body)
        if (token := read_canary(body)) is not None:
            # It comes from Mailroom itself, and counts nowhere.
            canary = await intake.admit_canary(
                body,
                token,
                signature=headers.get(SIGNATURE_HEADER),
                timestamp=headers.get(TIMESTAMP_HEADER),
            )
            return _Written(encode_answer(canary.status, None))
        ranges: SenderRanges = request.app.state.sender_ranges
        sender = ranges.check((request.scope.get("client") or ("",))[0])
        admission = await intake.admit(
            body,
            email_id=email_id,
            signature=headers.get(SIGNATURE_HEADER),
            timestamp=headers.get(TIMESTAMP_HEADER),
            invocation_id=headers.get(INVOCATION_HEADER),
            content_type=headers.get("content-type"),
        )
        ranges.count(sender)
        if admission.unreadable is not None and admission.email_id is not None:
            # Its row is an email that failed; here it can be mended and admitted in its place.
            # Where it cannot be kept now, the 503 has Zendesk repeat it.
            unread = _refusal(request, RefusalReason.UNREADABLE, admission.unreadable, body)
            await quarantine.store(attrs.evolve(unread, id=admission.email_id, is_signed=True))
    except RequestEntityTooLarge:
        detail = f"the body is larger than {MOST_BYTES} bytes (MAILROOM_MAX_BODY_BYTES)"
        await quarantine.store(_refusal(request, RefusalReason.TOO_LARGE, detail, None))
        WEBHOOKS.labels(RefusalReason.TOO_LARGE).inc()
        return problem(413, detail)
    except UnstorableError as error:
        # The 503 has Zendesk repeat it, which helps where the failure passes: what is kept is found
        # to be a duplicate then. Where it does not pass, each repetition ends here again.
        await quarantine.store(_unstorable(request, intake, headers, error, body))
        WEBHOOKS.labels(error.reason).inc()
        return problem(503, str(error), headers={"Retry-After": RETRY_AFTER_SECONDS})
    except RefusedError as error:
        if headers.get(PROBE_HEADER) is not None or read_canary(body) is not None:
            return _refuse(error)
        is_signed = not isinstance(error, SignatureRefusedError) and intake.is_signed(
            body, headers.get(SIGNATURE_HEADER), headers.get(TIMESTAMP_HEADER)
        )
        refusal = _refusal(request, error.reason, str(error), body)
        await quarantine.store(attrs.evolve(refusal, is_signed=is_signed))
        WEBHOOKS.labels(error.reason).inc()
        return _refuse(error)
    ACCEPT_SECONDS.observe(time.perf_counter() - began)
    log.debug(
        "webhook_stored", email_id=str(admission.email_id), is_duplicate=admission.is_duplicate
    )
    return _answer(admission)


class _Headers:
    """What Litestar's own `Headers` tell of a request, without its making one of each."""

    __slots__ = ("_fields",)

    def __init__(self, scope: Scope) -> None:
        # Of one that comes twice the first counts.
        self._fields = dict(reversed(list(scope["headers"])))

    def get(self, name: str) -> str | None:
        value = self._fields.get(name.encode())
        return None if value is None else value.decode("latin-1")


def _check_media_type(headers: _Headers) -> None:
    media_type = (headers.get("content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise MediaTypeError(
            "the body has to be JSON: set the webhook's request format to JSON in Zendesk"
        )
    if (headers.get("content-encoding") or "identity").lower() != "identity":
        raise MediaTypeError("the body must not be compressed: send it without Content-Encoding")


def _refusal(
    request: Request[Any, Any, Any], reason: RefusalReason, detail: str, body: bytes | None
) -> Refusal:
    client = request.client
    return Refusal(
        id=request.scope["state"][STATE_KEY],
        reason=reason,
        detail=detail,
        remote_address=client.host[:LONGEST_ADDRESS] if client else "",
        headers={name: request.headers[name] for name in KEPT_HEADERS if name in request.headers},
        body=body,
    )


def _unstorable(
    request: Request[Any, Any, Any],
    intake: Intake,
    headers: _Headers,
    error: UnstorableError,
    body: bytes,
) -> Refusal:
    refusal = _refusal(request, error.reason, str(error), body)
    invocation_id = headers.get(INVOCATION_HEADER)
    return attrs.evolve(
        refusal,
        id=id_of_call(invocation_id, body) if invocation_id else refusal.id,
        is_signed=intake.is_signed(
            body, headers.get(SIGNATURE_HEADER), headers.get(TIMESTAMP_HEADER)
        ),
    )


def _refuse(error: RefusedError) -> Response[Any]:
    match error:
        case SignatureRefusedError():
            headers = {"WWW-Authenticate": "Zendesk-Webhook-Signature"}
            return problem(error.status, str(error), headers=headers)
        case InvalidPayloadError():
            return problem(error.status, str(error), errors=error.errors)
        case _:
            return problem(error.status, str(error))


def _answer(admission: Admission) -> Response[Any]:
    status = admission.status
    ANSWERED[status].inc()
    if admission.email_id is None:
        return _Written(encode_answer(status, None))
    before, after = ANSWERS[status]
    return _Written(b"%b%b%b" % (before, str(admission.email_id).encode(), after))


def _unavailable(detail: str) -> Response[Any]:
    """503, never 500: Zendesk repeats a 503 that carries a short Retry-After, and no 500."""
    WEBHOOKS.labels(UNAVAILABLE).inc()
    return problem(503, detail, headers={"Retry-After": RETRY_AFTER_SECONDS})
