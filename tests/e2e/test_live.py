"""Pages that are live: what changes shows without a reload, and streams end when they have to."""

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, expect
from support import (
    WAIT_SECONDS,
    Services,
    create_operators,
    email,
    enter,
    enter_page,
    open_page,
    signed,
    wait_until,
)

from app.desk.live import MOST_STREAMS
from app.intake.openapi import WEBHOOK_PATH

Connection = psycopg.Connection[dict[str, Any]]

HANDLER = """
from app.handlers.seam import PermanentFailure

async def handle(email):
    raise PermanentFailure("the CRM knows no such customer")
"""
LISTENING = """
SELECT count(*) AS connections FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'LISTEN%mailroom_worked%'
"""


@pytest.fixture
def web(services: Services) -> Services:
    create_operators(services)
    services.write_handler(HANDLER)
    # How long a stop would wait for an answer that has begun.
    services.environment["MAILROOM_INTAKE_DEADLINE_SECONDS"] = "120"
    return services


def post(web: Services, **fields: Any) -> str:
    answer = httpx.post(web.url + WEBHOOK_PATH, **signed(email(**fields)), timeout=60)
    assert answer.status_code == 200, answer.text
    email_id: str = answer.json()["email_id"]
    return email_id


def until(lines: Iterator[str], wanted: str) -> None:
    for line in lines:
        if line == wanted:
            return
    raise AssertionError(f"the stream ended before {wanted}")


def test_a_stream_tells_of_changes_and_ends_with_the_session_and_with_the_process(
    web: Services, connection: Connection
) -> None:
    process = web.start_web()
    assert httpx.get(f"{web.url}/live").status_code == 401
    with httpx.Client(base_url=web.url, timeout=WAIT_SECONDS) as client:
        enter(client, web)
        with client.stream("GET", "/live") as first, client.stream("GET", "/live") as second:
            assert first.headers["content-type"].startswith("text/event-stream")
            lines = first.iter_lines()
            until(lines, "event: changed")
            wait_until(lambda: connection.execute(LISTENING).fetchone() == {"connections": 1})
            post(web)
            until(lines, "event: changed")
            until(second.iter_lines(), "event: changed")
            connection.execute("DELETE FROM sessions")
            until(lines, "event: signed-out")
            assert "" in lines
            assert list(lines) == []
        enter(client, web)
        with client.stream("GET", "/live") as stream:
            lines = stream.iter_lines()
            until(lines, "event: changed")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            for _ in lines:
                pass
            assert process.wait(WAIT_SECONDS) == 0
            # In order, and long before the stop would have lost its patience.
            assert time.monotonic() - began < 60


def test_one_stream_too_many_is_told_to_ask_now_and_then_until_another_ends(
    web: Services,
) -> None:
    web.start_web()
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=web.url, timeout=WAIT_SECONDS, limits=limits) as client:
        enter(client, web)
        with contextlib.ExitStack() as streams:
            first = streams.enter_context(client.stream("GET", "/live"))
            for _ in range(MOST_STREAMS - 1):
                one = streams.enter_context(client.stream("GET", "/live"))
                assert one.status_code == 200
            refused = client.get("/live")
            assert refused.status_code == 503
            assert "ask now and then instead" in refused.json()["detail"]
            assert int(refused.headers["retry-after"]) > 0
            # Pages are there all the same.
            assert client.get("/emails").status_code == 200
            first.close()

            def has_room() -> bool:
                with client.stream("GET", "/live") as answer:
                    return answer.status_code == 200

            wait_until(has_room)


def test_a_new_failure_shows_without_a_reload(
    web: Services, browser: Browser, connection: Connection
) -> None:
    web.start_web()
    email_id = post(web, subject="Wo ist mein Paket?")
    with open_page(browser, web.url) as page:
        enter_page(page, web)
        page.goto("/emails?q=status:failed")
        expect(page.get_by_text("No email is like that.")).to_be_visible()
        page.evaluate("window.isSame = true")
        one = page.context.new_page()
        one.goto(f"{web.url}/emails/{email_id}")
        expect(one.locator("#state")).not_to_contain_text("Failed")
        one.evaluate("window.isSame = true")
        # What somebody is about to do stays as it is.
        page.locator("#q").fill("status:failed and mo")
        web.start_worker()
        expect(one.locator("#state")).to_contain_text("Failed")
        expect(one.get_by_role("button", name="Retry")).to_be_visible()
        page.bring_to_front()
        expect(page.get_by_role("link", name="Wo ist mein Paket?")).to_be_visible()
        expect(page.locator("#q")).to_have_value("status:failed and mo")
        for same in (page, one):
            assert same.evaluate("window.isSame") is True
