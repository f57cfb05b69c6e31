"""What operators do every day takes at most three acts from the overview, by mouse and by keys:
why did this one fail, try these again, is anything wrong. As operator and as administrator;
a viewer sees as much, and changes nothing."""

import re
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect
from support import Services, create_operators, enter_page, open_page, wait_until

Connection = psycopg.Connection[dict[str, Any]]

HANDLER = """
async def handle(email):
    if int(email.zendesk_ticket_id) % 5 == 0:
        raise ValueError("there is no order in it")
    return {"order": email.zendesk_ticket_id}
"""
FILL = """
INSERT INTO incoming_emails (id, zendesk_ticket_id, from_email, subject, raw_body_text, received_at)
SELECT gen_random_uuid(), n::text, 'customer-' || n || '@example.com', 'Order ' || n, 'Hello',
    now() - n * interval '1 second'
FROM generate_series(1, %s) AS n
"""


def count(connection: Connection, condition: str) -> int:
    row = connection.execute(
        f"SELECT count(*) AS emails FROM incoming_emails WHERE {condition}"
    ).fetchone()
    return int(row["emails"]) if row else 0


@pytest.mark.long
def test_three_jobs_take_three_acts_at_most(
    services: Services, browser: Browser, connection: Connection, request: pytest.FixtureRequest
) -> None:
    emails = request.config.getoption("--desk-emails")
    services.write_handler(HANDLER)
    services.start_web()
    create_operators(services)
    connection.execute(FILL, [emails])
    services.start_worker(concurrency=20, MAILROOM_MAX_RETRIES="0")
    failed = emails // 5
    wait_until(lambda: count(connection, "processing_status = 'failed'") == failed)
    wait_until(lambda: count(connection, "processing_status = 'completed'") == emails - failed)
    retried = 0
    for name, jobs in (("olga", by_mouse), ("ada", by_keys)):
        with open_page(browser, services.url) as page:
            enter_page(page, services, name)
            # Is anything wrong: no act at all.
            page.goto("/")
            expect(page.get_by_text("ValueError: there is no order in it").first).to_be_visible()
            jobs(page)
            retried += failed
            wait_until(lambda expected=retried: bulk_done(connection) == expected)
            wait_until(lambda: count(connection, "processing_status = 'failed'") == failed)
    assert services.run("mailroom", "user", "role", "olga", "viewer").returncode == 0
    with open_page(browser, services.url) as page:
        enter_page(page, services)
        page.goto("/")
        expect(page.get_by_text("ValueError: there is no order in it").first).to_be_visible()
        page.locator("a.figure.failed").click()
        expect(page.get_by_role("button", name="All that match")).to_have_count(0)
        page.locator("#rows tbody a").first.click()
        expect(page.locator("#state")).to_contain_text("there is no order in it")
        expect(page.get_by_role("button", name="Retry")).to_have_count(0)


def bulk_done(connection: Connection) -> int:
    row = connection.execute("SELECT sum(done) AS done FROM bulk_actions").fetchone()
    return int(row["done"] or 0) if row else 0


def by_mouse(page: Page) -> None:
    # Why did this one fail.
    page.locator("a.figure.failed").click()
    page.locator("#rows tbody a").first.click()
    expect(page.locator("#state")).to_contain_text("there is no order in it")
    # Try these again.
    page.goto("/")
    page.locator("a.figure.failed").click()
    page.get_by_role("button", name="All that match").click()
    page.locator("form.start button").click()
    expect(page).to_have_url(re.compile("/bulk/"))


def by_keys(page: Page) -> None:
    page.keyboard.press("f")
    # With its scripts, which take the next key.
    page.wait_for_url("**/emails?q=status%3Afailed")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_contain_text("there is no order in it")
    page.goto("/")
    page.keyboard.press("f")
    page.wait_for_url("**/emails?q=status%3Afailed")
    page.keyboard.press("a")
    page.wait_for_url("**/bulk/new?*")
    page.keyboard.press("r")
    expect(page).to_have_url(re.compile("/bulk/"))
