"""What is wrong with the fields of a template: those that Mailroom needs, and what fills them."""

import re
from difflib import get_close_matches

from app.i18n.texts import gettext as _
from app.intake.field_orders import DOCUMENTED, REQUIRED
from app.zendesk.lint.findings import Findings
from app.zendesk.lint.json_values import Member, Value
from app.zendesk.lint.liquid_text import Kind, Output, read_output
from app.zendesk.lint.placeholders import COMMENTS, Holds, holds, normal
from app.zendesk.template import SENDER, SENDER_NAME

RIGHT = {
    "ticket_id": "{{ticket.id}}",
    "from_email": SENDER,
    "from_name": SENDER_NAME,
    "subject": "{{ticket.title | url_encode}}",
    "body_text": "{{ticket.latest_comment.value | url_encode}}",
    "body_html": "{{ticket.latest_comment_html | url_encode}}",
    "received_at": "{{ticket.updated_at_with_timestamp}}",
}
# How others call what Mailroom reads.
_MEANT = {
    **dict.fromkeys(("ticketid", "ticket", "id", "ticketnumber", "number"), "ticket_id"),
    **dict.fromkeys(
        ("email", "from", "sender", "senderemail", "requesteremail", "fromaddress"), "from_email"
    ),
    **dict.fromkeys(("name", "fromname", "sendername", "requestername"), "from_name"),
    **dict.fromkeys(("title", "topic"), "subject"),
    **dict.fromkeys(("body", "text", "message", "comment", "description", "content"), "body_text"),
    **dict.fromkeys(("html", "htmlbody", "bodyhtml", "messagehtml"), "body_html"),
    **dict.fromkeys(("date", "time", "createdat", "timestamp", "receivedat"), "received_at"),
    **dict.fromkeys(("files", "attachment"), "attachments"),
    "webhookid": "webhook_id",
}
_NEEDED = (*REQUIRED, "body_text", "body_html")
_ALL_COMMENTS = (*COMMENTS, "ticket.comments_formatted", "ticket.public_comments_formatted")
_NO_LETTERS = re.compile("[^a-z]")
_TIMES_FOR_PEOPLE = (
    *("ticket.created_at", "ticket.created_at_with_time", "ticket.updated_at"),
    *("ticket.updated_at_with_time", "ticket.due_date"),
)
# Who wrote this comment.
_AUTHORS = ("ticket.latest_comment.author.email", "current_user.email")
_CUSTOMERS = (
    *(*_AUTHORS, "ticket.latest_public_comment.author.email"),
    *("ticket.requester.email", "ticket.submitter.email"),
)


class Field:
    """A field of a template, and the outputs that fill it."""

    def __init__(self, member: Member) -> None:
        self.name = member.name
        self.start = member.start
        self.value = member.value
        self.outputs: list[tuple[int, Output]] = [
            (token.start, read_output(token.inner))
            for token in member.value.liquid
            if token.kind is Kind.OUTPUT
        ]

    @property
    def paths(self) -> list[str]:
        """Its placeholders."""
        return [normal(output.path) for _start, output in self.outputs if output.path]

    @property
    def is_constant(self) -> bool:
        """Whether it is the same in each email."""
        return not self.value.liquid and self.value.kind in ("string", "bare")


def look_at_fields(value: Value, findings: Findings) -> None:
    """Note what is wrong with the fields of the object that a template is."""
    fields = {member.name: Field(member) for member in value.members}
    _look_at_names(fields, value, findings)
    for field in fields.values():
        _look_at_field(field, findings)


def _look_at_names(fields: dict[str, Field], value: Value, findings: Findings) -> None:
    for name in REQUIRED:
        if name not in fields:
            other = next((one for one in fields if meant_by(one) == name), None)
            findings.add(
                value.start if other is None else fields[other].start,
                "missing-field",
                _("%(name)s is missing, and without it there is no email", name=name)
                + (_(": %(name)s is not read", name=other) if other else ""),
                f'"{name}": "{RIGHT[name]}"',
            )
    if not {"body_text", "body_html"} & fields.keys():
        other = next((one for one in fields if meant_by(one) in ("body_text", "body_html")), None)
        findings.add(
            value.start if other is None else fields[other].start,
            "missing-field",
            _("neither body_text nor body_html is there: the email would have no text")
            + (_(", as %(name)s is not read", name=other) if other else ""),
            f'"body_text": "{RIGHT["body_text"]}"',
        )
    for name, field in fields.items():
        if name not in DOCUMENTED:
            meant = meant_by(name)
            is_said = meant in REQUIRED or (meant or "").startswith("body_")
            meant = (
                None if meant in fields or (is_said and findings.has("missing-field")) else meant
            )
            findings.remark(
                field.start,
                "unknown-field",
                _("%(name)s is kept in raw_payload and not read", name=name[:100])
                + (_(": is %(name)s meant?", name=meant) if meant else ""),
                f'"{meant}"' if meant else None,
            )


def meant_by(name: str) -> str | None:
    """The field that an unknown name seems to mean."""
    letters = _NO_LETTERS.sub("", name.lower())
    if name in DOCUMENTED:
        return None
    known = {_NO_LETTERS.sub("", one): one for one in DOCUMENTED} | _MEANT
    if letters in known:
        return known[letters]
    close = get_close_matches(letters, known, n=1, cutoff=0.85)
    return known[close[0]] if close else None


def _look_at_field(field: Field, findings: Findings) -> None:
    name, paths = field.name, field.paths
    right = f'"{name}": "{RIGHT[name]}"' if name in RIGHT else None
    if name in REQUIRED and field.is_constant:
        findings.add(
            field.value.start,
            "constant",
            _("%(name)s would be the same in each email", name=name),
            right,
        )
    match name:
        case "ticket_id":
            if paths and not any(path == "ticket.id" for path in paths):
                findings.add(
                    field.value.start, "wrong-source", _("it is not the ticket's id"), right
                )
        case "from_email":
            wrong = [path for path in paths if path not in _CUSTOMERS]
            if wrong:
                findings.add(
                    field.value.start,
                    "wrong-source",
                    _("%(path)s is not the customer's address", path=wrong[0]),
                    right,
                )
            elif paths and not set(paths) & set(_AUTHORS):
                findings.remark(
                    field.value.start,
                    "not-the-author",
                    _(
                        "where somebody in copy answers, %(path)s is not who wrote the email",
                        path=paths[0],
                    ),
                    right,
                )
        case "received_at":
            if any(path in _TIMES_FOR_PEOPLE for path in paths):
                findings.add(
                    field.value.start,
                    "time-for-people",
                    _("it is written for people, in part without a year: Mailroom cannot read it"),
                    right,
                )
        case "webhook_id":
            _look_at_webhook_id(field, findings)
        case "body_text" | "body_html":
            _look_at_body(field, findings)


def _look_at_webhook_id(field: Field, findings: Findings) -> None:
    paths = field.paths
    is_given = field.value.kind in ("string", "bare") and field.value.end - field.value.start > 2
    if field.is_constant and is_given:
        said = _("it is the same in each delivery, such as the webhook's own id")
    elif any("webhook" in path for path in paths):
        said = _("it would be the webhook's own id, the same in each delivery")
    elif paths and all(path.startswith("ticket.") and "comment" not in path for path in paths):
        said = _("it is the same in each delivery about a ticket")
    else:
        return
    findings.add(
        field.start,
        "webhook-id",
        _(
            "%(why)s: leave webhook_id out, the header X-Zendesk-Webhook-Invocation-Id serves",
            why=said,
        ),
        "",
    )


def _look_at_body(field: Field, findings: Findings) -> None:
    for start, output in field.outputs:
        path = normal(output.path or "")
        right = f'"{field.name}": "{RIGHT[field.name]}"'
        kind = holds(path)
        if path in _ALL_COMMENTS:
            findings.add(
                start,
                "all-comments",
                _("it is all comments of the ticket, in each email anew"),
                right,
            )
        elif field.name == "body_text" and kind is Holds.HTML and not output.has("strip_html"):
            findings.add(
                start,
                "html-as-text",
                _("%(path)s is HTML, and this field is text", path=path),
                right,
            )
        elif field.name == "body_html" and kind is Holds.TEXT:
            findings.add(
                start,
                "text-as-html",
                _("%(path)s is text, and this field is HTML", path=path),
                f'"body_text": "{RIGHT["body_text"]}"',
            )
        elif path == "ticket.description":
            findings.remark(
                start,
                "first-comment",
                _("it is the ticket's first comment, in an answer, too, with a line about it"),
                right,
            )
