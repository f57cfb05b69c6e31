"""How the webhook route appears in the OpenAPI schema.

The route reads raw bytes, since a signature covers bytes, so Litestar cannot see its DTO: the
request body is described here from the same classes.
"""

from litestar import Litestar, post
from litestar.openapi.spec import (
    Example,
    OpenAPI,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
)
from litestar.params import JSONBody

from app.http.problems import problem_response
from app.intake.signature import INVOCATION_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from app.models.webhook_schemas import ZendeskWebhookEmail

WEBHOOK_PATH = "/api/v1/zendesk/webhook"

EXAMPLE_EMAIL = {
    "ticket_id": "35436",
    "from_email": "erika.mustermann@example.com",
    "from_name": "Erika Mustermann",
    "subject": "Wo bleibt mein Päckchen?",
    "body_html": "<p>Guten Tag,<br>wo ist mein Päckchen?</p>",
    "body_text": "Guten Tag, wo ist mein Päckchen?",
    "received_at": "2026-11-23T14:05:09Z",
    "webhook_id": "01HF5Z3V9K8Q2W7X6N4M1B0C5D",
    "attachments": [
        {
            "url": "https://example.zendesk.com/attachments/token/3x4mpl3/?name=rechnung.pdf",
            "filename": "rechnung.pdf",
            "content_type": "application/pdf",
            "size": 12345,
        }
    ],
}

HEADERS = {
    SIGNATURE_HEADER: "base64(HMAC-SHA256(secret, timestamp + body))",
    TIMESTAMP_HEADER: "ISO 8601 time at which Zendesk signed, e.g. 2026-11-23T14:05:09Z",
    INVOCATION_HEADER: "Zendesk's id of this delivery; serves where the body has no webhook_id",
}


PROBLEM_RESPONSES = {
    400: problem_response(
        "No email: without ticket or sender, blank, no object; or not JSON, unsigned"
    ),
    401: problem_response("The signature is missing, wrong, or too old"),
    413: problem_response("The body is larger than MAILROOM_MAX_BODY_BYTES"),
    415: problem_response("The body is not uncompressed application/json"),
    503: problem_response("The email is not stored yet: send it again after Retry-After seconds"),
}


def describe_webhook(openapi: OpenAPI) -> None:
    """Add to the schema what the handler's signature cannot tell: the route's body and headers."""
    operation = openapi.paths[WEBHOOK_PATH].post if openapi.paths else None
    dto_operation, dto_schemas = _schema_of_the_dto()
    if operation is None or not isinstance(dto_operation.request_body, RequestBody):
        raise RuntimeError("Litestar made no schema of the webhook")
    (media,) = dto_operation.request_body.content.values()
    media.examples = {"email": Example(summary="An email", value=EXAMPLE_EMAIL)}
    operation.request_body = dto_operation.request_body
    operation.parameters = [
        Parameter(
            name=name,
            param_in="header",
            required=False,
            description=description,
            schema=Schema(type=OpenAPIType.STRING),
        )
        for name, description in HEADERS.items()
    ]
    openapi.components.schemas = {**(openapi.components.schemas or {}), **dto_schemas}


@post("/")
async def _takes_the_dto(data: JSONBody[ZendeskWebhookEmail]) -> None: ...


def _schema_of_the_dto() -> tuple[Operation, dict[str, Schema]]:
    schema = Litestar([_takes_the_dto], logging_config=None).openapi_schema
    if schema.paths is None or (operation := schema.paths["/"].post) is None:
        raise RuntimeError("Litestar made no schema of the webhook's DTO")
    return operation, schema.components.schemas or {}
