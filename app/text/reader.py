"""Reads the text of emails without holding up the event loop: short bodies at once, long ones in
processes of their own, which can be ended and end with the worker."""

from collections.abc import Mapping
from typing import Any

import attrs

from app.errors import MailroomError
from app.text.asked_process import AskedProcess, ProcessEndedError
from app.text.email_text import read_email_text
from app.text.reader_process import MOST_CPU_SECONDS

# Read at once: it takes less time than asking another process.
MOST_CHARACTERS_AT_ONCE = 4_000
# Longer ones have a process of their own, so that six emails of megabytes hold up none of the
# usual size.
MOST_CHARACTERS_OF_USUAL_ONES = 200_000


class TextReaderError(MailroomError):
    """The process that reads long bodies ended over one."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final


@attrs.frozen
class ReadText:
    """What was read: the words of the writer, and what else `EmailText` has, as JSON takes it."""

    cleaned_body: str
    data: dict[str, Any]


class ReaderProcess(AskedProcess):
    """One process that reads bodies, one after another."""

    def __init__(self, name: str) -> None:
        super().__init__(f"text-{name}", "app.text.reader_process")

    async def read(self, fields: Mapping[str, Any]) -> ReadText:
        """Read a body, given the arguments of `read_email_text`.

        If the caller is cancelled meanwhile, the process is ended.

        Raises:
            TextReaderError: the process ended over it.
        """
        try:
            answer = await self.ask(fields)
        except ProcessEndedError as error:
            raise _told(error) from error
        return ReadText(answer["cleaned_body"], answer["data"])


def _told(error: ProcessEndedError) -> TextReaderError:
    if error.is_out_of_time:
        return TextReaderError(
            f"the body could not be read within {MOST_CPU_SECONDS:g} s of a processor",
            is_final=True,
        )
    return TextReaderError(
        f"the process that reads long bodies ended over this one (status {error.status})",
        is_final=False,
    )


_USUAL = ReaderProcess("usual")
_LONG = ReaderProcess("long")


async def read_text(
    *, html: str, text: str, subject: str, sender: str, headers: Mapping[str, str]
) -> ReadText:
    """Read the body of an email beside the event loop; see `read_email_text`.

    Raises:
        TextReaderError: the process that read it ended over it.
    """
    fields = {
        "html": "" if text.strip() else html,
        "text": text,
        "subject": subject,
        "sender": sender,
        "headers": dict(headers),
    }
    size = len(fields["html"] or text)
    if size <= MOST_CHARACTERS_AT_ONCE:
        read = read_email_text(
            html=html, text=text, subject=subject, sender=sender, headers=headers
        )
        return ReadText(read.cleaned_body, read.as_data())
    reader = _USUAL if size <= MOST_CHARACTERS_OF_USUAL_ONES else _LONG
    return await reader.read(fields)


def end_readers() -> None:
    """End the processes now; they also end with this one."""
    for reader in (_USUAL, _LONG):
        reader.end()
