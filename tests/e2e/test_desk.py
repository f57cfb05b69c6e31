"""The operator's desk in a real browser: the overview and Piccolo Admin.

`pytest tests/e2e/test_desk.py --screenshots docs` makes the pictures of the docs anew.
"""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect
from support import (
    Services,
    create_operators,
    email,
    enter_page,
    open_page,
    sign_in_page,
    signed,
    wait_until,
)

from app.intake.openapi import WEBHOOK_PATH
from app.jobs import throughput

LIST = "/admin/#/incoming_emails/"
FAILED = "/emails?q=status%3Afailed"

HANDLER = """
from pathlib import Path
from app.handlers.seam import PermanentFailure

async def handle(email):
    if not Path("mended").exists() and email.subject == "Wo ist mein Paket?":
        raise PermanentFailure("the CRM knows no such customer <b>")
    return {}
"""

# Each would set `window.hacked` if a browser took it for anything but text.
HOSTILE = (
    "<script>window.hacked = 1</script>"
    "<img src=x onerror='window.hacked = 2'>"
    "<svg onload='window.hacked = 3'></svg>"
    "<a href='javascript:window.hacked=4' id=hostile>click</a>"
    "<iframe srcdoc='<script>parent.hacked = 5</script>'></iframe>"
    "<style>body { display: none }</style>"
    "{{ constructor.constructor('window.hacked = 6')() }}"
)


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def web(web: Services) -> Services:
    create_operators(web)
    web.write_handler(HANDLER)
    return web


@pytest.fixture
def page(browser: Browser, web: Services) -> Iterator[Page]:
    with open_page(browser, web.url) as page:
        yield page


def post(web: Services, **fields: Any) -> str:
    answer = httpx.post(web.url + WEBHOOK_PATH, **signed(email(**fields)))
    email_id: str = answer.json()["email_id"]
    return email_id


def state_of(connection: "psycopg.Connection[dict[str, object]]", email_id: str) -> object:
    row = connection.execute(
        "SELECT processing_status FROM incoming_emails WHERE id = %s", [email_id]
    ).fetchone()
    return row and row["processing_status"]


def test_an_operator_finds_a_failed_email_and_retries_it_until_it_is_completed(
    web: Services, page: Page, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    failed = post(web, subject="Wo ist mein Paket?")
    post(web, subject="Danke")
    web.start_worker()
    wait_until(lambda: state_of(connection, failed) == "failed", web.log)
    sign_in_page(page)
    expect(page.locator(".sidebar").get_by_text("Incoming Emails")).to_be_visible()
    expect(page.locator(".sidebar").get_by_text("Piccolo User")).to_have_count(0)
    page.goto("/")
    expect(page.locator(".figure.failed strong")).to_have_text("1")
    expect(page.get_by_text("the CRM knows no such customer <b>")).to_be_visible()
    expect(page.get_by_role("heading", name="Workers alive: 1")).to_be_visible()
    page.locator(".figure.failed").click()
    page.wait_for_url(f"**{FAILED}")
    expect(page.get_by_text("Wo ist mein Paket?")).to_be_visible()
    expect(page.get_by_text("Danke")).to_have_count(0)
    page.goto("/")
    page.get_by_role("row", name="the CRM knows no such customer").get_by_role("link").click()
    page.get_by_role("link", name="Wo ist mein Paket?").click()
    expect(page.locator("#state")).to_contain_text("the CRM knows no such customer <b>")
    (web.folder / "mended").touch()
    page.get_by_role("button", name="Retry").click()
    wait_until(lambda: state_of(connection, failed) == "completed", web.log)
    page.goto("/")
    expect(page.locator(".figure.failed strong")).to_have_text("0")
    expect(page.locator(".figure.completed strong")).to_have_text("2")


def test_the_overview_updates_itself_until_it_is_paused(web: Services, page: Page) -> None:
    page.clock.install()
    enter_page(page, web)
    page.goto("/")
    received = page.locator(".figure.received strong")
    expect(received).to_have_text("0")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Overview", exact=True)).to_be_focused()
    page.locator(".figure.received").focus()
    post(web)
    expect(received).to_have_text("1")
    expect(page.locator(".figure.received")).to_be_focused()
    page.get_by_role("button", name="Stop updating").click()
    expect(page.get_by_role("button", name="Stop updating")).to_have_attribute(
        "aria-pressed", "true"
    )
    post(web)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(received).to_have_text("1")
    assert asked == []
    page.get_by_role("button", name="Stop updating").click()
    page.clock.run_for(60_000)
    expect(received).to_have_text("2")


def test_rows_of_the_table_lead_to_the_desk_and_offer_nothing_that_is_refused(
    web: Services, page: Page
) -> None:
    email_id = post(web)
    enter_page(page, web)
    page.goto(LIST)
    row = page.get_by_role("link", name=email_id)
    expect(row).to_be_visible()
    expect(page.locator("a[href$='/add/']")).to_be_hidden()
    expect(page.locator("td input[type=checkbox]:not([id])")).to_be_hidden()
    # Otherwise browsers ask for one at the root of the host, outside the prefix.
    expect(page.locator("link[rel=icon]")).to_have_attribute(
        "href", re.compile("^/overview/files/")
    )
    row.click()
    expect(page.locator("[name=subject]").first).to_be_visible()
    expect(page.locator("[data-uitest=save_button]")).to_be_hidden()
    page.get_by_role("link", name="Open it at the desk").click()
    page.wait_for_url(f"**/emails/{email_id}")
    page.get_by_role("link", name="This row in the table view").click()
    expect(page.get_by_role("link", name="Open it at the desk")).to_be_visible()
    httpx.post(web.url + WEBHOOK_PATH, json=email())
    page.goto("/admin/#/quarantined_webhooks/")
    row = page.locator("td a[href*='quarantined_webhooks']").first
    expect(row).to_be_visible()
    expect(page.get_by_role("link", name="Open it at the desk")).to_be_hidden()
    row.click()
    page.get_by_role("link", name="Open it at the desk").click()
    page.wait_for_url("**/quarantine/*")
    expect(page.get_by_role("heading", name="What keeps it out")).to_be_visible()
    page.get_by_role("link", name="This row in the table view").click()
    expect(page.get_by_role("link", name="Open it at the desk")).to_be_visible()
    page.goto("/admin/#/search_marks/1/")
    expect(page.get_by_role("link", name="Open it at the desk")).to_be_hidden()


def test_the_overview_ends_with_the_session(
    web: Services, page: Page, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    enter_page(page, web)
    page.goto("/")
    expect(page.locator(".figure.received")).to_be_visible()
    connection.execute("DELETE FROM sessions")
    expect(page.locator("input[name=password]")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_overview_fits_a_phone_and_loads_little(web: Services, page: Page, scheme: Any) -> None:
    enter_page(page, web)
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme=scheme)
    sizes: list[int] = []
    page.on("response", lambda response: sizes.append(len(response.body())))
    page.goto("/", wait_until="networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert len(sizes) >= 3
    assert sum(sizes) < 100_000
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is (scheme == "light")


def test_signed_out_nothing_is_seen(web: Services, page: Page) -> None:
    post(web, subject="Geheim", from_email="geheim@example.com")
    page.goto("/")
    expect(page.locator("input[name=password]")).to_be_visible()
    page.goto(LIST)
    expect(page.locator("input[name=password]")).to_be_visible()
    assert "eheim" not in page.content()
    answer = httpx.get(web.url)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in"
    assert answer.content == b""
    assert httpx.get(f"{web.url}/overview/figures").status_code == 401


def shown_on(page: Page) -> str:
    fields = page.evaluate("[...document.querySelectorAll('input, textarea')].map(e => e.value)")
    return f"{page.content()} {fields}"


def test_a_hostile_email_does_nothing(
    web: Services, page: Page, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    email_id = post(
        web, subject=HOSTILE, from_name=HOSTILE[:255], body_html=HOSTILE, body_text=HOSTILE
    )
    connection.execute(
        "UPDATE incoming_emails SET processing_status = 'failed', processing_error = %s,"
        " claimed_by = %s, completed_at = now()",
        [HOSTILE, HOSTILE[:255]],
    )
    enter_page(page, web)
    for address in ("/", FAILED, f"{LIST}{email_id}/"):
        page.goto(address)
        page.reload(wait_until="networkidle")
        wait_until(lambda: "window.hacked" in shown_on(page))
        assert page.evaluate("window.hacked") is None
        assert page.locator("#hostile, iframe, img[src=x]").count() == 0
        assert page.evaluate("getComputedStyle(document.body).display") != "none"


def test_pictures_for_the_docs(
    web: Services,
    page: Page,
    connection: "psycopg.Connection[dict[str, object]]",
    pytestconfig: pytest.Config,
) -> None:
    folder: Path | None = pytestconfig.getoption("--screenshots")
    if folder is None:
        pytest.skip("pictures are made with --screenshots FOLDER only")
    connection.execute(SAMPLE_DAY)
    keep_counts(web)
    enter_page(page, web)
    page.goto("/", wait_until="networkidle")
    page.screenshot(path=folder / "overview.png", full_page=True)
    page.goto("/emails?q=status:failed")
    page.screenshot(path=folder / "emails.png")
    page.get_by_role("link", name="Rechnung fehlt").first.click()
    expect(page.locator("#state")).to_contain_text("Failed after")
    page.screenshot(path=folder / "email.png", full_page=True)
    page.goto(LIST)
    expect(page.get_by_text("Rechnung").first).to_be_visible()
    page.screenshot(path=folder / "admin.png")


def keep_counts(web: Services) -> None:
    """What the web process does once a minute, now."""

    async def keep_up() -> None:
        pool = await asyncpg.create_pool(web.environment["DATABASE_URL"], min_size=1)
        async with pool:
            while not await throughput.keep_up(pool):
                pass

    # Playwright has a loop running in this thread.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, keep_up()).result()


# A day of a small support team, with its waves.
SAMPLE_DAY = """
INSERT INTO incoming_emails (
    zendesk_ticket_id, from_email, subject, processing_status, processing_error, received_at,
    created_at, queued_at, started_at, processed_at, completed_at, claimed_by, claims
)
SELECT (35000 + n)::text, 'kundin-' || n || '@example.com',
    (ARRAY['Rechnung fehlt', 'Wo bleibt mein Paket?', 'Rückgabe', 'Neue Anschrift'])[1 + n % 4],
    state, CASE WHEN state = 'failed' THEN
        (ARRAY['the CRM does not answer', 'no text'])[1 + n / 300 % 2] END,
    at, at, at, CASE WHEN state <> 'received' THEN at + took / 3 END, ended, ended,
    CASE WHEN state <> 'received' THEN 'mail-' || 1 + n % 2 || ':' || 4711 + n % 2 END, 1
FROM (
    SELECT *, CASE WHEN state IN ('completed', 'failed') THEN at + took END AS ended
    FROM (
        SELECT n, now() - n * interval '9 seconds'
            - (60 * (1 + sin(n / 400.0)) + 20 * sin(n / 40.0)) * interval '1 minute' / 20 AS at,
            (2 + n % 7 + 20 * (n % 997 = 0)::int) * interval '1 second' AS took,
            CASE WHEN n < 8 THEN 'received' WHEN n < 14 THEN 'processing'
                WHEN n % 300 = 0 THEN 'failed' ELSE 'completed' END AS state
        FROM generate_series(1, 9600) AS n
    ) AS sample
) AS emails;
INSERT INTO workers (name, threads, started_at, seen_at)
SELECT 'mail-' || n || ':' || 4710 + n, 8, now() - n * interval '9 hours', now()
FROM generate_series(1, 2) AS n
"""


def test_the_documentation_of_the_api_opens_to_anybody(page: Page) -> None:
    page.goto("/schema")
    operation = page.locator("#operations-Jobs-listJobs")
    expect(operation).to_contain_text("List emails")
    operation.locator(".opblock-summary-control").click()
    expect(operation).to_contain_text("Pages stay right while emails arrive")
