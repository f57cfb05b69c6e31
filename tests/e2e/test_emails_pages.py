"""The emails' own pages, as an operator uses them: find one, understand it, act on it."""

import contextlib
import html
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from email.policy import default
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from playwright.sync_api import Browser, expect
from support import Services, email, enter, enter_page, open_page, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

Connection = psycopg.Connection[dict[str, Any]]

HOSTILE = (
    "<p style='color: red; background-image: url(https://tracker.example/a.png)'>Hello</p>"
    "<script>window.hacked = 1; parent.hacked = 1</script>"
    "<img src=https://tracker.example/pixel.png onerror='window.hacked = 2'>"
    "<svg onload='parent.hacked = 3'></svg>"
    "<a href='javascript:parent.hacked=4'>click</a>"
    "<iframe srcdoc='<script>parent.hacked = 5</script>'></iframe>"
    "<form action=https://tracker.example/><input name=password><button>Sign in</button></form>"
    "<meta http-equiv=refresh content='0;url=https://tracker.example/'>"
    "<base href=https://tracker.example/><link rel=stylesheet href=https://tracker.example/a.css>"
)


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


def post(web: Services, **fields: Any) -> str:
    answer = httpx.post(web.url + WEBHOOK_PATH, **signed(email(**fields)), timeout=60)
    assert answer.status_code == 200, answer.text
    email_id: str = answer.json()["email_id"]
    return email_id


def fail(connection: Connection, email_id: str, error: str = "the CRM answered 503") -> None:
    connection.execute(
        "UPDATE incoming_emails SET processing_status = 'failed', completed_at = now(),"
        " processed_at = now(), retry_count = 4, processing_error = %s WHERE id = %s",
        [error, email_id],
    )


def status_of(connection: Connection, email_id: str) -> str | None:
    row = connection.execute(
        "SELECT processing_status FROM incoming_emails WHERE id = %s", [email_id]
    ).fetchone()
    return row["processing_status"] if row else None


def token_on(page: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]


def test_nobody_sees_them_without_signing_in(operated: Services) -> None:
    email_id = post(operated)
    for path in ("", f"/{email_id}", f"/{email_id}/html", f"/{email_id}/attachments/0"):
        answer = httpx.get(f"{operated.url}/emails{path}")
        assert answer.status_code == 303, path
        assert answer.headers["location"] == f"/sign-in?next=%2Femails{path.replace('/', '%2F')}"
    assert httpx.post(f"{operated.url}/emails/{email_id}").status_code == 401


def test_a_search_finds_what_it_says(
    operated: Services, client: httpx.Client, connection: Connection
) -> None:
    late = post(operated, subject="Late invoice", from_email="erika@example.org", ticket_id="71")
    parcel = post(operated, subject="Where is my parcel", ticket_id="72")
    fail(connection, parcel)
    for text, found in (
        ("", {late, parcel}),
        ("invoice late", {late}),
        ("72", {parcel}),
        ("status:failed", {parcel}),
        ('error:"answered 503"', {parcel}),
        ("from:example.org", {late}),
        ("from:ERIKA@example.org", {late}),
        ("ticket:71", {late}),
        ("status:failed invoice", set()),
        ("received:2001-01-01", set()),
    ):
        page = client.get("/emails", params={"q": text}).text
        assert set(re.findall(r'/emails/([0-9a-f-]{36})"', page)) == found, text
    wrong = client.get("/emails", params={"q": "colour:red"}).text
    assert "there is no colour: to search by" in wrong
    assert 'value="colour:red"' in wrong


def test_a_search_that_takes_too_long_is_told(
    operated: Services, client: httpx.Client, connection: Connection
) -> None:
    post(operated)
    connection.execute("ALTER TABLE incoming_emails RENAME TO stored_emails")
    try:
        # Stands in for an archive of millions.
        connection.execute(
            "CREATE VIEW incoming_emails AS"
            " SELECT stored_emails.* FROM stored_emails, pg_sleep(60) WHERE subject <> ''"
        )
        page = client.get("/emails", params={"q": "from:example.com"})
        assert page.status_code == 200
        assert "it was not searched to its end in 5 seconds: narrow it down" in page.text
    finally:
        connection.execute("DROP VIEW incoming_emails")
        connection.execute("ALTER TABLE stored_emails RENAME TO incoming_emails")


def test_a_failed_email_is_explained_and_retried(
    operated: Services, client: httpx.Client, connection: Connection
) -> None:
    first = post(operated, subject="First", ticket_id="80", body_text="New\n\n> what was quoted\n")
    second = post(operated, subject="Second", ticket_id="80")
    fail(connection, first)
    page = client.get(f"/emails/{first}").text
    assert re.search(r"Failed after 5 attempts, the last .* ago: the CRM answered 503", page)
    assert f'href="/emails/{second}"' in page
    assert "received: stored durably" in page
    form = {"token": token_on(page), "action": "retry"}
    assert client.post(f"/emails/{first}", data={**form, "token": "0" * 64}).status_code == 403
    assert status_of(connection, first) == "failed"
    answer = client.post(f"/emails/{first}", data=form)
    assert "It is queued again." in answer.text
    assert status_of(connection, first) == "queued"
    again = client.post(f"/emails/{first}", data=form).text
    assert "nothing was done: the email is queued by now" in again


@pytest.mark.parametrize("action", ["settle", "discard"])
def test_it_is_completed_by_hand_with_a_reason(
    operated: Services, client: httpx.Client, connection: Connection, action: str
) -> None:
    email_id = post(operated)
    fail(connection, email_id)
    form = {"token": token_on(client.get(f"/emails/{email_id}").text), "action": action}
    assert "say why" in client.post(f"/emails/{email_id}", data=form).text
    assert status_of(connection, email_id) == "failed"
    told = client.post(f"/emails/{email_id}", data={**form, "reason": "called them"}).text
    assert "by olga: called them" in told
    assert status_of(connection, email_id) == "completed"


def test_it_is_erased_once_its_ticket_is_typed(
    operated: Services, client: httpx.Client, connection: Connection
) -> None:
    email_id = post(operated, ticket_id="90")
    form = {"token": token_on(client.get(f"/emails/{email_id}").text), "action": "erase"}
    told = client.post(f"/emails/{email_id}", data={**form, "ticket": "91"}).text
    assert "type the number of its ticket" in told
    assert status_of(connection, email_id) == "received"
    client.post(f"/emails/{email_id}", data={**form, "ticket": "90"})
    assert status_of(connection, email_id) is None
    gone = client.get(f"/emails/{email_id}")
    assert gone.status_code == 404


def test_hostile_html_runs_and_loads_nothing(operated: Services, browser: Browser) -> None:
    email_id = post(operated, subject=HOSTILE, from_name=HOSTILE[:200], body_html=HOSTILE)
    with open_page(browser, operated.url) as page:
        enter_page(page, operated)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.goto(f"/emails/{email_id}")
        page.get_by_text("As HTML, without scripts").click()
        frame = page.frame_locator("iframe")
        expect(frame.get_by_text("Hello")).to_have_css("color", "rgb(255, 0, 0)")
        frame.get_by_text("click").click()
        assert page.evaluate("window.hacked") is None
        assert [url for url in asked if not url.startswith(operated.url)] == []
        assert told == []


def test_keys_lead_from_the_list_to_a_retry(
    operated: Services, browser: Browser, connection: Connection
) -> None:
    email_id = post(operated, subject="Pressed")
    fail(connection, email_id)
    with open_page(browser, operated.url) as page:
        enter_page(page, operated)
        page.goto("/")
        page.get_by_role("link", name="Emails", exact=True).click()
        # A key is for the page that is there with its scripts, so wait for each.
        page.wait_for_url("**/emails")
        page.keyboard.press("/")
        expect(page.get_by_role("combobox", name="Search")).to_be_focused()
        page.keyboard.type("status:failed")
        page.keyboard.press("Enter")
        page.wait_for_url("**/emails?q=status%3Afailed*")
        page.get_by_role("heading", name="Emails").click()
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/emails/{email_id}")
        expect(page.get_by_role("heading", name="Pressed")).to_be_visible()
        page.keyboard.press("r")
        expect(page.get_by_role("status")).to_have_text("It is queued again.")
    wait_until(lambda: status_of(connection, email_id) == "queued")


def test_pages_lead_both_ways_with_a_count(
    operated: Services, client: httpx.Client, connection: Connection
) -> None:
    connection.execute(
        "INSERT INTO incoming_emails (from_email, subject, received_at, sync_status,"
        " attachment_urls, retry_count, processing_status, processing_error, completed_at)"
        " SELECT 'e@example.com', 'Number ' || n, now() - n * interval '1 minute', 'failed',"
        " '[{\"url\": \"https://example.com/a\"}]', 4, 'failed', 'the CRM answered 503', now()"
        " FROM generate_series(1, 120) AS n"
    )
    for text in ("", "number", "status:failed"):
        first = client.get("/emails", params={"q": text}).text
        assert "Number 1<" in first and "Number 50<" in first and "Number 51<" not in first
        assert re.search(r">120 emails<", first), text
        assert 'rel="prev"' not in first
        second = client.get(link(first, "next")).text
        assert "Number 51<" in second and "Number 100<" in second
        last = client.get(link(second, "next")).text
        assert "Number 120<" in last and 'rel="next"' not in last
        assert "Number 51<" in client.get(link(last, "prev")).text
        again = client.get(link(second, "prev")).text
        assert "Number 1<" in again and 'rel="prev"' not in again
    assert "failed, attempt 5" in first
    assert "the CRM answered 503" in first
    assert '<td class="number">1</td>' in first
    assert client.get("/emails?before=nonsense").status_code == 400


def link(page: str, relation: str) -> str:
    found = re.search(rf'href="([^"]+)" rel="{relation}"', page)
    assert found is not None
    return html.unescape(found[1])


def test_a_search_is_saved_under_a_name_of_ones_own(
    operated: Services, client: httpx.Client
) -> None:
    search = "status:failed error:503"
    page = client.get("/emails", params={"q": search}).text
    form = {"token": token_on(page), "q": search, "name": "<b>Mine</b>"}
    assert client.post("/emails/saved", data={**form, "token": "0" * 64}).status_code == 403
    assert "give the search a name" in client.post("/emails/saved", data={**form, "name": ""}).text
    told = client.post("/emails/saved", data={**form, "q": "a\0b"}).text
    assert "holds a character that no text has" in told
    wrong = client.post("/emails/saved", data={**form, "q": "colour:red"}).text
    assert "there is no colour: to search by" in wrong
    saved = client.post("/emails/saved", data=form)
    assert saved.url.params["q"] == search
    assert "&lt;b&gt;Mine&lt;/b&gt;</a>" in saved.text
    with httpx.Client(base_url=operated.url, timeout=60, follow_redirects=True) as other:
        enter(other, operated, "ada")
        assert "Mine" not in other.get("/emails").text
        remove = re.search(r'name="remove" value="([0-9a-f-]+)"', saved.text)
        assert remove is not None
        theirs = {"token": token_on(other.get("/emails?q=x").text), "remove": remove[1]}
        other.post("/emails/saved", data=theirs)
    assert "Mine" in client.get("/emails").text
    gone = client.post("/emails/saved", data={"token": form["token"], "remove": remove[1]})
    assert "Mine" not in gone.text


def test_an_email_is_taken_along(
    operated: Services, client: httpx.Client, connection: Connection
) -> None:
    fields = {"subject": "Päckchen", "body_text": "Wo?", "body_html": "<p>Wo?</p>"}
    email_id = post(operated, from_name="Erika, M.", **fields)
    answer = client.get(f"/emails/{email_id}/download")
    assert answer.headers["content-disposition"].startswith("attachment;")
    message = message_from_bytes(answer.content, policy=default)
    assert message["subject"] == "Päckchen"
    assert message["from"].addresses[0].display_name == "Erika, M."
    assert [part.get_content_type() for part in message.walk()] == [
        *("multipart/alternative", "text/plain", "text/html")
    ]
    payload = client.get(f"/emails/{email_id}/payload")
    assert payload.headers["content-disposition"].startswith("attachment;")
    assert payload.json()["subject"] == "Päckchen"
    connection.execute(
        "UPDATE incoming_emails SET from_email = 'no address', subject = %s", ["a\r\nBcc: b"]
    )
    odd = message_from_bytes(client.get(f"/emails/{email_id}/download").content, policy=default)
    assert odd["subject"] == "a Bcc: b"
    assert odd["bcc"] is None


def test_what_was_sent_twice_is_told(operated: Services, client: httpx.Client) -> None:
    sender = "erika@example.com"
    first = post(operated, from_email=sender)
    second = post(operated, from_email=sender)
    other = post(operated, from_email=sender, body_text="Something else")
    page = client.get(f"/emails/{first}").text
    same = page.partition("The same text again")[2].partition("</section>")[0]
    assert second in same
    assert other not in same


def test_a_search_is_completed_as_it_is_typed(
    operated: Services, browser: Browser, connection: Connection
) -> None:
    fail(connection, post(operated, subject="First"), "ReadTimeout: the CRM did not answer")
    with open_page(browser, operated.url) as page:
        enter_page(page, operated)
        page.goto("/emails")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        field = page.get_by_role("combobox", name="Search")
        expect(field).to_be_focused()
        options = page.get_by_role("listbox").get_by_role("option")
        page.keyboard.type("sta")
        expect(options).to_have_text(["status:"])
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.keyboard.type("fa")
        expect(options).to_have_text(["status:failed"])
        page.keyboard.press("Tab")
        expect(field).to_have_value("status:failed ")
        page.keyboard.type("err")
        expect(options).to_have_text(["error:"])
        page.keyboard.press("Tab")
        expect(options).to_have_text(["error:ReadTimeout"])
        options.click()
        expect(field).to_have_value("status:failed error:ReadTimeout ")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile("error%3AReadTimeout"))
        expect(page.get_by_role("link", name="First")).to_be_visible()


def end_readers_of(web: Services) -> None:
    """As their timers do when a body takes too much of a processor's time."""
    for process in psutil.Process(web.processes[0].pid).children():
        with contextlib.suppress(psutil.Error):
            if "app.text.reader_process" in process.cmdline():
                process.send_signal(signal.SIGPROF)


def test_an_email_that_takes_too_long_to_be_read_is_shown_as_it_came(
    operated: Services, shared_web: Services, client: httpx.Client
) -> None:
    body = "Hello\n\n" + "> what was said before\n" * 8_000
    email_id = post(operated, body_text=body)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(client.get, f"/emails/{email_id}")
        while not asked.done():
            end_readers_of(shared_web)
            time.sleep(0.001)
    page = asked.result()
    assert page.status_code == 200
    assert "It could not be taken apart: this is all of it, as it came." in page.text
    assert html.escape("> what was said before\n> what was said before") in page.text
    assert "email_text_not_read" in operated.log_path.read_text()
    # The next page has a process of its own.
    page = client.get(f"/emails/{email_id}")
    assert "It could not be taken apart" not in page.text
    assert "<summary>Quoted</summary>" in page.text
