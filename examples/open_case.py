"""A handler that opens a case for each email in a case system, and hands it the email's files.

    MAILROOM_HANDLER=open_case:handle  CASES_URL=https://cases.example.com/api  CASES_TOKEN=...

A handler runs at least once, and this one may be ended anywhere: between two requests, or after the
last one and before Mailroom has noted it. All it sends can therefore be sent again: the case has
the email's id for its `Idempotency-Key`, and each file a place of its own.
"""

import os
from collections.abc import Mapping
from typing import Any

import httpx2

from app.handlers.seam import Attachment, Context, Email, PermanentFailure, Retry

LARGEST_FILE = 25_000_000
TOO_MANY_REQUESTS = 429


async def handle(email: Email, context: Context) -> Mapping[str, Any]:
    """Open the case, hand over the files, and keep its number in `extracted_data`."""
    text = email.raw_body_text or email.raw_body_html
    if not text:
        raise PermanentFailure("the email has no text, so there is no case in it")

    context.progress("opens the case")
    answer = await send(
        context,
        "POST",
        "/cases",
        headers={"Idempotency-Key": str(email.id)},
        json={
            "ticket": email.zendesk_ticket_id,
            "from": email.from_email,
            "subject": email.subject,
            "text": text,
        },
    )
    case = answer.json()["id"]

    # Two files may have one name.
    left_out: list[dict[str, Any]] = []
    async for file in email.attachments:
        if not file.is_kept:
            left_out.append({"file": file.position, "name": file.safe_name, "why": file.why})
        elif (file.size or 0) > LARGEST_FILE:
            why = f"it has {file.size} bytes"
            left_out.append({"file": file.position, "name": file.safe_name, "why": why})
        else:
            context.progress(f"case {case}: hands over file {file.position + 1}")
            await hand_over(context, case, file)
    context.log.info("case_opened", case=case)
    return {"case": case, "left_out": left_out}


async def hand_over(context: Context, case: str, file: Attachment) -> None:
    """Stream a file to its place in the case; to send it again changes nothing."""
    await send(
        context,
        "PUT",
        f"/cases/{case}/files/{file.position}",
        params={"name": file.safe_name},
        headers={
            "Content-Type": file.content_type or "application/octet-stream",
            "Content-Length": str(file.size),
        },
        content=file.open(),
    )


async def send(context: Context, method: str, path: str, **options: Any) -> httpx2.Response:
    """Ask the case system.

    Raises:
        Retry: it asks to wait.
        PermanentFailure: it refuses what was sent; sending it again is of no use.
        httpx2.HTTPError: it is away, or broken: the email is tried again after a pause.
    """
    headers = {"Authorization": f"Bearer {os.environ['CASES_TOKEN']}", **options.pop("headers", {})}
    answer = await context.http.request(
        method, os.environ["CASES_URL"] + path, headers=headers, **options
    )
    if answer.status_code == TOO_MANY_REQUESTS:
        seconds = answer.headers.get("retry-after", "")
        raise Retry("the case system is busy", after=int(seconds) if seconds.isdigit() else None)
    if answer.is_client_error:
        raise PermanentFailure(f"the case system refuses it: {answer.status_code}")
    return answer.raise_for_status()
