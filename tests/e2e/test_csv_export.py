"""Piccolo Admin's “Export CSV”, as a spreadsheet would read it."""

import csv
import io

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser
from support import Services, email, enter, enter_page, open_page, signed

from app.intake.openapi import WEBHOOK_PATH

FORMULA = "=cmd|' /C calc'!A0@evil.example"
TABLES = "/admin/api/tables/"
TABLE = f"{TABLES}incoming_emails/"


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def email_id(operated: Services, connection: "psycopg.Connection[dict[str, object]]") -> str:
    """An email each of whose texts is a formula."""
    answer = httpx.post(operated.url + WEBHOOK_PATH, **signed(email(subject=FORMULA)))
    answer.raise_for_status()
    stored: str = answer.json()["email_id"]
    connection.execute(
        "UPDATE incoming_emails SET from_email = %s, zendesk_ticket_id = '-2+3',"
        " processing_error = %s",
        [f"+{FORMULA}", f'@SUM(A1)\n"quoted", {FORMULA}'],
    )
    return stored


def test_a_hostile_email_is_exported_as_text(
    operated: Services, email_id: str, browser: Browser
) -> None:
    with open_page(browser, operated.url) as page:
        enter_page(page, operated)
        page.goto("/admin/#/incoming_emails/")
        page.get_by_text(FORMULA).first.wait_for()
        page.locator("[data-uitest=csv_button]").click()
        with page.expect_download() as download:
            page.locator("[data-uitest=download_csv_button]").click()
        content = download.value.path().read_text()
    (row,) = csv.DictReader(io.StringIO(content))
    assert row["id"] == email_id
    assert row["subject"] == f"'{FORMULA}"
    assert row["from_email"] == f"'+{FORMULA}"
    assert row["zendesk_ticket_id"] == "'-2+3"
    assert row["processing_error"] == f'\'@SUM(A1)\n"quoted", {FORMULA}'
    assert row["retry_count"] == "0"


def test_the_page_itself_shows_an_email_as_it_is(operated: Services, email_id: str) -> None:
    with httpx.Client(base_url=operated.url) as client:
        enter(client, operated)
        listed = client.get(TABLE, params={"__page_size": 100, "__readable": "true"}).json()
        (row,) = listed["rows"]
        assert (row["id"], row["subject"]) == (email_id, FORMULA)
        assert client.get(f"{TABLE}{email_id}/").json()["subject"] == FORMULA
        for path in ("", "incoming_emails/count/", "grouped/"):
            client.get(TABLES + path, params={"__page_size": 1000}).raise_for_status()
        refused = client.get(TABLE, params={"__page_size": 1000, "retry_count": 99999999999})
        assert refused.status_code == 400
        unknown = client.get(TABLE, params={"__page_size": 1000, "nothing": 1})
        assert unknown.status_code == 400
