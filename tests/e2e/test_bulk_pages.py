"""Bulk actions as an operator, a program and a command use them: previewed, begun, stopped, and
gone on with whoever is killed."""

import json
import os
import re
import signal
from typing import Any, TypeAlias

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, expect
from support import (
    WAIT_SECONDS,
    Services,
    create_operators,
    create_token,
    enter,
    enter_page,
    open_page,
    wait_until,
)

Connection: TypeAlias = psycopg.Connection[dict[str, Any]]

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
API = "/api/v1/bulk-actions"
# Leases that are short enough for a test, and batches that are small and slow enough.
HANDLER = """
import asyncio

import app.bulk.acting
import app.bulk.carrying_out
from app.jobs.chore_runner import Chores

Chores.__init__.__kwdefaults__["lease_seconds"] = 4.0
app.bulk.acting.BATCH = 50
real = app.bulk.carrying_out._rest

async def rest(context, seconds):
    await real(context, 0.1)

app.bulk.carrying_out._rest = rest

async def handle(email):
    await asyncio.sleep(3600)
"""


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


# Emails of a bulk action; no machine should be slower.
SLOWEST_PER_SECOND = 50


def store(connection: Connection, count: int, subject: str = "Hello", **columns: Any) -> list[str]:
    values = {"processing_status": "failed", "processing_error": "503", **columns}
    rows = connection.execute(
        f"INSERT INTO incoming_emails (from_email, subject, created_at, {', '.join(values)})"
        " SELECT 'erika@example.com', %s, now() - interval '1 hour'"
        f" {', %s' * len(values)} FROM generate_series(1, %s) RETURNING id",
        [subject, *values.values(), count],
    ).fetchall()
    return [str(row["id"]) for row in rows]


def counts(connection: Connection) -> dict[str, Any]:
    row = connection.execute(
        "SELECT state, total, done, skipped, failed, done + skipped + failed AS looked_at"
        " FROM bulk_actions"
    ).fetchone()
    assert row is not None
    return row


def field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]+)"', page)
    assert found is not None, page
    return found[1]


def test_nobody_sees_them_without_signing_in(operated: Services) -> None:
    for path in ("/bulk", "/bulk/new?action=retry&q="):
        answer = httpx.get(operated.url + path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/sign-in?next=%2Fbulk")
    assert httpx.post(f"{operated.url}/bulk").status_code == 401
    assert httpx.get(operated.url + API).status_code == 401


def test_what_is_no_form_of_ours_begins_nothing(
    client: httpx.Client, connection: Connection
) -> None:
    (email_id,) = store(connection, 1)
    page = client.get("/bulk/new", params={"action": "retry", "q": "status:failed"}).text
    form = {"action": "retry", "q": "status:failed", "key": field(page, "key")}
    assert client.post("/bulk", data=form).status_code == 403
    token = field(page, "token")
    for wrong in ({"action": "explode"}, {"key": "1"}, {"until": "soon"}):
        answer = client.post("/bulk", data={**form, "token": token, **wrong})
        assert answer.status_code == 400, wrong
    for params, said in (
        ({"action": "retry", "which": "checked"}, "No row is checked"),
        ({"action": "retry", "q": "colour:red"}, "there is no colour: to search by"),
        ({"action": "deliver", "q": ""}, "nothing is delivered here: set MAILROOM_SYNC_URL"),
    ):
        assert said in client.get("/bulk/new", params=params).text
    assert connection.execute("SELECT FROM bulk_actions").fetchall() == []
    assert email_id


def test_an_operator_retries_all_that_match_whoever_is_killed(
    operated: Services, browser: Browser, connection: Connection, request: pytest.FixtureRequest
) -> None:
    """The web process while the button is waited for, and the worker in the middle of it."""
    number = request.config.getoption("--bulk-emails")
    store(connection, number)
    store(connection, 3, processing_status="completed")
    services = operated
    services.write_handler(HANDLER)
    own = Services(services.environment["DATABASE_URL"], services.folder)
    own.environment |= {
        name: value for name, value in services.environment.items() if name != "MAILROOM_PORT"
    }
    worker = services.start_worker()
    web = own.start_web()
    try:
        with open_page(browser, own.url) as page:
            enter_page(page, own)
            page.goto("/emails?q=status:failed status:completed")
            page.get_by_label("Do", exact=True).select_option("Retry")
            page.get_by_role("button", name="All that match").click()
            expect(page.locator("#kinds")).to_contain_text(f"{number:,} would be queued again")
            expect(page.locator("#kinds")).to_contain_text("3 are completed: left alone")
            assert connection.execute("SELECT FROM bulk_actions").fetchall() == []
            page.get_by_role("button", name="Retry").click()
            expect(page.locator("#state")).to_contain_text("It ")
            # In the middle of it is not for long.
            wait_until(lambda: counts(connection)["looked_at"] > 0, services.log, every=0.05)
            services.kill_group(web)
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            halted = counts(connection)
            assert 0 < halted["looked_at"] < number
            assert halted["state"] == "running"

            web = own.start_web()
            services.start_worker()
            wait_until(
                lambda: counts(connection)["looked_at"] > halted["looked_at"],
                services.log,
                every=0.05,
            )
            page.reload()
            page.get_by_role("button", name="Stop").click()
            expect(page.locator("#state")).to_have_text("Stopped by olga")
            stopped = counts(connection)
            assert stopped["state"] == "stopped"
            assert stopped["looked_at"] < number
            page.get_by_role("button", name="Go on").click()
            wait_until(
                lambda: counts(connection)["state"] == "ended",
                services.log,
                seconds=WAIT_SECONDS + number / SLOWEST_PER_SECOND,
            )
            expect(page.locator("#state")).to_contain_text("Ended")
            expect(page.locator("#counts")).to_contain_text(f"{number:,} queued again")
            expect(page.locator("#counts")).to_contain_text("3 are completed")
    finally:
        own.end()
    assert counts(connection) == {
        "state": "ended",
        "total": number + 3,
        "done": number,
        "skipped": 3,
        "failed": 0,
        "looked_at": number + 3,
    }
    told = connection.execute(
        "SELECT count(*) AS emails FROM incoming_emails WHERE 1 = jsonb_array_length("
        "jsonb_path_query_array(attempt_errors, '$[*] ? (@.error == \"retried by olga\")'))"
    ).fetchone()
    assert told == {"emails": number}


def test_checked_rows_are_meant_alone_and_hostile_subjects_are_text(
    operated: Services, browser: Browser, connection: Connection
) -> None:
    first, second = store(connection, 1, HOSTILE) + store(connection, 1, "Second")
    with open_page(browser, operated.url) as page:
        enter_page(page, operated)
        page.goto("/emails?q=status:failed")
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("k")
        checked = page.locator("tr:focus-within a").get_attribute("href") or ""
        page.keyboard.press("x")
        page.get_by_label("Do", exact=True).select_option("Discard")
        page.get_by_role("button", name="Those checked").click()
        expect(page.locator("#kinds")).to_contain_text("1 would be discarded")
        page.get_by_label("Why").fill(HOSTILE)
        page.get_by_role("button", name="Discard").click()
        expect(page.locator("#state")).to_have_text("It waits for a worker")
        page.get_by_role("link", name="All bulk actions").click()
        expect(page.locator("#rows")).to_contain_text("1 that were checked or named")
        assert page.evaluate("window.hacked") is None
    row = connection.execute("SELECT email FROM bulk_action_emails").fetchone()
    assert row is not None
    assert checked.endswith(str(row["email"]))
    assert str(row["email"]) in (first, second)


def test_an_erasure_is_typed(client: httpx.Client, connection: Connection) -> None:
    store(connection, 2)
    page = client.get("/bulk/new", params={"action": "erase", "q": "status:failed"}).text
    form = {
        "action": "erase",
        "q": "status:failed",
        **{name: field(page, name) for name in ("token", "key", "until")},
    }
    told = client.post("/bulk", data={**form, "confirm": "1"}).text
    assert "type how many they are, which is 2: nothing was begun" in told
    page = client.post("/bulk", data={**form, "confirm": "2"}).text
    assert "It waits for a worker" in page
    # The button, pressed twice, has begun one.
    assert client.post("/bulk", data={**form, "confirm": "2"}).status_code == 200
    assert counts(connection)["total"] == 2


def test_one_email_is_delivered_again(services: Services, connection: Connection) -> None:
    services.environment["MAILROOM_SYNC_URL"] = "http://127.0.0.1:9/"
    services.environment["MAILROOM_SYNC_SECRETS"] = "whsec_" + "c2VjcmV0" * 5
    services.start_web()
    create_operators(services)
    (email_id,) = store(
        connection, 1, processing_status="completed", sync_status="failed", sync_error="away"
    )
    connection.execute("UPDATE incoming_emails SET completed_at = now(), sync_version = 1")
    with httpx.Client(base_url=services.url, timeout=60, follow_redirects=True) as client:
        enter(client, services)
        page = client.get(f"/emails/{email_id}").text
        form = {"token": field(page, "token"), "action": "deliver"}
        told = client.post(f"/emails/{email_id}", data=form).text
        assert "It is delivered again." in told
        assert "to be delivered again: its delivery had been given up" in told
        again = client.post(f"/emails/{email_id}", data=form).text
        assert "it is being delivered, or is to be already" in again
    row = connection.execute("SELECT sync_status FROM incoming_emails").fetchone()
    assert row == {"sync_status": "pending"}


def test_a_program_does_the_same(web: Services, connection: Connection) -> None:
    ids = store(connection, 3)
    operate = create_token(web, "crm", "--scope", "operate")
    read = create_token(web, "viewer", "--scope", "read")
    with httpx.Client(base_url=web.url, headers=operate, timeout=60) as api:
        assert (
            api.post(API, json={"action": "retry", "search": ""}, headers=read).status_code == 403
        )
        asked = {"action": "retry", "search": "status:failed"}
        preview = api.post(API, json=asked).json()["preview"]
        assert (preview["total"], preview["can"], preview["cannot"]) == (3, 3, {})
        assert sorted(preview["first"]) == sorted(ids)
        assert api.get(API).json() == []
        begun = api.post(API, json={**asked, "dry_run": False}).json()["begun"]
        assert begun["asked_by"] == "crm"
        assert (begun["state"], begun["total"], begun["search"]) == ("running", 3, "status:failed")
        one = f"{API}/{begun['id']}"
        assert api.post(f"{one}/resume").status_code == 409
        assert api.post(f"{one}/stop").json()["state"] == "stopped"
        assert api.post(f"{one}/stop").status_code == 409
        assert api.post(f"{one}/resume").json()["state"] == "running"
        assert api.get(one).json() == api.get(API).json()[0]
        assert api.get(f"{one}/left-out").json() == []
        for wrong, named in (
            ({"action": "retry"}, "search"),
            ({"action": "retry", "search": "", "ids": ids}, "search"),
            ({"action": "settle", "ids": ids, "dry_run": False}, "reason"),
            ({"action": "erase", "ids": ids, "dry_run": False}, "confirm"),
            ({"action": "retry", "ids": ids * 334}, "ids"),
        ):
            refused = api.post(API, json=wrong)
            assert refused.status_code == 400, wrong
            assert refused.json()["errors"][0]["field"] == named, refused.text
        assert api.post(API, json={"action": "deliver", "ids": ids}).status_code == 409
        assert api.get(f"{API}/{ids[0]}").status_code == 404


def test_a_command_does_the_same(services: Services, connection: Connection) -> None:
    def bulk(*arguments: str) -> tuple[int, str]:
        done = services.run("mailroom", "bulk", *arguments)
        return done.returncode, done.stdout or done.stderr

    store(connection, 2)
    store(connection, 1, processing_status="completed")
    status, told = bulk("start", "retry", "--search", "")
    assert status == 0, told
    assert "2 of 3 emails would be queued again" in told
    assert "1 are completed" in told
    status, told = bulk("start", "retry", "--search", "status:failed", "--apply", "--json")
    assert status == 0, told
    begun = json.loads(told)
    assert (begun["state"], begun["total"]) == ("running", 2)
    status, told = bulk("stop", begun["id"])
    assert (status, "retry [status:failed]: stopped, 0 of 2" in told) == (0, True), told
    assert "it does not run: it is stopped" in bulk("stop", begun["id"])[1]
    assert "running" in bulk("resume", begun["id"])[1]
    assert begun["id"] in bulk("list")[1]
    assert "say why" in bulk("start", "settle", "--search", "", "--apply")[1]
    assert "type how many they are" in bulk("start", "erase", "--search", "", "--apply")[1]
