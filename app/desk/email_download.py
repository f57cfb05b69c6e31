"""An email to be taken along: as a file that mail programs open, and its payload as it came."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import SMTP
from typing import Any
from uuid import UUID

from litestar import Request, Response, get
from litestar.datastructures import State

from app.api.attachments import ANY_BYTES, MEDIA_TYPE, SANDBOX
from app.attachments.given import Archive, Attachment
from app.attachments.names import content_disposition
from app.attachments.store import StoreError
from app.audit.acts import Act
from app.audit.log import write
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import EMAILS_PATH
from app.desk.email_page import read, see_that_it_may_read
from app.desk.pages import PageController, actor_of, to_sign_in
from app.desk.sign_in import database_is_away, signed_in

# Bytes of all files in one message, which is made in memory; the others are named in it.
LARGEST_FILES = 20 * 1024 * 1024
# Python writes what has these types from parts, and raises where it is given bytes.
MADE_OF_PARTS = ("message", "multipart")


class EmailDownload(PageController):
    """What of an email is saved as a file."""

    path = EMAILS_PATH

    @get("/{email_id:uuid}/download")
    async def download(
        self, request: Request[Any, Any, Any], email_id: UUID, state: State
    ) -> Response[Any]:
        """The email as a message (RFC 5322), with its files that are kept."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        await see_that_it_may_read(request, user)
        row = await read(email_id)
        archive: Archive = state.archive
        try:
            files = await archive.attachments(running_pool(), email_id)
            content = await make_message(row, files)
            await write(running_pool(), actor_of(request, user), Act.EMAIL_EXPORT, [email_id])
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return _as_file(content, f"{email_id}.eml", "message/rfc822")

    @get("/{email_id:uuid}/payload")
    async def payload(self, request: Request[Any, Any, Any], email_id: UUID) -> Response[Any]:
        """The bytes that Zendesk posted; of most emails as PostgreSQL keeps JSON."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        await see_that_it_may_read(request, user)
        row = await read(email_id)
        try:
            await write(running_pool(), actor_of(request, user), Act.EMAIL_EXPORT, [email_id])
        except CANNOT_ASK as error:
            raise database_is_away() from error
        content = row["original_body"] or (row["raw_payload"] or "").encode()
        return _as_file(content, f"{email_id}.json", "application/json")


async def make_message(row: Mapping[str, Any], files: list[Attachment]) -> bytes:
    """The message that an email was, as far as Zendesk told it: most of its headers it does not.

    It is written in a thread: 20 MB take a second."""
    contents: list[bytes | None] = []
    left = LARGEST_FILES
    for file in files:
        contents.append(await _content(file, left))
        left -= len(contents[-1] or b"")
    return await asyncio.to_thread(_write_message, row, list(zip(files, contents, strict=True)))


def _write_message(
    row: Mapping[str, Any], files: Sequence[tuple[Attachment, bytes | None]]
) -> bytes:
    message = EmailMessage(policy=SMTP)
    _set_text(message, "Subject", row["subject"])
    _set_sender(message, _one_line(row["from_name"]), _one_line(row["from_email"]))
    message["Date"] = row["received_at"]
    message["Message-ID"] = f"<{row['id']}@mailroom.invalid>"
    _set_text(message, "X-Zendesk-Ticket", row["zendesk_ticket_id"])
    text, html = row["raw_body_text"], row["raw_body_html"]
    message.set_content(text or ("" if html else "(no text)"))
    if html:
        message.add_alternative(html, subtype="html")
    for file, content in files:
        if content is not None:
            maintype, subtype = _type_of(file)
            message.add_attachment(content, maintype, subtype, filename=file.safe_name)
    if missing := [file.safe_name for file, content in files if content is None]:
        _set_text(message, "X-Mailroom-Missing-Files", ", ".join(missing))
    return bytes(message)


def _type_of(file: Attachment) -> tuple[str, str]:
    kind = file.content_type or ""
    maintype, _, subtype = (kind if MEDIA_TYPE.fullmatch(kind) else ANY_BYTES).partition("/")
    if maintype in MADE_OF_PARTS:
        maintype, _, subtype = ANY_BYTES.partition("/")
    return maintype, subtype


async def _content(file: Attachment, most: int) -> bytes | None:
    if not file.is_kept or (file.size or 0) > most:
        return None
    try:
        return await file.read(most)
    except StoreError:
        return None


def _set_text(message: EmailMessage, name: str, text: str | None) -> None:
    line = _one_line(text)
    _set(message, name, lambda: line, lambda: _undecoded(line))


def _set_sender(message: EmailMessage, name: str, address: str) -> None:
    user, _, domain = address.rpartition("@")
    _set(
        message,
        "From",
        *(
            (lambda: Address(name, user, domain), lambda: Address(_undecoded(name), user, domain))
            if user
            else ()
        ),
        # Whatever stood there; a header that cannot be read is one of nobody.
        lambda: Address(_undecoded(address) or "unknown", "unknown", "mailroom.invalid"),
    )


def _set(message: EmailMessage, name: str, *values: Callable[[], object]) -> None:
    """Set a header to the first value that can be made, written and read: the library meets
    with errors of many kinds in what strangers wrote."""
    for value in values:
        try:
            message[name] = value()
            if _is_readable(message, name):
                return
        except Exception:  # noqa: BLE001, S110 - whatever it meets with
            pass
        del message[name]


def _is_readable(message: EmailMessage, name: str) -> bool:
    written = SMTP.fold_binary(name, message[name])
    # Python 3.13 writes so what the others cannot write, and no reader can read.
    if b"=?unknown-8bit?" in written:
        return False
    # Python 3.14 writes a domain that has one bracket, and reads more into it than there was.
    told = BytesHeaderParser(policy=SMTP).parsebytes(written)[name]
    addresses = [address.addr_spec for address in getattr(message[name], "addresses", ())]
    return addresses == [address.addr_spec for address in getattr(told, "addresses", ())]


def _undecoded(text: str) -> str:
    """With no encoded words (RFC 2047), which may hold what cannot be written."""
    return text.replace("=?", "= ?")


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _as_file(content: bytes, name: str, media_type: str) -> Response[bytes]:
    return Response(
        content,
        media_type=media_type,
        headers={
            "Content-Disposition": content_disposition(name),
            "Content-Security-Policy": SANDBOX,
            "Cross-Origin-Resource-Policy": "same-origin",
        },
    )
