"""Renders a template with hostile tickets, and reads what comes out as the Intake does.

Zendesk's Liquid is Ruby's. python-liquid keeps to it, but for what is put right here: Ruby's `gsub`
behind `replace` reads backslashes in what it puts in, and a filter that it does not know passes
its input on.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from liquid import Environment
from liquid.exceptions import FilterError, LiquidError

from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext as _
from app.intake.encoded_texts import decode_texts
from app.intake.field_orders import repeated_field
from app.intake.json_body import CONTROL_CHARACTERS, read_json_object
from app.intake.payload import check_payload
from app.intake.placeholders import refuse_unrendered
from app.intake.refused import RefusedError
from app.models.fit import fit_text
from app.zendesk.lint.findings import Broken
from app.zendesk.lint.hostile_tickets import TICKETS, Ticket
from app.zendesk.lint.liquid_rules import FILTERS, TAGS
from app.zendesk.lint.placeholders import normal
from app.zendesk.lint.zendesk_objects import template_data

LONGEST_SHOWN = 400
LONGEST_TEXT = 2_000_000

_BACKREFERENCE = re.compile(r"\\(?:(?P<number>\d)|(?P<mark>[\\&`']))")


class _Zendesk(Environment):
    """Liquid as Zendesk runs it, within bounds."""

    loop_iteration_limit = 2_000
    output_stream_limit = LONGEST_TEXT
    local_namespace_limit = LONGEST_TEXT


class TemplateError(Exception):
    """Liquid cannot read or run the template."""

    def __init__(self, message: str, offset: int | None) -> None:
        super().__init__(message)
        self.offset = offset


def render_each(template: str) -> Iterator[tuple[Ticket, str]]:
    """What Zendesk would send of each hostile ticket.

    Raises:
        TemplateError: Zendesk would send nothing.
    """
    try:
        parsed = _ENVIRONMENT.from_string(template)
        for ticket in TICKETS:
            yield ticket, parsed.render(**template_data(ticket))
    except LiquidError as error:
        offset = error.token.start_index if error.token else None
        raise TemplateError(str(error.message), offset) from error
    except RecursionError as error:
        raise TemplateError(_("it is nested too deep"), None) from error
    except Exception as error:
        # Whatever a template of a stranger makes the library raise.
        raise TemplateError(
            _("it cannot be run: %(error)s", error=type(error).__name__), None
        ) from error


def first_broken(template: str, plain_fields: Mapping[str, str]) -> Broken | None:
    """The first ticket that a template does not survive.

    Args:
        plain_fields: the placeholder of each field that should come out as it is.

    Raises:
        TemplateError: Zendesk would send nothing.
    """
    for ticket, rendered in render_each(template):
        why = _what_breaks(ticket, rendered, plain_fields)
        if why is not None:
            return Broken(_(ticket.what), why, rendered[:LONGEST_SHOWN])
    return None


def _what_breaks(ticket: Ticket, rendered: str, plain_fields: Mapping[str, str]) -> str | None:
    try:
        body = read_json_object(rendered.encode("utf-8", "replace"))
        if not set(body.mended) <= {CONTROL_CHARACTERS}:
            return body.mended[0]
        repeated = repeated_field(json.loads(rendered, strict=False, object_pairs_hook=list))
        if repeated is not None:
            return _("%(name)s comes twice", name=repeated)
        payload = check_payload(decode_texts(body.fields))
        refuse_unrendered(payload)
    except RefusedError as error:
        return as_told(str(error))
    if payload.left_out:
        return payload.left_out[0]
    if len(payload.attachment_urls) not in (0, len(ticket.files)):
        return _(
            "of %(files)s files %(come)s come out",
            files=len(ticket.files),
            come=len(payload.attachment_urls),
        )
    for name, path in plain_fields.items():
        sent = _value(ticket, path)
        came = getattr(payload.email, name)
        if sent is not None and _lines(came or "") != _lines(fit_text(sent)):
            return _(
                "%(name)s comes out changed: %(came)s instead of %(sent)s",
                name=name,
                came=repr(str(came)[:80]),
                sent=repr(sent[:80]),
            )
    return None


def _lines(text: str) -> str:
    # python-liquid writes one kind of line break.
    return text.replace("\r\n", "\n").strip()


def _value(ticket: Ticket, path: str) -> str | None:
    """What a placeholder stands for, where it is one of the texts of a ticket."""
    path = normal(path)
    if path in ("ticket.latest_comment", "ticket.latest_public_comment"):
        return ticket.text
    found: Any = template_data(ticket)
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return str(found) if isinstance(found, str) else None


def _replace(value: Any, found: Any = "", put: Any = "") -> str:
    """As Ruby's `gsub`: `\\\\` is one backslash, `\\0` what was found."""
    text, found, put = str(value), str(found), str(put)
    if not found:
        return text

    def expand(match: re.Match[str]) -> str:
        def one(reference: re.Match[str]) -> str:
            mark = reference["mark"] or reference["number"]
            before, after = text[: match.start()], text[match.end() :]
            parts = {"\\": "\\", "&": match.group(), "0": match.group(), "`": before, "'": after}
            return parts.get(mark, "")

        return _BACKREFERENCE.sub(one, put)

    length = 0

    def bounded(match: re.Match[str]) -> str:
        nonlocal length
        expanded = expand(match)
        length += len(expanded)
        if length > LONGEST_TEXT:
            raise FilterError("replace makes it too long", token=None)
        return expanded

    return re.sub(re.escape(found), bounded, text)


def _environment() -> Environment:
    environment = _Zendesk(strict_filters=False)
    environment.filters = {
        name: each for name, each in environment.filters.items() if name in FILTERS
    }
    environment.add_filter("replace", _replace)
    environment.tags = {
        name: tag
        for name, tag in environment.tags.items()
        if name in TAGS or name in ("content", "output", "illegal")
    }
    return environment


_ENVIRONMENT = _environment()
