"""Cells of Piccolo Admin's “Export CSV” that a spreadsheet would run as formulas.

The browser makes the export of what the admin's API answers, so that answer is made harmless:
https://owasp.org/www-community/attacks/CSV_Injection.
"""

from typing import Any
from urllib.parse import parse_qs

import msgspec
from litestar.types import HTTPResponseStartEvent, Message, Scope, Send

# The export asks for so many rows at once; the list on the page for a hundred at most.
EXPORT_PAGE_SIZE = "1000"

FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def is_export(scope: Scope) -> bool:
    """Does this request to Piccolo Admin come from the export?"""
    parameters = parse_qs(scope["query_string"].decode("latin-1"))
    return EXPORT_PAGE_SIZE in parameters.get("__page_size", ())


def harmless_in_spreadsheets(send: Send) -> Send:
    """Send the rows of an answer so that each cell of text is taken for text."""
    start: HTTPResponseStartEvent | None = None
    body = bytearray()

    async def hold_back(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and message["status"] == 200:
            start = message
        elif message["type"] == "http.response.body" and start is not None:
            body.extend(message["body"])
            if not message.get("more_body", False):
                content = _as_text(bytes(body))
                start["headers"] = [
                    (name, str(len(content)).encode() if name == b"content-length" else value)
                    for name, value in start["headers"]
                ]
                await send(start)
                await send({"type": "http.response.body", "body": content, "more_body": False})
        else:
            await send(message)

    return hold_back


def _as_text(answer: bytes) -> bytes:
    content = msgspec.json.decode(answer)
    # A count and the like have no rows.
    for row in content.get("rows", ()) if isinstance(content, dict) else ():
        row.update({name: harmless(value) for name, value in row.items()})
    return msgspec.json.encode(content)


def harmless(value: Any) -> Any:
    """A cell that no spreadsheet runs."""
    if isinstance(value, str) and value.startswith(FORMULA_BEGINS):
        return f"'{value}"
    return value
