"""How the webhook route appears in the OpenAPI schema.

The route reads raw bytes, since a signature covers bytes, so Litestar cannot see its DTO: the
request body is described here from the same classes.
"""

from functools import cache

from litestar import Litestar, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Components, Example, OpenAPIType, Operation, Parameter, Schema
from litestar.params import JSONBody

from app.intake.signature import INVOCATION_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from app.models.webhook_schemas import ZendeskWebhookEmail
from app.problems import PROBLEM_JSON, ProblemDetails

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


def _problem(description: str) -> ResponseSpec:
    return ResponseSpec(ProblemDetails, description=description, media_type=PROBLEM_JSON)


PROBLEM_RESPONSES = {
    400: _problem("Not JSON, or fields are missing, blank or of the wrong type: all are named"),
    401: _problem("The signature is missing, wrong, or too old"),
    413: _problem("The body is larger than MAILROOM_MAX_BODY_BYTES"),
    415: _problem("The body is not uncompressed application/json"),
    503: _problem("The email is not stored yet: send it again after Retry-After seconds"),
}


@post("/")
async def _takes_the_dto(data: JSONBody[ZendeskWebhookEmail]) -> None: ...


@cache
def _schema_of_the_dto() -> tuple[Operation, Components]:
    schema = Litestar([_takes_the_dto], logging_config=None).openapi_schema
    if schema.paths is None or (operation := schema.paths["/"].post) is None:
        raise RuntimeError("Litestar made no schema of the webhook's DTO")
    return operation, schema.components


def webhook_components() -> Components:
    """The schemas that the request body refers to."""
    schemas = {
        name: schema
        for name, schema in (_schema_of_the_dto()[1].schemas or {}).items()
        if name.startswith(("ZendeskWebhookEmail", "Attachment"))
    }
    return Components(schemas=schemas)


class WebhookOperation(Operation):
    """The webhook's operation: its body and headers, which the handler's signature cannot tell."""

    def __post_init__(self) -> None:
        body = _schema_of_the_dto()[0].request_body
        media = body.content["application/json"]  # type: ignore[union-attr]
        media.examples = {"email": Example(summary="An email", value=EXAMPLE_EMAIL)}
        self.request_body = body
        self.parameters = [
            Parameter(
                name=name,
                param_in="header",
                required=False,
                description=description,
                schema=Schema(type=OpenAPIType.STRING),
            )
            for name, description in HEADERS.items()
        ]
