"""The operator's desk in a real browser: the overview and Piccolo Admin.

`pytest tests/e2e/test_desk.py --screenshots docs` makes the README's pictures anew.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect
from support import (
    Services,
    create_operators,
    email,
    open_page,
    sign_in_page,
    signed,
    wait_until,
)

from app.intake.openapi import WEBHOOK_PATH

LIST = "/admin/#/incoming_emails/"
FAILED = f"{LIST}?processing_status=failed&processing_status__match=exact"

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
def web(services: Services) -> Services:
    create_operators(services)
    services.write_handler(HANDLER)
    services.start_web()
    return services


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
    fine = post(web, subject="Danke")
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
    page.get_by_role("link", name=failed).click()
    error = page.locator("[name=processing_error]").first
    expect(error).to_have_value("the CRM knows no such customer <b>")
    (web.folder / "mended").touch()
    page.goto("/admin/#/forms/retry-by-id/")
    ids = page.locator("input[name=email_ids]")
    ids.fill(f"{failed} wrong")
    page.locator("button", has_text="Submit").click()
    expect(page.get_by_text("This is no id of an email: wrong")).to_be_visible()
    ids.clear()
    ids.focus()
    page.keyboard.insert_text(f"{failed}\n{fine}\n")
    page.locator("button", has_text="Submit").click()
    told = f"1 email is queued again. Not failed, so left alone: {fine}."
    expect(page.get_by_text(told)).to_be_visible()
    wait_until(lambda: state_of(connection, failed) == "completed", web.log)
    page.goto("/")
    expect(page.locator(".figure.failed strong")).to_have_text("0")
    expect(page.locator(".figure.completed strong")).to_have_text("2")


def test_the_overview_updates_itself_until_it_is_paused(web: Services, page: Page) -> None:
    page.clock.install()
    sign_in_page(page)
    page.goto("/")
    received = page.locator(".figure.received strong")
    expect(received).to_have_text("0")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Admin")).to_be_focused()
    page.locator(".figure.received").focus()
    post(web)
    expect(received).to_have_text("1")
    expect(page.locator(".figure.received")).to_be_focused()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "true")
    post(web)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(received).to_have_text("1")
    assert asked == []
    page.get_by_role("button", name="Pause").click()
    page.clock.run_for(60_000)
    expect(received).to_have_text("2")


def test_the_overview_ends_with_the_session(
    page: Page, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    sign_in_page(page)
    page.goto("/")
    expect(page.locator(".figure.received")).to_be_visible()
    connection.execute("DELETE FROM sessions")
    expect(page.locator("input[name=password]")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_overview_fits_a_phone_and_loads_little(web: Services, page: Page, scheme: Any) -> None:
    sign_in_page(page)
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
    assert answer.headers["location"] == "/admin/"
    assert answer.content == b""
    assert httpx.get(f"{web.url}/overview/figures").status_code == 401


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
    sign_in_page(page)
    for address in ("/", FAILED, f"{LIST}{email_id}/"):
        page.goto(address)
        page.reload(wait_until="networkidle")
        assert "window.hacked" in page.content() + str(
            page.evaluate("[...document.querySelectorAll('input, textarea')].map(e => e.value)")
        )
        assert page.evaluate("window.hacked") is None
        assert page.locator("#hostile, iframe, img[src=x]").count() == 0
        assert page.evaluate("getComputedStyle(document.body).display") != "none"


def test_pictures_for_the_readme(
    web: Services,
    page: Page,
    connection: "psycopg.Connection[dict[str, object]]",
    pytestconfig: pytest.Config,
) -> None:
    folder: Path | None = pytestconfig.getoption("--screenshots")
    if folder is None:
        pytest.skip("pictures are made with --screenshots FOLDER only")
    connection.execute(SAMPLE_DAY)
    sign_in_page(page)
    page.goto("/", wait_until="networkidle")
    page.screenshot(path=folder / "overview.png", full_page=True)
    page.goto(LIST)
    expect(page.get_by_text("Rechnung").first).to_be_visible()
    page.screenshot(path=folder / "admin.png")


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
