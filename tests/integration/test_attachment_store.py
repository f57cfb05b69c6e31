"""The store of files: a folder, and S3 by a server that speaks it."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import boto3
import pytest
from moto.server import ThreadedMotoServer

from app.attachments.store import (
    PART_BYTES,
    AttachmentStore,
    MissingBytesError,
    StoreError,
    storage_key,
)

BUCKET = "mailroom-files"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """A server that speaks S3. Its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def store_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URL of an empty store."""
    if request.param == "folder":
        return (tmp_path / "a folder").as_uri()
    server = request.getfixturevalue("s3_server")
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    # What an earlier test left.
    for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    return f"s3://{BUCKET}/of/mailroom"


@pytest.fixture
def store(store_url: str) -> AttachmentStore:
    return AttachmentStore.from_url(store_url)


def make_file(folder: Path, content: bytes) -> tuple[Path, str]:
    path = folder / "fetched"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


async def read_all(store: AttachmentStore, sha256: str, *span: int) -> bytes:
    return b"".join([piece async for piece in store.read(sha256, *span)])


def damage(store: AttachmentStore, sha256: str, content: bytes) -> None:
    """Change what the store has, past the store."""
    if store.url.startswith("file:"):
        folder = Path(url2pathname(urlsplit(store.url).path))
        (folder / storage_key(sha256)).write_bytes(content)
    else:
        key = f"of/mailroom/{storage_key(sha256)}"
        boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)


@pytest.mark.parametrize("size", [0, 1, 100_000, 2 * PART_BYTES + 3])
async def test_what_is_put_can_be_read_and_is_there_once(
    store: AttachmentStore, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    path, sha256 = make_file(tmp_path, content)
    assert await store.size(sha256) is None
    assert await store.digest(sha256) is None
    await store.put(path, sha256)
    assert await store.size(sha256) == size
    assert await read_all(store, sha256) == content
    listed = [one async for one in store.contents()]
    assert [(one.sha256, one.size) for one in listed] == [(sha256, size)]
    # Again, it is not even written anew.
    await store.put(path, sha256)
    assert [one async for one in store.contents()] == listed


async def test_a_part_of_a_content_can_be_read(store: AttachmentStore, tmp_path: Path) -> None:
    path, sha256 = make_file(tmp_path, b"0123456789")
    await store.put(path, sha256)
    assert await read_all(store, sha256, 3, 7) == b"3456"
    assert await read_all(store, sha256, 7) == b"789"


async def test_what_is_not_there_is_said_so(store: AttachmentStore) -> None:
    with pytest.raises(MissingBytesError):
        await read_all(store, "0" * 64)
    await store.delete("0" * 64)


async def test_deleted_is_gone(store: AttachmentStore, tmp_path: Path) -> None:
    path, sha256 = make_file(tmp_path, b"secret")
    await store.put(path, sha256)
    await store.delete(sha256)
    assert await store.size(sha256) is None
    assert [one async for one in store.contents()] == []


async def test_damaged_bytes_are_replaced(store: AttachmentStore, tmp_path: Path) -> None:
    path, sha256 = make_file(tmp_path, b"as it was sent")
    await store.put(path, sha256)
    damage(store, sha256, b"as it was seNt")
    assert await store.digest(sha256) != sha256
    await store.put(path, sha256)
    assert await read_all(store, sha256) == b"as it was sent"


async def test_a_file_that_is_not_what_it_is_said_to_be_is_not_kept(
    store: AttachmentStore, tmp_path: Path
) -> None:
    path, _ = make_file(tmp_path, b"changed since its hash was taken")
    with pytest.raises(StoreError, match="other bytes"):
        await store.put(path, "a" * 64)


async def test_many_put_the_same_at_once(store: AttachmentStore, tmp_path: Path) -> None:
    path, sha256 = make_file(tmp_path, os.urandom(100_000))
    others = [AttachmentStore.from_url(store.url) for _ in range(4)]
    await asyncio.gather(*(other.put(path, sha256) for other in others))
    assert len([one async for one in store.contents()]) == 1
    assert await store.digest(sha256) == sha256


async def test_what_else_lies_there_is_passed_over(store: AttachmentStore, tmp_path: Path) -> None:
    path, sha256 = make_file(tmp_path, b"mine")
    await store.put(path, sha256)
    if store.url.startswith("file:"):
        (tmp_path / "a folder" / "notes.txt").write_text("somebody's")
        (tmp_path / "a folder" / ("b" * 64)).write_text("in no folder of ours")
    else:
        boto3.client("s3").put_object(Bucket=BUCKET, Key="of/mailroom/notes.txt", Body=b"x")
        boto3.client("s3").put_object(Bucket=BUCKET, Key="elsewhere", Body=b"x")
    assert [one.sha256 async for one in store.contents()] == [sha256]


def test_a_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    AttachmentStore.from_url((tmp_path / "deep" / "down").as_uri())
    assert (tmp_path / "deep" / "down").stat().st_mode & 0o077 == 0


async def test_a_store_that_cannot_be_used_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("in the way")
    with pytest.raises(StoreError, match=r"MAILROOM_ATTACHMENT_STORE.*rights"):
        AttachmentStore.from_url((tmp_path / "a file").as_uri())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="cannot ask"):
        await AttachmentStore.from_url("s3://nobody/there").size("0" * 64)
