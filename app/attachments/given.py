"""The files of an email as they are given out, to handlers and by the API: what is known of each,
and its bytes, streamed from the store."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import asyncpg
import attrs

from app.attachments.names import safe_name
from app.attachments.reasons import sentence_of
from app.attachments.store import READ_BYTES, AttachmentStore
from app.errors import MailroomError
from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext as _
from app.models.email_attachment import AttachmentState

Database: TypeAlias = (
    "asyncpg.Pool[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
    " | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)

DEFAULT_READ_LIMIT = 32 * 1024 * 1024

# By the unique index on both columns.
LIST = """
SELECT position, filename, content_type, claimed_content_type, size, claimed_size, sha256,
    is_inline, state, reason, detail, tries, next_attempt_at, fetched_at
FROM email_attachments
WHERE email = $1 AND ($2::int IS NULL OR position = $2)
ORDER BY position
"""


class NotKeptError(MailroomError):
    """There are no bytes of this file; the message says why."""


class LargerThanLimitError(MailroomError):
    """The file is larger than what its reader wanted to have in memory."""


def _read_nothing(start: int, end: int | None) -> AsyncGenerator[bytes, None]:
    raise NotImplementedError("only what is kept is read")


@attrs.frozen(kw_only=True)
class Attachment:
    """One file of an email, as far as it is known."""

    position: int
    """Its place among the email's files, from 0. It stays."""
    filename: str | None
    """As the email names it, which may be anything: `safe_name` is for files and headers."""
    state: AttachmentState
    """`kept`: its bytes are there. All others have none."""
    content_type: str | None = None
    """As found in its bytes."""
    claimed_content_type: str | None = None
    """As the email says."""
    size: int | None = None
    """Bytes, as counted."""
    claimed_size: int | None = None
    """Bytes, as the email says."""
    sha256: str | None = None
    """Of its bytes, in hex."""
    is_inline: bool = False
    """It is shown within the email's text."""
    reason: str | None = None
    """Why it is not kept, as a word: `too_large`, `gone`, `login_needed` and so on."""
    detail: str | None = None
    """More about the reason."""
    tries: int = 0
    next_attempt_at: datetime | None = None
    """When it is tried again, where it is `pending`."""
    fetched_at: datetime | None = None
    read_bytes: Callable[[int, int | None], AsyncGenerator[bytes, None]] = attrs.field(
        default=_read_nothing, repr=False, eq=False
    )
    """What gives the bytes from one offset up to another."""

    @property
    def is_kept(self) -> bool:
        """Whether there are bytes to read."""
        return self.state is AttachmentState.KEPT

    @property
    def why(self) -> str | None:
        """Why it is not kept, in words; None where it is."""
        if self.is_kept:
            return None
        reason = self.reason or ""
        told = [sentence_of(reason) or reason, as_told(self.detail or "")]
        return " ".join(filter(None, told)) or _("It is %(state)s.", state=_(self.state))

    @property
    def safe_name(self) -> str:
        """A name that can be that of a file: no path, no control characters, never empty."""
        return safe_name(self.filename, self.position)

    def open(self, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to `end`, which is not among them, in pieces as they come.

        Raises:
            NotKeptError: there are none.
            StoreError: the store is away, or has lost them.
        """
        if not self.is_kept:
            raise NotKeptError(f"attachment {self.position} is not kept: {self.why}")
        return self.read_bytes(start, end)

    async def read(self, limit: int = DEFAULT_READ_LIMIT) -> bytes:
        """All its bytes at once.

        Args:
            limit: bytes; a larger file is not read.

        Raises:
            LargerThanLimitError: it is larger. `open` streams files of any size.
            NotKeptError, StoreError: as of `open`.
        """
        if (self.size or 0) > limit:
            raise self._too_large(limit)
        content = bytearray()
        async with aclosing(self.open()) as pieces:
            async for piece in pieces:
                content += piece
                if len(content) > limit:
                    raise self._too_large(limit)
        return bytes(content)

    def _too_large(self, limit: int) -> LargerThanLimitError:
        return LargerThanLimitError(
            f"attachment {self.position} has {self.size} bytes, more than the limit of {limit}: "
            "stream it by open(), or read it with a higher limit"
        )


def in_memory(
    position: int,
    filename: str | None,
    content: bytes,
    *,
    content_type: str | None,
    is_inline: bool = False,
) -> Attachment:
    """A file whose bytes are at hand, and not in the store."""

    async def read(start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        wanted = content[start:end]
        for at in range(0, len(wanted), READ_BYTES):
            yield wanted[at : at + READ_BYTES]

    return Attachment(
        position=position,
        filename=filename,
        state=AttachmentState.KEPT,
        content_type=content_type,
        claimed_content_type=content_type,
        size=len(content),
        claimed_size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        is_inline=is_inline,
        read_bytes=read,
    )


class Attachments:
    """The files of one email, in their order; asked for when somebody looks.

    Args:
        load: finds them.
    """

    def __init__(self, load: Callable[[], Awaitable[Sequence[Attachment]]]) -> None:
        self._load = load
        self._all: list[Attachment] | None = None

    @classmethod
    def of(cls, attachments: Sequence[Attachment]) -> "Attachments":
        """Those that are known already."""

        async def load() -> Sequence[Attachment]:
            return attachments

        return cls(load)

    async def all(self) -> list[Attachment]:
        """Every file that the email names, kept or not."""
        if self._all is None:
            self._all = list(await self._load())
        return self._all

    async def kept(self) -> list[Attachment]:
        """Those whose bytes are there."""
        return [attachment for attachment in await self.all() if attachment.is_kept]

    async def __aiter__(self) -> AsyncIterator[Attachment]:
        for attachment in await self.all():
            yield attachment


class Archive:
    """What is given out of the archive, in one event loop.

    Args:
        store_url: where the bytes are. It is opened when somebody wants some.
    """

    def __init__(self, store_url: str) -> None:
        self._store_url = store_url
        self._store: AttachmentStore | None = None

    async def attachments(self, database: Database, email_id: UUID) -> list[Attachment]:
        """The files of an email, in their order."""
        return [self._attachment(row) for row in await database.fetch(LIST, email_id, None)]

    async def attachment(
        self, database: Database, email_id: UUID, position: int
    ) -> Attachment | None:
        """One of them; None where there is none at that place."""
        row = await database.fetchrow(LIST, email_id, position)
        return self._attachment(row) if row is not None else None

    def _attachment(self, row: "asyncpg.Record") -> Attachment:
        columns = dict(row) | {"state": AttachmentState(row["state"])}
        sha256: str = row["sha256"]
        return Attachment(
            **columns, read_bytes=lambda start, end: self.open_store().read(sha256, start, end)
        )

    def open_store(self) -> AttachmentStore:
        """The store itself.

        Raises:
            StoreError: it cannot be opened.
        """
        if self._store is None:
            self._store = AttachmentStore.from_url(self._store_url)
        return self._store
