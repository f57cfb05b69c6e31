"""The HTML of an email in its frame: images of its own out of the archive, others named at most."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect
from support import Services, email, enter_page, open_page, signed, wait_until

from app.attachments.store import AttachmentStore
from app.intake.openapi import WEBHOOK_PATH

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
OURS = "https://acme.zendesk.com/attachments/token/abc/?name=photo.png"
TRACKER = "https://tracker.example/pixel.png?to=erika&amp;x=<b>"
HTML = (
    f"<p>Hello</p><img id=a alt=photo src='{OURS}'>"
    "<img alt=logo src='cid:Logo.PNG@01D8A1B2.C3D4E5F6'>"
    f'<img alt="a > b" src="{TRACKER}">'
    "<img alt=lost src='cid:lost.png@01D8'>"
    "<img alt=drawn src='data:image/svg+xml,<svg onload=parent.hacked=1>'>"
    "<img src='left-out:0' alt=sly><img alt='no source'>"
    "<img srcset='https://tracker.example/2x.png 2x' src='//tracker.example/1x.png' alt=large>"
    "<a href='da\tta:text/html,<script>1</script>'>data</a> <a href='CID:logo.png'>cid</a>"
    "<a href='https://tracker.example/link'>link</a>"
    "<table background=https://tracker.example/t.png><tr><td>cell</td></tr></table>"
    "<video src=https://tracker.example/v poster=https://tracker.example/p></video>"
)


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def email_id(operated: Services, shared_web: Services, connection: Connection) -> str:
    """An email with two images that are kept, and more that are not."""
    answer = httpx.post(operated.url + WEBHOOK_PATH, **signed(email(body_html=HTML)), timeout=60)
    made: str = answer.json()["email_id"]
    sha256 = hashlib.sha256(PIXEL).hexdigest()
    folder = Path(shared_web.environment["MAILROOM_HOME"]).absolute() / "attachments"
    source = operated.folder / "pixel"
    source.write_bytes(PIXEL)
    with ThreadPoolExecutor(1) as thread:
        # Playwright has a loop running in this thread.
        store = AttachmentStore.from_url(folder.as_uri())
        thread.submit(lambda: asyncio.run(store.put(source, sha256))).result()
    connection.execute("DELETE FROM email_attachments")
    connection.execute(
        "UPDATE incoming_emails SET attachment_urls = %s",
        [json.dumps([{"url": OURS}, {"url": "https://example.com/logo"}])],
    )
    connection.execute(
        "INSERT INTO email_attachments (email, position, url, state, filename, content_type, size,"
        " sha256, ended_at)"
        " SELECT %s, place, 'https://example.com', state, name, 'image/png', %s, %s, now()"
        " FROM (VALUES (0, 'kept', 'photo.png'), (1, 'kept', 'logo.png'),"
        " (2, 'failed', 'lost.png')) AS file (place, state, name)",
        [made, len(PIXEL), sha256],
    )
    return made


@pytest.fixture
def page(operated: Services, browser: Browser) -> Iterator[Page]:
    with open_page(browser, operated.url) as page:
        enter_page(page, operated)
        yield page


def images(page: Page) -> Any:
    return page.frame(name="as-html").evaluate(  # type: ignore[union-attr]
        "[...document.images].map(one => [one.alt, one.naturalWidth])"
    )


def test_images_come_from_the_archive_and_nothing_from_outside(
    operated: Services, page: Page, email_id: str
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"/emails/{email_id}")
    page.get_by_text("As HTML, without scripts").click()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_text("Hello")).to_be_visible()
    shown = [["photo", 1], ["logo", 1], ["sly", 0], ["no source", 0]]
    wait_until(lambda: images(page) == shown)
    text = frame.locator("body").inner_text()
    assert "a > b" in text
    assert "tracker" not in text
    page.get_by_role("link", name="Show what was left out").click()
    expect(frame.get_by_text("image left out: a > b")).to_have_text(
        "image left out: a > b https://tracker.example/pixel.png?to=erika&x=<b>"
    )
    expect(frame.get_by_text("image left out: lost")).to_contain_text("cid:lost.png@01D8")
    expect(frame.get_by_text("image left out: large")).to_contain_text("//tracker.example/1x.png")
    expect(frame.get_by_text("image left out: drawn")).to_contain_text("data:image/svg+xml")
    wait_until(lambda: images(page) == shown)
    for name in ("data", "cid"):
        assert frame.get_by_text(name, exact=True).get_attribute("href") is None
    assert page.evaluate("window.hacked") is None
    assert [url for url in asked if not url.startswith(operated.url)] == []
    assert said == []


def test_without_marks_no_address_of_theirs_is_in_the_frame(
    operated: Services, page: Page, email_id: str
) -> None:
    found = page.request.get(f"{operated.url}/emails/{email_id}/html").text()
    links = found.count("tracker.example/link")
    assert links == 1
    assert found.count("tracker.example") == links
    assert "left-out:" not in found
