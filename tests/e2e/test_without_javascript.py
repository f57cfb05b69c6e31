"""The desk with JavaScript switched off: all of it is pages, links and forms."""

import re
from typing import Any, TypeAlias

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, expect
from support import PASSWORD, Services, email, open_page, signed

from app.intake.openapi import WEBHOOK_PATH

Connection: TypeAlias = psycopg.Connection[dict[str, Any]]

TITLES = {"Overview": "Mailroom"}
LISTS = (
    *("Emails", "Bulk", "Files", "Deliveries", "Workers", "Quarantine", "Suspended", "Lint"),
    "Overview",
)


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


def states(connection: Connection) -> list[str]:
    rows = connection.execute("SELECT processing_status FROM incoming_emails ORDER BY subject")
    return [row["processing_status"] for row in rows]


def test_an_operator_does_the_daily_work_without_it(
    operated: Services, browser: Browser, connection: Connection
) -> None:
    for number in range(3):
        sent = signed(email(subject=f"Parcel {number}", body_html="<p>In <i>HTML</i></p>"))
        httpx.post(operated.url + WEBHOOK_PATH, **sent, timeout=60).raise_for_status()
    assert httpx.post(operated.url + WEBHOOK_PATH, json=email()).status_code == 401
    connection.execute(
        "UPDATE incoming_emails SET processing_status = 'failed', completed_at = now(),"
        " processing_error = 'the CRM answered 503'"
    )
    with open_page(browser, operated.url, java_script_enabled=False) as page:
        page.goto("/emails?q=status:failed")
        page.locator("input[name=username]").fill("olga")
        page.locator("input[name=password]").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        # Where one was about to go.
        expect(page.get_by_role("link", name="Parcel 0")).to_be_visible()
        page.locator("#q").fill('subject:"parcel 1"')
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page.get_by_role("link", name="Parcel 0")).to_have_count(0)
        page.get_by_role("link", name="Parcel 1").click()
        expect(page.locator("#state")).to_contain_text("the CRM answered 503")
        page.get_by_text("As HTML, without scripts").click()
        expect(page.frame_locator("iframe").get_by_text("HTML")).to_be_visible()
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("status")).to_have_text("It is queued again.")
        assert states(connection) == ["failed", "queued", "failed"]

        page.goto("/emails?q=status:failed")
        page.get_by_label("Check Parcel 0").check()
        page.get_by_role("button", name="Those checked").click()
        expect(page.locator("#kinds")).to_contain_text("1 would be queued again")
        page.get_by_role("link", name="Not now").click()
        page.get_by_role("button", name="All that match").click()
        expect(page.locator("#kinds")).to_contain_text("2 would be queued again")
        page.get_by_role("button", name="Retry").click()
        expect(page.locator("#state")).to_have_text("It waits for a worker")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#state")).to_have_text("Stopped by olga")

        page.get_by_role("link", name="Quarantine").click()
        page.locator("#rows input[type=checkbox]").check()
        page.get_by_label("Do").select_option("Discard")
        page.get_by_role("button", name="Those checked").click()
        page.get_by_role("button", name="Discard").click()
        expect(page.get_by_role("status")).to_have_text("Discarded: 1.")

        for name in LISTS:
            page.get_by_role("navigation").first.get_by_role("link", name=name).click()
            expect(page.locator("main")).to_be_visible()
            expect(page).to_have_title(re.compile(f"^{TITLES.get(name, name)}"))
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("input[name=password]")).to_be_visible()
