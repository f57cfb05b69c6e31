"""What a file is by its bytes, and which pages are logins."""

import io
import time
import zipfile

import httpx2
import pytest
from support import make_settings

from app.attachments.account import Account
from app.attachments.content_type import HEAD_BYTES, find_content_type, is_html
from app.attachments.login_page import leads_to_login

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            # Always of the same moment: the name of a test has it.
            archive.writestr(zipfile.ZipInfo(name), "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("head", "claim", "found"),
    [
        (b"%PDF-1.7\n%\xe2\xe3", "text/html", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/jpeg", "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", None, "image/jpeg"),
        (b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff", "application/pdf", "application/x-msdownload"),
        (zipped("[Content_Types].xml", "word/document.xml"), None, DOCX),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "application/zip", XLSX),
        (zipped("a.txt"), "application/pdf", "application/zip"),
        (zipped("a.txt", "mimetype"), XLSX, XLSX),
        (b"<!DOCTYPE html><html>", "application/pdf", "text/html"),
        (b"\xef\xbb\xbf \n<HTML lang=en>", None, "text/html"),
        (b"<!-- a comment --><html>", None, "text/html"),
        (b"a,b\n1,2\n", "text/csv", "text/csv"),
        (b"a,b\n1,2\n", "text/csv; charset=utf-8", "text/csv"),
        (b'{"a": 1}', "application/json", "application/json"),
        (b"Hello", "application/pdf", "text/plain"),
        (b"Hello", "text/html", "text/plain"),
        (b"BM is a firm of mine", None, "text/plain"),
        ("Grüße".encode()[:4], None, "text/plain"),
        ("Grüße".encode("latin-1"), None, "application/octet-stream"),
        (b"{\\rtf1\\ansi}", None, "application/rtf"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", "image/svg+xml"),
        (b"\0\1\2", "Application/X-Own", "application/x-own"),
        (b"\0\1\2", "nonsense\r\nx: y", "application/octet-stream"),
        (b"\0\1\2", None, "application/octet-stream"),
        (b"", "application/pdf", "application/pdf"),
        (b"", None, "application/octet-stream"),
    ],
)
def test_the_bytes_tell_what_a_file_is(head: bytes, claim: str | None, found: str) -> None:
    assert find_content_type(head, claim) == found


def test_the_header_is_believed_before_the_email() -> None:
    assert find_content_type(b"\0\1", "audio/x-a", "audio/x-b") == "audio/x-a"
    assert find_content_type(b"\0\1", "application/octet-stream", "audio/x-b") == "audio/x-b"


@pytest.mark.parametrize("part", [b"<!-- -->", b"<!--", b" ", b"<", b"<p", b"\xef\xbb\xbf", b"\0"])
def test_hostile_heads_are_read_in_linear_time(part: bytes) -> None:
    def seconds(times: int) -> float:
        head = part * times
        begin = time.perf_counter()
        is_html(head)
        find_content_type(head, None)
        return time.perf_counter() - begin

    assert seconds(HEAD_BYTES * 8) < 500 * (seconds(HEAD_BYTES) + 0.0005)


@pytest.mark.parametrize(
    ("url", "is_login"),
    [
        ("https://a.zendesk.com/access/login?return_to=x", True),
        ("https://a.zendesk.com/access/unauthenticated", True),
        ("https://a.zendesk.com/auth/v3/signin", True),
        ("https://a.zendesk.com/hc/en-us/signin", True),
        ("https://login.example.com/adfs/ls", True),
        ("https://a.zendesk.com/users/sign_in", True),
        ("https://p1.zdusercontent.com/attachment/1/access.pdf?token=x", False),
        ("https://a.zendesk.com/attachments/token/login/?name=login", False),
        ("https://a.zendesk.com/attachments/token/abc/?name=/access/login", False),
    ],
)
def test_redirects_to_a_login_are_known(url: str, is_login: bool) -> None:
    assert leads_to_login(httpx2.URL(url)) is is_login


def test_without_an_accounts_name_any_account_has_files_and_none_a_token() -> None:
    account = Account.from_settings(make_settings())
    url = httpx2.URL("https://any.zendesk.com/attachments/token/a/")
    assert account.owns(url)
    assert not account.owns(httpx2.URL("https://zendesk.com.evil.example/attachments/token/a/"))
    assert account.credentials(url, "/") is None
