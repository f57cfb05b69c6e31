"""The doctor of payloads: what is wrong with a webhook's body as it came, and where."""

import json
import re
from collections.abc import Mapping
from typing import Any

from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext as _
from app.intake.broken_json import AmbiguousError
from app.intake.charset import decode_with_gaps
from app.intake.encoded_texts import ENCODED_PROBE, PROBE, PROBE_PLACEHOLDER, decode_texts
from app.intake.encoded_texts import FIELD as ENCODING
from app.intake.events import is_event
from app.intake.field_orders import DOCUMENTED, FieldOrders, repeated_field
from app.intake.json_body import CONTROL_CHARACTERS, BrokenBodyError, JsonBody, read_json_object
from app.intake.payload import InvalidPayloadError, check_payload
from app.intake.refused import RefusedError
from app.zendesk.lint.field_rules import RIGHT, meant_by
from app.zendesk.lint.findings import Findings, Report
from app.zendesk.lint.json_scan import Scanner

WEBHOOK_HEADER = "x-zendesk-webhook-id"

_FIELD = re.compile(rf'"({"|".join(DOCUMENTED)})"\s*:')
_PLACEHOLDER = re.compile(r"\s*(?:\{\{[^{}]*\}\}|\{%[^{}]*%\})\s*")
_HTML = re.compile(r"\s*<(?:!doctype|html|head|body|div|p|table|span|br|meta)\b", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)


def lint_payload(
    body: bytes, *, headers: Mapping[str, str] | None = None, orders: FieldOrders | None = None
) -> Report:
    """Look at a body. Never raises, whatever the bytes.

    Args:
        headers: those it came with, in lower case, as far as they are known.
        orders: what is known of the fields of the templates.
    """
    headers = headers or {}
    content_type = headers.get("content-type")
    text, gaps = decode_with_gaps(body, content_type)
    findings = Findings(text)
    _look_at_media_type(content_type, findings)
    if gaps:
        findings.add(
            max(text.find("\ufffd"), 0), "charset", _("%(gaps)s: send it as UTF-8", gaps=gaps)
        )
    try:
        json_body = read_json_object(text.encode("utf-8", "replace"))
    except BrokenBodyError as error:
        _look_at_broken(text, as_told(str(error)), orders or FieldOrders(), findings)
        return Report("payload", findings.all())
    except RefusedError as error:
        findings.add(0, "no-object", as_told(str(error)))
        return Report("payload", findings.all())
    if is_event(json_body.fields):
        return Report("event", findings.all())
    _look_at_fields(text, json_body, headers, findings)
    return Report("payload", findings.all())


def _look_at_media_type(content_type: str | None, findings: Findings) -> None:
    media_type = (content_type or "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        findings.add(
            0,
            "content-type",
            _(
                "it came as %(type)s: set the webhook's request format to JSON",
                type=media_type[:60],
            ),
            "application/json",
        )


def _look_at_broken(text: str, why: str, orders: FieldOrders, findings: Findings) -> None:
    try:
        json.loads(text.removeprefix("\ufeff"), strict=False)
        place = 0
    except json.JSONDecodeError as error:
        place = error.pos + text.startswith("\ufeff")
    except (ValueError, RecursionError):
        place = 0
    name = None
    for match in _FIELD.finditer(text, 0, place):
        name = match[1]
    try:
        mended = orders.read(text.removeprefix("\ufeff"))
    except (AmbiguousError, RecursionError) as error:
        said, right = _("it cannot be mended: %(why)s", why=error), None
    else:
        said = "; ".join(mended.notes) or _("it can be mended")
        right = json.dumps(mended.value, ensure_ascii=False, indent=2)
    if name is None:
        findings.add(place, "not-json", f"{why}; {said}", right)
        return
    encoded = RIGHT.get(name)
    cause = (
        _("most likely its text holds a quote or a backslash that is not escaped")
        if encoded
        else _("look for a comma too many or too few, and for quotes")
    )
    mend = ""
    if encoded:
        in_template = f'"{name}": "{encoded}"'
        mend = " " + _("In the template: %(right)s", right=in_template)
    findings.add(
        min(place, max(len(text) - 1, 0)),
        "not-json",
        _(
            "the JSON breaks here, in %(name)s or behind it: %(cause)s; %(mended)s.",
            name=name,
            cause=cause,
            mended=said,
        )
        + mend,
        right,
    )


def _look_at_fields(
    text: str, json_body: JsonBody, headers: Mapping[str, str], findings: Findings
) -> None:
    # What the scanner says of JSON that reads as it is, is of no interest.
    value = Scanner(text, (), Findings(text)).scan()
    places = {member.name: member.start for member in value.members}

    def place(name: str) -> int:
        return places.get(name, value.start)

    if CONTROL_CHARACTERS in json_body.mended:
        findings.remark(0, "control-characters", CONTROL_CHARACTERS)
    pairs = [(member.name, text[member.value.start : member.value.end]) for member in value.members]
    if (repeated := repeated_field(pairs)) is not None:
        findings.add(
            place(repeated), "twice", _("%(name)s comes twice, with two values", name=repeated)
        )
    fields = decode_texts(json_body.fields)
    try:
        left_out = check_payload(fields).left_out
    except InvalidPayloadError as error:
        left_out = []
        for one in error.errors:
            findings.add(
                place(one.field),
                "missing-field",
                f"{one.field} {as_told(one.message)}" + _other_name(one.field, fields),
                f'"{one.field}": "{RIGHT.get(one.field, "")}"',
            )
    for said in left_out:
        findings.add(place(said.partition(":")[0].partition(" ")[0]), "not-taken", said)
    for name, content in fields.items():
        if name not in DOCUMENTED:
            findings.remark(
                place(name),
                "unknown-field",
                _("%(name)s is kept in raw_payload and not read", name=name[:100]),
            )
        elif isinstance(content, str):
            _look_at_text(name, content, place(name), findings)
    _look_at_encoding(fields.get(ENCODING), place(ENCODING), findings)
    webhook_id = fields.get("webhook_id")
    if webhook_id and webhook_id == headers.get(WEBHOOK_HEADER):
        findings.add(
            place("webhook_id"),
            "webhook-id",
            _("it is the webhook's own id, the same in each delivery: leave webhook_id out"),
            "",
        )


def _other_name(missing: str, fields: Mapping[str, Any]) -> str:
    other = next((name for name in fields if meant_by(name) == missing), None)
    return _(": %(name)s is not read", name=other[:60]) if other and missing not in fields else ""


def _look_at_text(name: str, text: str, place: int, findings: Findings) -> None:
    if _PLACEHOLDER.fullmatch(text):
        findings.add(
            place,
            "not-rendered",
            _(
                "%(name)s is the placeholder %(text)s: Zendesk did not render the template",
                name=name,
                text=text.strip()[:60],
            ),
            RIGHT.get(name),
        )
    elif name == "body_text" and _HTML.match(text):
        findings.add(
            place,
            "html-as-text",
            _("it is HTML, and this field is text"),
            f'"body_text": "{RIGHT["body_text"]}"',
        )
    elif name == "body_html" and text.strip() and not _TAG.search(text):
        findings.remark(
            place,
            "text-as-html",
            _("it has no tags: Zendesk sends text here, which is read as text"),
        )


def _look_at_encoding(probe: Any, place: int, findings: Findings) -> None:
    if probe == PROBE:
        findings.remark(
            place,
            "no-url-encode",
            _("this Liquid does not know url_encode: texts come as they are"),
        )
    elif probe is not None and probe != ENCODED_PROBE:
        findings.add(
            place,
            "wrong-probe",
            _("%(field)s tells whether texts are encoded, by a probe", field=ENCODING),
            f'"{ENCODING}": "{PROBE_PLACEHOLDER}"',
        )
