"""Lists of the desk: deliveries, files and workers, page by page and with check boxes."""

import html
import json
import os
import re
import socket
from collections.abc import Iterator
from typing import Any, TypeAlias
from urllib.parse import urlencode

import httpx
import psycopg
import pytest
from support import Services, create_operators, email, enter, signed

from app.intake.openapi import WEBHOOK_PATH

Connection: TypeAlias = psycopg.Connection[dict[str, Any]]

HOSTILE = "<script>window.hacked = 1</script>"
PAGES = ("/deliveries", "/files", "/workers", "/quarantine", "/suspended")


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def client(web: Services) -> Iterator[httpx.Client]:
    """An operator who has signed in."""
    create_operators(web)
    with httpx.Client(base_url=web.url, timeout=60, follow_redirects=True) as client:
        enter(client, web)
        yield client


def walk(client: httpx.Client, path: str, link: str = r'href="([^"]+)" rel="next"') -> list[str]:
    """The texts of the pages of a list."""
    pages = [client.get(path).text]
    while found := re.search(link, pages[-1]):
        pages.append(client.get(found[1].replace("&amp;", "&")).text)
    return pages


def emails_on(page: str) -> list[str]:
    return re.findall(r'<a href="/emails/([0-9a-f-]{36})"', page)


def test_nobody_sees_them_without_signing_in(web: Services) -> None:
    for path in PAGES:
        answer = httpx.get(web.url + path)
        to = f"/sign-in?next=%2F{path[1:]}"
        assert (answer.status_code, answer.headers["location"]) == (303, to), path


def test_they_are_small_and_take_no_place_that_is_not_theirs(client: httpx.Client) -> None:
    for path in PAGES:
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert len(answer.content) < 100_000
        if path != "/workers":
            assert client.get(path, params={"after": "x"}).status_code == 400, path


def test_what_was_not_delivered_is_listed_once(
    client: httpx.Client, connection: Connection
) -> None:
    # Many at the same moment, in which a page ends.
    connection.execute(
        "INSERT INTO incoming_emails (from_email, subject, processing_status, completed_at,"
        " sync_status, sync_error) SELECT 'a@example.com', %s, 'completed', '2026-11-01', 'failed',"
        " 'the receiver answered 503' FROM generate_series(1, 120)",
        [HOSTILE],
    )
    connection.execute(
        "INSERT INTO incoming_emails (from_email, processing_status, completed_at, sync_status,"
        " sync_next_attempt_at) SELECT 'a@example.com', 'failed', now(), 'pending', now()"
        " FROM generate_series(1, 2)"
    )
    pages = walk(client, "/deliveries")
    assert [len(emails_on(page)) for page in pages] == [50, 50, 20]
    assert len({one for page in pages for one in emails_on(page)}) == 120
    assert "Given up (120)" in pages[0]
    assert "Waiting (2)" in pages[0]
    assert "the receiver answered 503" in pages[0]
    assert "set <code>MAILROOM_SYNC_URL" in pages[0]
    assert HOSTILE not in pages[0]
    assert len(pages[0]) < 100_000
    (waiting,) = walk(client, "/deliveries?q=sync:pending")
    assert len(emails_on(waiting)) == 2


def test_deliveries_and_files_are_found_as_emails_are_and_done_all_at_once(
    client: httpx.Client, connection: Connection
) -> None:
    connection.execute(
        "WITH made AS (INSERT INTO incoming_emails (from_email, subject, processing_status,"
        " completed_at, sync_status, attachment_urls, created_at) SELECT 'a@' || domain,"
        " 'Late invoice', 'completed', '2026-11-01', 'failed',"
        " '[{\"url\": \"https://example.com/1\"}]', now() - interval '1 hour'"
        " FROM (SELECT 'example.com' FROM generate_series(1, 60) UNION ALL SELECT 'other.example')"
        " AS senders (domain) RETURNING id)"
        " INSERT INTO email_attachments (email, position, url, filename, state, reason, ended_at)"
        " SELECT id, 0, 'https://example.com/1', 'a.txt', 'skipped', 'off', now() FROM made"
    )
    for path, name, state in (("/deliveries", "sync", "failed"), ("/files", "file", "skipped")):
        named = f"{name}:{state}"
        for text, pages in (
            (named, [50, 11]),
            (f"{named} invoice from:example.com", [50, 10]),
            (f"{named} late from:other.example", [1]),
            (f"{named} ended:2026-11-02..", [0]),
        ):
            found = walk(client, f"{path}?{urlencode({'q': text})}")
            assert [len(emails_on(page)) for page in found] == pages, text
            assert len({one for page in found for one in emails_on(page)}) == sum(pages)
        # The state that is shown first is written into a search that names none.
        assert f'value="{name}:failed late"' in client.get(path, params={"q": "late"}).text
        for wrong, told in (
            ("colour:red", "there is no colour: to search by. There are status:"),
            (f"{name}:{'synced' if name == 'sync' else 'kept'}", "on this page, not"),
            ("a\0b", "holds a character that no text has"),
        ):
            page = client.get(path, params={"q": wrong}).text
            assert re.search(rf'id="wrong" role="alert">[^<]*{told}', page), (path, wrong)
            assert emails_on(page) == []
    # What its button asks for.
    form = {"action": "fetch", "which": "all", "q": "file:skipped invoice from:example.com"}
    assert "<strong>60</strong> would have" in client.get("/bulk/new", params=form).text


def test_files_are_found_by_their_names_and_deliveries_by_why_they_were_given_up(
    client: httpx.Client, connection: Connection
) -> None:
    connection.execute(
        "WITH made AS (INSERT INTO incoming_emails (from_email, subject, processing_status,"
        " completed_at, sync_status, sync_error) SELECT 'a@example.com', 'Hello', 'completed',"
        " now(), CASE WHEN error = 'waits' THEN 'pending' ELSE 'failed' END, error"
        " FROM unnest(ARRAY['the receiver answered 503', 'ReadTimeout: no answer from 10.0.0.1',"
        " 'waits']) AS error RETURNING id, sync_error)"
        " INSERT INTO email_attachments (email, position, url, filename, state, reason, ended_at)"
        " SELECT id, place, 'https://example.com/1', name, state, 'gone', now() FROM made,"
        " (VALUES (0, 'Rechnung_4711-a.PDF', 'failed'), (1, 'photo.png', 'failed'),"
        " (2, 'photo-kept.png', 'kept'), (3, NULL, 'failed')) AS file (place, name, state)"
        " WHERE sync_error <> 'waits'"
    )
    for path, text, found in (
        ("/files", "file-name:rechnung", 2),
        ("/files", "file-name:RECH* file-name:pdf", 2),
        ("/files", 'file-name:"4711-a"', 2),
        ("/files", "file-name:photo sync-error:503", 1),
        ("/files", "file-name:kept", 0),
        ("/files", "file:skipped file-name:photo", 0),
        ("/emails", "file:failed file-name:photo", 2),
        ("/deliveries", "sync-error:503", 1),
        ("/deliveries", "sync-error:timeout", 1),
        ("/deliveries", 'sync-error:"readtimeout: no answer"', 1),
        ("/deliveries", "sync-error:10.0.0.1", 1),
        ("/deliveries", "sync-error:waits", 0),
        ("/emails", "sync-error:answered", 1),
    ):
        page = client.get(path, params={"q": text}).text
        assert len(emails_on(page)) == found, (path, text)
        assert 'role="alert"' not in page, (path, text)
    for path, text, told in (
        ("/emails", "file-name:photo", "file-name: goes with one of file:failed"),
        ("/emails", "file:kept file-name:photo", "file-name: goes with one of file:failed"),
        ("/deliveries", "sync-error:--", "--: holds no letter and no digit"),
        ("/files", "file-name:--", "--: holds no letter and no digit"),
    ):
        page = client.get(path, params={"q": text}).text
        assert re.search(rf'role="alert">[^<]*{told}', page), (path, text)
    form = {"action": "fetch", "which": "all", "q": "file:failed file-name:photo sync-error:503"}
    assert "<strong>1</strong>" in client.get("/bulk/new", params=form).text


def test_without_a_provider_nobody_comes_from_one(web: Services, connection: Connection) -> None:
    for path in ("/sign-in/oidc", "/sign-in/oidc/back", "/sign-in/oidc/out"):
        assert httpx.get(web.url + path).status_code == 404, path
    assert connection.execute("SELECT FROM audit_entries").fetchall() == []


def test_a_search_that_no_text_fits_is_told(client: httpx.Client) -> None:
    for path in ("/quarantine?q=", "/suspended?q=", "/suspended?q=cause:"):
        answer = client.get(f"{path}a%00b")
        assert answer.status_code == 200, answer.text
        assert "holds a character that no text has" in answer.text, path


def test_a_form_whose_fields_are_files_is_refused(client: httpx.Client) -> None:
    token = token_on(client.get("/account").text)
    for name in ("id", "until", "action"):
        form = {"token": token, "action": "discard", "which": "checked"}
        form.pop(name, None)
        answer = client.post("/quarantine", data=form, files={name: ("x.txt", b"1")})
        assert answer.status_code == 400, (name, answer.text)


def test_an_email_is_shown_whose_file_says_not_when_it_ended(
    client: httpx.Client, connection: Connection
) -> None:
    row = connection.execute(
        "INSERT INTO incoming_emails (from_email) VALUES ('a@example.com') RETURNING id"
    ).fetchone()
    assert row is not None
    connection.execute(
        "INSERT INTO email_attachments (email, position, url, filename, state, reason)"
        " SELECT %s, row_number() OVER () - 1, 'https://example.com/1', 'a.txt', state, 'gone'"
        " FROM unnest(ARRAY['kept', 'failed', 'skipped', 'flagged', 'pending']) AS state",
        [row["id"]],
    )
    page = client.get(f"/emails/{row['id']}")
    assert page.status_code == 200, page.text
    assert client.get("/files").status_code == 200


def test_files_that_are_not_kept_lead_to_a_bulk_action(
    client: httpx.Client, connection: Connection
) -> None:
    row = connection.execute(
        "INSERT INTO incoming_emails (from_email, attachment_urls, created_at) VALUES"
        " ('a@example.com', '[{\"url\": \"https://example.com/1\"}]', now() - interval '1 hour')"
        " RETURNING id"
    ).fetchone()
    assert row is not None
    connection.execute(
        "INSERT INTO email_attachments (email, position, url, filename, state, reason, ended_at)"
        " SELECT %s, n, 'https://example.com/1', %s, 'failed', 'gone', '2026-11-01'"
        " FROM generate_series(0, 59) AS n",
        [row["id"], HOSTILE],
    )
    pages = walk(client, "/files")
    assert [len(emails_on(page)) for page in pages] == [50, 10]
    assert "Failed (60)" in pages[0]
    assert HOSTILE not in pages[0]
    assert emails_on(client.get("/files?q=file:skipped").text) == []
    # What its button asks for.
    for which in ({"q": "file:failed"}, {"which": "checked", "id": str(row["id"])}):
        preview = client.get("/bulk/new", params={"action": "fetch", **which}).text
        assert "<strong>1</strong> would have their missing files fetched" in preview
    assert emails_on(client.get("/emails", params={"q": "file:failed"}).text) == [str(row["id"])]
    assert emails_on(client.get("/emails", params={"q": "file:kept"}).text) == []


def test_workers_say_what_they_do(client: httpx.Client, connection: Connection) -> None:
    name = f"{socket.gethostname()}:{os.getpid()}"
    assert "No worker is there" in client.get("/workers").text
    connection.execute(
        "INSERT INTO workers (name, threads, seen_at) VALUES (%s, 20, now()),"
        " ('lost', 4, now() - interval '5 minutes')",
        [name],
    )
    connection.execute(
        "INSERT INTO incoming_emails (from_email, subject, processing_status, claimed_by,"
        " started_at, lease_expires_at) VALUES ('a@example.com', %s, 'processing', %s,"
        " now() - interval '3 minutes', now() + interval '1 hour'), ('a@example.com', 'Left',"
        " 'processing', 'lost', now() - interval '1 hour', now() - interval '1 minute')",
        [HOSTILE, name],
    )
    connection.execute(
        "INSERT INTO chores (name, token, running_by, last_started_at, lease_expires_at) VALUES"
        " ('prune', gen_random_uuid(), %s, now(), now() + interval '1 minute')",
        [name],
    )
    page = client.get("/workers").text
    assert "1 of 20" in page
    assert "1 of 4" in page
    assert re.search(r"Left</a>.*?lost.*?vanished.*?1 h", page, re.DOTALL)
    assert re.search(r"window.hacked.*?3 min", page, re.DOTALL)
    assert "prune" in page
    assert HOSTILE not in page


def token_on(page: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]


def kept(connection: Connection) -> set[str]:
    rows = connection.execute("SELECT id FROM quarantined_webhooks").fetchall()
    return {str(row["id"]) for row in rows}


def test_checked_webhooks_are_discarded_once_that_is_confirmed(
    web: Services, client: httpx.Client, connection: Connection
) -> None:
    for _ in range(3):
        assert httpx.post(web.url + WEBHOOK_PATH, json=email()).status_code == 401
    page = client.get("/quarantine").text
    ids = re.findall(r'name="id" value="([0-9a-f-]{36})"', page)
    assert len(ids) == 3
    form = {"action": "discard", "which": "checked", "id": ids[:2]}
    asked = client.get("/quarantine/new", params=form).text
    assert "Refused webhooks that were checked" in asked
    assert "<strong>2</strong> would be discarded for good" in asked
    nothing = client.get("/quarantine/new", params={**form, "id": []}).text
    assert "No row is checked" in nothing
    for wrong in ({"id": "x"}, {"action": "x"}):
        assert client.get("/quarantine/new", params=form | wrong).status_code == 400
    assert client.post("/quarantine", data={**form, "token": "0"}).status_code == 403
    assert kept(connection) == set(ids)
    told = client.post("/quarantine", data={**form, "token": token_on(asked)}).text
    assert "Discarded: 2." in told
    assert kept(connection) == {ids[2]}


def test_all_webhooks_that_a_search_finds_are_tried_again(
    web: Services, client: httpx.Client, connection: Connection
) -> None:
    # One that passes now, one that never will, one that is no webhook, one without its bytes.
    good, bad = signed(email()), signed(email(), secret="a secret that nobody set, and long")
    for body, headers, reason, detail in (
        (good["content"], good["headers"], "signature", "with 100% of_it"),
        (bad["content"], bad["headers"], "signature", "with the other"),
        (b"{}", {}, "suspended", "Zendesk suspended it"),
        (None, {}, "too_large", "a large one"),
    ):
        connection.execute(
            "INSERT INTO quarantined_webhooks (id, body, size, reason, detail, headers,"
            " remote_address) VALUES (gen_random_uuid(), %s, %s, %s, %s, %s, '192.0.2.1')",
            [body, len(body or b""), reason, detail, json.dumps(headers)],
        )
    for text, number in (
        ("", 4),
        ("reason:signature", 2),
        ("reason:signature other", 1),
        ("192.0.2", 4),
        ("100% of_it", 1),
        ("100%of", 0),
    ):
        listed = client.get("/quarantine", params={"q": text}).text
        assert len(re.findall(r'name="id"', listed)) == number, text
    assert "there is no colour: to search by" in client.get("/quarantine?q=colour:red").text
    assert "reason: is one of" in client.get("/quarantine?q=reason:red").text
    form = {"action": "retry", "which": "all", "q": ""}
    asked = client.get("/quarantine/new", params=form).text
    assert "<strong>2</strong> would be verified anew" in asked
    assert "1 are suspended mail, which nobody refused" in asked
    assert "1 were too large to be kept: left alone" in asked
    until = re.search(r'name="until" value="([^"]+)"', asked)
    assert until is not None
    late = signed(email())
    connection.execute(
        "INSERT INTO quarantined_webhooks (id, body, reason, headers) VALUES"
        " (gen_random_uuid(), %s, 'signature', %s)",
        [late["content"], json.dumps(late["headers"])],
    )
    answer = client.post(
        "/quarantine", data={**form, "token": token_on(asked), "until": html.unescape(until[1])}
    )
    assert "Admitted: 1. Refused again: 2. Passed over, since they are suspended mail: 1." in (
        answer.text
    )
    # What came after the preview is not among them.
    assert len(kept(connection)) == 4
    emails = connection.execute("SELECT count(*) AS emails FROM incoming_emails").fetchone()
    assert emails == {"emails": 1}
    again = client.post("/quarantine", data={**form, "q": "late", "token": token_on(asked)})
    assert "Nothing here is like that." in again.text
