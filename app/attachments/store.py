"""Where the bytes of files are kept: a folder, or a bucket of S3, Google or Azure, by URL.

A content is kept once, under its SHA-256, whoever sent it. It is read back after it was written,
so what counts as kept can be read.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

import attrs
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from app.attachments.native_threads import await_them_at_exit
from app.errors import MailroomError

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig

# What is larger is written in parts, since one part is held in memory whole. S3 takes none that is
# smaller but for the last.
PART_BYTES = 5 * 1024 * 1024
READ_BYTES = 256 * 1024
# Contents that one process writes at once, each with one part in memory.
WRITTEN_AT_ONCE = 4
LISTED_AT_ONCE = 1_000
# What S3 and the like may take: for a connection, for a piece of an answer, and for one request.
CONNECT = timedelta(seconds=5)
SILENCE = timedelta(seconds=30)
REQUEST = timedelta(minutes=10)
RETRIES = 3


class StoreError(MailroomError):
    """The store cannot be used, or has not what was asked for."""


class MissingBytesError(StoreError):
    """The store has no such content."""


@attrs.frozen
class Content:
    """What the store has of one content."""

    sha256: str
    size: int
    """Bytes."""
    stored_at: datetime


def storage_key(sha256: str) -> str:
    """Where a content is in its store. Two letters more keep a folder from growing without end."""
    return f"{sha256[:2]}/{sha256}"


class AttachmentStore:
    """Keeps contents under their SHA-256 (hex). May be used by several tasks of one event loop.

    Args:
        store: of obstore.
        folder: where it is one of this machine.
    """

    def __init__(self, store: ObjectStore, *, url: str, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder
        self._folders_on_disk: set[Path] = set()
        self._writing = asyncio.Semaphore(WRITTEN_AT_ONCE)
        self.url = url
        """As it was given. It holds no credentials."""
        await_them_at_exit()

    @classmethod
    def from_url(cls, url: str) -> "AttachmentStore":
        """A store by its URL: `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or
        `az://container/prefix`. What else these need, such as keys, a region or an endpoint, comes
        from the environment variables of their makers.

        Raises:
            StoreError: the URL or the environment does not name a store.
        """
        parts = urlsplit(url)
        try:
            if parts.scheme == "file":
                folder = Path(url2pathname(parts.path))
                return cls(_open_folder(folder), url=url, folder=folder)
            return cls(_open_bucket(url), url=url)
        except (BaseError, ValueError, OSError) as error:
            raise StoreError(
                f"MAILROOM_ATTACHMENT_STORE: {parts.scheme}:// cannot be opened ({_said(error)}): "
                "see the folder's rights, or the environment variables of the bucket's provider"
            ) from error

    async def put(self, path: Path, sha256: str) -> None:
        """Keep the content of a file. What is there already and whole is left as it is.

        Raises:
            StoreError: it could not be written, or reads back as something else.
        """
        key = storage_key(sha256)
        async with self._writing:
            found = await self.digest(sha256)
            if found == sha256:
                return
            with _explained("write"):
                await self._write(path, key, is_damaged=found is not None)
                if self._folder is not None:
                    await asyncio.to_thread(self._wait_for_disk, self._folder / key)
            if await self.digest(sha256) != sha256:
                raise StoreError("the store gives back other bytes than were written to it")

    async def try_out(self, size: int = 0) -> None:
        """Write a few bytes, read them, and remove them.

        Args:
            size: what there should be room for, in bytes, as far as that can be seen.

        Raises:
            StoreError: it cannot be used now, or is nearly full.
        """
        content = secrets.token_bytes(32)
        sha256 = hashlib.sha256(content).hexdigest()
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            await self.put(Path(file.name), sha256)
        await self.delete(sha256)
        if self._folder is not None:
            with _explained("see its room"):
                free = (await asyncio.to_thread(shutil.disk_usage, self._folder)).free
            # What others write at the same time takes room for a moment, too.
            if free < size * WRITTEN_AT_ONCE:
                raise StoreError(f"the store's disk is nearly full ({free} bytes are free)")

    async def read(
        self, sha256: str, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of a content from `start` up to `end`, which is not among them, in pieces.

        Raises:
            MissingBytesError: the store has none such.
            StoreError: it cannot be read.
        """
        options: GetOptions = {}
        if end is not None:
            options["range"] = (start, end)
        elif start:
            options["range"] = {"offset": start}
        with _explained("read"):
            found = await obstore.get_async(self._store, storage_key(sha256), options=options)
            async for piece in found.stream(min_chunk_size=READ_BYTES):
                yield bytes(piece)

    async def size(self, sha256: str) -> int | None:
        """How many bytes a content has; None where the store has none such.

        Raises:
            StoreError: the store cannot be asked.
        """
        with _explained("ask"):
            try:
                meta = await obstore.head_async(self._store, storage_key(sha256))
            except FileNotFoundError:
                return None
        return meta["size"]

    async def digest(self, sha256: str) -> str | None:
        """The SHA-256 of what the store has under one; None where it has nothing.

        Raises:
            StoreError: it cannot be read.
        """
        sha = hashlib.sha256()
        try:
            async with aclosing(self.read(sha256)) as pieces:
                async for piece in pieces:
                    sha.update(piece)
        except MissingBytesError:
            return None
        return sha.hexdigest()

    async def delete(self, sha256: str) -> None:
        """Remove a content, where it is there.

        Raises:
            StoreError: the store refuses.
        """
        with _explained("delete"), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, storage_key(sha256))

    async def contents(self) -> AsyncIterator[Content]:
        """All that the store has; what lies in it besides is passed over.

        Raises:
            StoreError: it cannot be listed.
        """
        with _explained("list"):
            async for listed in obstore.list(self._store, chunk_size=LISTED_AT_ONCE):
                for meta in listed:
                    sha256 = meta["path"].rpartition("/")[2]
                    if meta["path"] == storage_key(sha256) and _is_sha256(sha256):
                        yield Content(sha256, meta["size"], meta["last_modified"])

    def remove_leftovers(self, before: datetime, *, dry_run: bool = False) -> int:
        """Remove what a process that was killed while it wrote left in a folder. Buckets remove
        what was begun and not ended by a rule of theirs. It blocks.

        Returns:
            How many files there were, changed before that moment.
        """
        if self._folder is None:
            return 0
        # The store writes beside the place where a content belongs, and renames it.
        left = [
            path
            for path in self._folder.glob("??/*#*")
            if path.stat().st_mtime < before.timestamp()
        ]
        for path in left if not dry_run else ():
            path.unlink(missing_ok=True)
        return len(left)

    async def _write(self, path: Path, key: str, *, is_damaged: bool) -> None:
        if (await asyncio.to_thread(path.stat)).st_size > PART_BYTES:
            # Parts know no "create only"; but they become visible all at once, and whoever else
            # writes this key at the same time writes the same bytes.
            await obstore.put_async(
                self._store, key, path, chunk_size=PART_BYTES, max_concurrency=1
            )
        else:
            try:
                await obstore.put_async(
                    self._store, key, path, mode="overwrite" if is_damaged else "create"
                )
            except AlreadyExistsError:
                # Somebody else was faster. Whether it is whole is seen when it is read back.
                return

    def _wait_for_disk(self, path: Path) -> None:
        """Whoever was told that a file is kept must find it after the machine lost its power."""
        places = [path, path.parent]
        if path.parent not in self._folders_on_disk:
            places.append(path.parent.parent)
        for place in places:
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._folders_on_disk.add(path.parent)


def _open_folder(folder: Path) -> ObjectStore:
    # What customers sent is nobody's business but the owner's.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return LocalStore(folder)


def _open_bucket(url: str) -> ObjectStore:
    options: ClientConfig = {
        "connect_timeout": CONNECT,
        "read_timeout": SILENCE,
        "timeout": REQUEST,
        # Https unless the environment names an endpoint without it, in a private network.
        "allow_http": True,
    }
    return from_url(url, client_options=options, retry_config={"max_retries": RETRIES})


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and not text.strip("0123456789abcdef")


def _said(error: BaseException) -> str:
    """What an error says, in one line; those of obstore go on with dumps of its own structures."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


class _explained:  # noqa: N801 - a context manager, which reads as a function
    """Turns what obstore raises into what a person can understand."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise MissingBytesError("the store has no such content") from error
        if isinstance(error, (BaseError, OSError, ValueError)):
            raise StoreError(f"the store cannot {self._doing} ({_said(error)})") from error
