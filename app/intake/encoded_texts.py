"""Texts that a template encoded, so that no quote, backslash or line break of theirs can break its
JSON.

Zendesk escapes nothing, and Liquid's `url_encode` leaves letters, digits and a few signs alone:
https://shopify.dev/docs/api/liquid/filters/url_encode. The template sends a probe through the same
filter, because an engine that does not know a filter passes its input on unchanged.
"""

import re
from typing import Any
from urllib.parse import unquote_plus

FIELD = "text_encoding"
PROBE = "url %"
ENCODED_PROBE = "url+%25"
PROBE_PLACEHOLDER = f"{{{{ '{PROBE}' | url_encode }}}}"

TEXTS = ("from_email", "from_name", "subject", "body_html", "body_text")

# What Ruby's CGI.escape leaves or makes; anything else was not encoded.
_ENCODED = re.compile(r"(?:[A-Za-z0-9*_.~+-]++|%[0-9A-Fa-f]{2})*")


def decode_texts(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with their texts decoded, if their template says that it encoded them.

    A text that cannot have been encoded stays as it is.
    """
    if fields.get(FIELD) != ENCODED_PROBE:
        return fields
    decoded = {name: _decode(fields[name]) for name in TEXTS if name in fields}
    attachments = fields.get("attachments")
    if isinstance(attachments, list):
        decoded["attachments"] = [_with_filename(item) for item in attachments]
    return {**fields, **decoded}


def _with_filename(item: Any) -> Any:
    if isinstance(item, dict) and "filename" in item:
        return {**item, "filename": _decode(item["filename"])}
    return item


def _decode(value: Any) -> Any:
    if isinstance(value, str) and _ENCODED.fullmatch(value):
        return unquote_plus(value)
    return value
