"""What becomes of each way in which a file's URL may behave, against a fake Zendesk over TLS."""

import asyncio
import hashlib
import ipaddress
from pathlib import Path
from typing import Any

import pytest
from fake_zendesk import ACCOUNT_HOST as ACCOUNT
from fake_zendesk import (
    CDN_HOST,
    TOKEN,
    Asked,
    FakeZendesk,
    Respond,
    drip,
    endless,
    endless_head,
    huge,
    page,
    status,
    too_short,
)
from support import make_settings, wait_until

from app.attachments.fetcher import Fetched, Fetcher, NotFetched, Wanted
from app.attachments.reasons import Reason
from app.outbound.addresses import Address

PDF = b"%PDF-1.7\n" + b"an invoice " * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


async def fetch(
    zendesk: FakeZendesk,
    folder: Path,
    url: str,
    content_type: str | None = None,
    resolve: Any = None,
    **settings: Any,
) -> Fetched | NotFetched:
    made = make_settings(**{**zendesk.settings, **settings})
    fetcher = Fetcher(made, resolve=resolve) if resolve else Fetcher(made)
    try:
        return await fetcher.fetch(Wanted(url, content_type, None), folder)
    finally:
        await fetcher.aclose()


def reason_of(outcome: Fetched | NotFetched) -> Reason | None:
    return outcome.reason if isinstance(outcome, NotFetched) else None


async def test_a_file_is_fetched_by_token_and_temporary_link(
    zendesk: FakeZendesk, folder: Path
) -> None:
    url = zendesk.add("a.pdf", content=PDF, content_type="application/pdf")

    fetched = await fetch(zendesk, folder, url)

    assert isinstance(fetched, Fetched)
    assert fetched.path.parent == folder and fetched.path.read_bytes() == PDF
    assert fetched.size == len(PDF)
    assert fetched.sha256 == hashlib.sha256(PDF).hexdigest()
    assert fetched.content_type == "application/pdf"


async def test_the_token_goes_to_the_account_alone(zendesk: FakeZendesk, folder: Path) -> None:
    await fetch(zendesk, folder, zendesk.add("a.pdf", content=PDF))

    account, cdn = zendesk.files_asked(ACCOUNT), zendesk.files_asked(CDN_HOST)
    assert [a.has_token for a in account] == [True]
    assert ["authorization" in a.headers for a in cdn] == [False]


async def test_the_temporary_link_is_asked_for_anew_each_time(
    zendesk: FakeZendesk, folder: Path
) -> None:
    url = zendesk.add("a.pdf", content=PDF)
    await fetch(zendesk, folder, url)
    await fetch(zendesk, folder, url)
    assert [a.query for a in zendesk.files_asked(CDN_HOST)] == [
        "token=temporary-1",
        "token=temporary-2",
    ]


@pytest.mark.parametrize(
    ("settings", "is_final"),
    [({"zendesk_token": ""}, True), ({"zendesk_token": "another-token"}, False)],
)
async def test_the_login_page_that_comes_as_200_is_no_file(
    zendesk: FakeZendesk, folder: Path, settings: dict[str, str], is_final: bool
) -> None:
    url = zendesk.add("a.pdf", content=PDF)
    for content_type in (None, "application/pdf", "text/html"):
        outcome = await fetch(zendesk, folder, url, content_type, **settings)
        assert isinstance(outcome, NotFetched)
        assert (outcome.reason, outcome.is_final) == (Reason.LOGIN_NEEDED, is_final)
    assert not [*folder.iterdir()]


@pytest.mark.parametrize(
    "path", ["/access/login?return_to=x", "/auth/v3/signin", "/hc/en-us/signin", "/access/sso"]
)
async def test_a_redirect_to_the_login_is_known(
    zendesk: FakeZendesk, folder: Path, path: str
) -> None:
    url = zendesk.add("a.pdf", redirect=path)
    assert reason_of(await fetch(zendesk, folder, url)) is Reason.LOGIN_NEEDED


@pytest.mark.parametrize("code", [401, 403])
async def test_an_account_that_refuses_the_token_wants_a_login(
    zendesk: FakeZendesk, folder: Path, code: int
) -> None:
    url = zendesk.add("a.pdf", account=status(code))
    assert reason_of(await fetch(zendesk, folder, url)) is Reason.LOGIN_NEEDED


async def test_an_html_file_is_a_file_and_no_login_page(zendesk: FakeZendesk, folder: Path) -> None:
    content = b"<html><body>A quotation</body></html>"
    by_cdn = zendesk.add("a.html", content=content, content_type="text/html")
    named = zendesk.add(
        "b.html",
        account=page(content, content_type="text/html", content_disposition='filename="b.html"'),
    )
    for url in (by_cdn, named):
        fetched = await fetch(zendesk, folder, url, "text/html")
        assert isinstance(fetched, Fetched) and fetched.content_type == "text/html"


@pytest.mark.parametrize(
    ("respond", "reason", "is_final"),
    [
        (endless, Reason.TOO_LARGE, True),
        (huge, Reason.TOO_LARGE, True),
        (too_short, Reason.INCOMPLETE, False),
        (endless_head, Reason.INCOMPLETE, False),
        (status(404), Reason.GONE, False),
        (status(410), Reason.GONE, False),
        (status(403), Reason.REFUSED, False),
        (status(418), Reason.REFUSED, True),
        (status(500), Reason.UNREACHABLE, False),
        (status(503), Reason.UNREACHABLE, False),
        (status(304), Reason.REFUSED, True),
        (page(b"x", content_encoding="gzip"), Reason.COMPRESSED, True),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_what_the_cdn_does_has_an_outcome(
    zendesk: FakeZendesk, folder: Path, respond: Respond, reason: Reason, is_final: bool
) -> None:
    url = zendesk.add("a.pdf", cdn=respond)

    outcome = await fetch(zendesk, folder, url, attachment_max_bytes=1_000_000)

    assert isinstance(outcome, NotFetched)
    assert (outcome.reason, outcome.is_final, outcome.host) == (reason, is_final, CDN_HOST)
    assert "temporary" not in outcome.detail and TOKEN not in outcome.detail
    assert not [*folder.iterdir()]


@pytest.mark.parametrize("code", [404, 410])
async def test_what_the_account_does_not_have_is_gone_for_good(
    zendesk: FakeZendesk, folder: Path, code: int
) -> None:
    outcome = await fetch(zendesk, folder, zendesk.add("a.pdf", account=status(code)))
    assert isinstance(outcome, NotFetched)
    assert (outcome.reason, outcome.is_final) == (Reason.GONE, True)


async def test_a_file_that_takes_too_long_is_given_up(zendesk: FakeZendesk, folder: Path) -> None:
    url = zendesk.add("a.pdf", cdn=drip)
    outcome = await fetch(zendesk, folder, url, attachment_timeout_seconds=0.5)
    assert reason_of(outcome) is Reason.TIMEOUT
    assert not [*folder.iterdir()]


async def test_the_largest_file_that_is_allowed_is_kept(zendesk: FakeZendesk, folder: Path) -> None:
    url = zendesk.add("a.bin", content=b"x" * 2_000)
    assert isinstance(await fetch(zendesk, folder, url, attachment_max_bytes=2_000), Fetched)
    outcome = await fetch(zendesk, folder, url, attachment_max_bytes=1_999)
    assert reason_of(outcome) is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "location",
    ["https://169.254.169.254/latest/meta-data", "https://10.0.0.1/", "https://[::ffff:10.0.0.1]/"],
)
async def test_a_redirect_to_a_private_address_is_not_followed(
    zendesk: FakeZendesk, folder: Path, location: str
) -> None:
    outcome = await fetch(zendesk, folder, zendesk.add("a.pdf", redirect=location))
    assert isinstance(outcome, NotFetched)
    assert (outcome.reason, outcome.is_final) == (Reason.BLOCKED_ADDRESS, True)


@pytest.mark.parametrize(
    "location",
    ["https://evil.example/", "http://localhost.evil.example/", "https://8.8.8.8/", "ftp://a/b"],
)
async def test_a_redirect_elsewhere_is_not_followed(
    zendesk: FakeZendesk, folder: Path, location: str
) -> None:
    outcome = await fetch(zendesk, folder, zendesk.add("a.pdf", redirect=location))
    assert reason_of(outcome) in (Reason.HOST_NOT_ALLOWED, Reason.NOT_A_URL)


class Resolver:
    """Answers with one list of addresses after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = [*answers]
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        return [ipaddress.ip_address(address) for address in self.answers.pop(0)]


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["8.8.8.8", "169.254.169.254"], ["::1", "::"]])
async def test_a_name_that_leads_to_a_private_address_is_not_called(
    zendesk: FakeZendesk, folder: Path, addresses: list[str]
) -> None:
    url = zendesk.add("a.pdf", redirect="https://files.zdusercontent.com/a?token=temporary")
    resolver = Resolver(["127.0.0.1"], addresses)

    outcome = await fetch(zendesk, folder, url, resolve=resolver)

    assert isinstance(outcome, NotFetched)
    assert (outcome.reason, outcome.host) == (Reason.BLOCKED_ADDRESS, "files.zdusercontent.com")
    assert "temporary" not in outcome.detail


async def test_a_name_is_asked_for_once_and_called_at_the_address_that_was_checked(
    zendesk: FakeZendesk, folder: Path
) -> None:
    # This name exists nowhere: a second question, or a connection by name, would fail.
    name = "rebinding.zdusercontent.com"
    zendesk.serve_at(name)
    port = zendesk.cdn_url.rpartition(":")[2]
    url = zendesk.add("a.pdf", content=PDF, redirect=f"https://{name}:{port}/attachment/a.pdf")
    resolver = Resolver(["127.0.0.1"], ["127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"])

    first = await fetch(zendesk, folder, url, resolve=resolver)
    assert isinstance(first, Fetched)
    assert resolver.asked == [ACCOUNT, name]

    second = await fetch(zendesk, folder, url, resolve=resolver)
    assert reason_of(second) is Reason.BLOCKED_ADDRESS


async def test_three_redirects_are_followed_and_no_more(zendesk: FakeZendesk, folder: Path) -> None:
    zendesk.add("d.pdf", content=PDF)
    zendesk.add("c.pdf", cdn=status(302, location="/attachment/d.pdf"))
    b = zendesk.add("b.pdf", cdn=status(302, location="/attachment/c.pdf"))
    a = zendesk.add("a.pdf", cdn=status(302, location="/attachment/b.pdf"))
    assert isinstance(await fetch(zendesk, folder, b), Fetched)
    assert reason_of(await fetch(zendesk, folder, a)) is Reason.TOO_MANY_REDIRECTS


async def test_the_token_does_not_come_back_after_another_host(
    zendesk: FakeZendesk, folder: Path
) -> None:
    back = f"{zendesk.account_url}/attachments/token/b.pdf/?name=b.pdf"
    zendesk.add("b.pdf", content=PDF)
    url = zendesk.add("a.pdf", cdn=status(302, location=back))

    assert reason_of(await fetch(zendesk, folder, url)) is Reason.LOGIN_NEEDED
    assert [a.has_token for a in zendesk.files_asked(ACCOUNT)] == [True, False]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v2/users.json",
        "/attachments/../api/v2/users.json",
        "/attachments/%2e%2e/api/v2/users.json",
        "/attachments/..%2fapi/v2/users.json",
        "/attachments/%2e%2e%2fapi/v2/users.json",
        "/attachments//evil.example/",
        "/attachments/..\\api/v2/users.json",
    ],
)
async def test_the_token_is_shown_for_files_alone(
    zendesk: FakeZendesk, folder: Path, path: str
) -> None:
    """Else an email could name any page of the account, and have it kept as a file."""
    await fetch(zendesk, folder, zendesk.account_url + path)
    redirected = zendesk.add("a.pdf", redirect=path)
    await fetch(zendesk, folder, redirected)
    assert not [a for a in zendesk.asked if a.has_token and "token" not in a.path]
    assert [a for a in zendesk.asked if a.has_token]


async def test_the_token_is_not_shown_by_a_path_that_hides_which_file_it_is(
    zendesk: FakeZendesk, folder: Path
) -> None:
    """A server may pass over `%2e/`; what its scan said was looked up by the path as it stands."""
    await fetch(zendesk, folder, f"{zendesk.account_url}/attachments/token/%2e/x1/")
    assert [a.has_token for a in zendesk.files_asked(ACCOUNT)] == [False]


async def test_a_brand_gets_the_token_where_it_is_named(zendesk: FakeZendesk, folder: Path) -> None:
    zendesk.add("a.pdf", content=PDF)
    url = f"{zendesk.cdn_url}/attachments/token/a.pdf/"
    await fetch(zendesk, folder, url)
    await fetch(zendesk, folder, url, zendesk_hosts=(CDN_HOST,))
    assert [a.has_token for a in zendesk.files_asked(CDN_HOST)] == [False, True]


async def test_a_host_that_asks_to_wait_is_left_alone(zendesk: FakeZendesk, folder: Path) -> None:
    busy = zendesk.add("a.pdf", cdn=status(429, retry_after="120"))
    fetcher = Fetcher(make_settings(**zendesk.settings))
    try:
        first = await fetcher.fetch(Wanted(busy, None, None), folder)
        second = await fetcher.fetch(Wanted(busy, None, None), folder)
    finally:
        await fetcher.aclose()

    for outcome in (first, second):
        assert isinstance(outcome, NotFetched)
        assert (outcome.reason, outcome.is_final) == (Reason.BUSY, False)
        assert outcome.host == CDN_HOST
        assert outcome.retry_after_seconds == pytest.approx(120, abs=60)
    # The account was asked twice, and the CDN once alone.
    assert len(zendesk.files_asked(ACCOUNT)) == 2
    assert len(zendesk.files_asked(CDN_HOST)) == 1


async def test_an_account_that_asks_to_wait_is_not_asked_again(
    zendesk: FakeZendesk, folder: Path
) -> None:
    busy = zendesk.add("a.pdf", account=status(503, retry_after="60"))
    fetcher = Fetcher(make_settings(**zendesk.settings))
    try:
        for _ in range(3):
            outcome = await fetcher.fetch(Wanted(busy, None, None), folder)
            assert reason_of(outcome) is Reason.BUSY
    finally:
        await fetcher.aclose()
    assert len(zendesk.files_asked(ACCOUNT)) == 1


async def test_a_host_that_cannot_prove_its_name_is_told_nothing(
    zendesk: FakeZendesk, folder: Path
) -> None:
    url = zendesk.add("a.pdf", content=PDF)
    outcome = await fetch(zendesk, folder, url, outbound_ca_file=None)
    assert isinstance(outcome, NotFetched) and outcome.reason is Reason.UNREACHABLE
    assert "certificate" in outcome.detail
    assert not zendesk.asked


async def test_loopback_is_closed_if_nothing_is_said(zendesk: FakeZendesk, folder: Path) -> None:
    url = zendesk.add("a.pdf", content=PDF)
    outcome = await fetch(
        zendesk, folder, url, outbound_open_loopback=False, zendesk_url="", zendesk_token=""
    )
    assert reason_of(outcome) is Reason.HOST_NOT_ALLOWED
    outcome = await fetch(
        zendesk,
        folder,
        url,
        outbound_open_loopback=False,
        zendesk_url="",
        zendesk_token="",
        attachment_hosts=(ACCOUNT,),
    )
    assert reason_of(outcome) in (Reason.BLOCKED_ADDRESS, Reason.HOST_NOT_ALLOWED)
    assert not zendesk.asked


async def test_nothing_is_asked_to_be_compressed(zendesk: FakeZendesk, folder: Path) -> None:
    await fetch(zendesk, folder, zendesk.add("a.pdf", content=PDF))
    assert {a.headers["accept-encoding"] for a in zendesk.asked} == {"identity"}


async def test_no_proxy_of_the_environment_is_heeded(
    zendesk: FakeZendesk, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert isinstance(await fetch(zendesk, folder, zendesk.add("a.pdf", content=PDF)), Fetched)


async def test_cookies_of_one_file_do_not_travel_to_the_next(
    zendesk: FakeZendesk, folder: Path
) -> None:
    url = zendesk.add("a.pdf", cdn=status(410, set_cookie="session=secret; Path=/"))
    fetcher = Fetcher(make_settings(**zendesk.settings))
    for _ in range(2):
        await fetcher.fetch(Wanted(url, None, None), folder)
    await fetcher.aclose()
    assert not [a for a in zendesk.asked if "cookie" in a.headers]


async def test_a_download_that_is_stopped_leaves_nothing_behind(
    zendesk: FakeZendesk, folder: Path
) -> None:
    is_asked = asyncio.Event()

    async def begin(asked: Asked, writer: asyncio.StreamWriter) -> None:
        is_asked.set()
        await drip(asked, writer)

    url = zendesk.add("a.pdf", cdn=begin)
    task = asyncio.create_task(fetch(zendesk, folder, url))
    await is_asked.wait()
    await asyncio.to_thread(wait_until, lambda: [*folder.iterdir()])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [*folder.iterdir()]
