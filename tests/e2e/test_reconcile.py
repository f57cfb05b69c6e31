"""`mailroom reconcile`, the same by the API, and the receiver of development, `mailroom listen`."""

import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psycopg
import pytest
from standardwebhooks import Webhook
from support import Process, Services, create_token, email, reach, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"

SYNC_SECRET = "whsec_" + "bWFpbHJvb20tdGVzdHMtYXJlLXNpZ25lZC1ieS10aGlz"
ANOTHER = "whsec_" + "YW5vdGhlci1zZWNyZXQtd2hpY2gtaXMtbm90LXRoZXJl"
PATH = "/api/v1/deliveries/reconcile"
ENDED = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def delivering(services: Services) -> Services:
    """Mailroom that delivers to a port where nobody listens."""
    services.environment |= {
        "MAILROOM_SYNC_URL": "http://127.0.0.1:1/",
        "MAILROOM_SYNC_SECRETS": SYNC_SECRET,
    }
    return services


@pytest.fixture
def listening(delivering: Services) -> Process:
    """`mailroom listen`."""
    return delivering.start("mailroom", "listen", "--port", "0")


@pytest.fixture
def receiver(delivering: Services, listening: Process) -> str:
    """Where it listens."""
    found: list[str] = []

    def listens() -> bool:
        found[:] = re.findall(r"MAILROOM_SYNC_URL=(\S+)", delivering.log())
        return bool(found)

    wait_until(listens, delivering.log)
    delivering.environment |= dict.fromkeys(
        ("MAILROOM_SYNC_URL", "MAILROOM_SYNC_CHECK_URL"), found[0]
    )
    return found[0]


@pytest.fixture
def api(delivering: Services) -> Iterator[httpx.Client]:
    delivering.start_web()
    headers = {"Authorization": "Bearer token"}
    with httpx.Client(base_url=delivering.url, headers=headers, timeout=60) as client:
        yield client


def store(connection: Connection, **columns: Any) -> str:
    values = {"processing_status": "completed", "completed_at": ENDED, **columns}
    row = connection.execute(
        f"INSERT INTO incoming_emails ({', '.join(values)})"
        f" VALUES ({', '.join(['%s'] * len(values))}) RETURNING id",
        list(values.values()),
    ).fetchone()
    assert row is not None
    return str(row["id"])


def synced(connection: Connection, **columns: Any) -> str:
    return store(
        connection,
        sync_status="synced",
        sync_version=1,
        synced_at=ENDED + timedelta(hours=1),
        **columns,
    )


def statuses(connection: Connection) -> dict[str, str]:
    rows = connection.execute("SELECT id, sync_status FROM incoming_emails").fetchall()
    return {str(row["id"]): row["sync_status"] for row in rows}


def deliver(url: str, event: Any, *, secret: str = SYNC_SECRET, webhook_id: str = "x") -> int:
    body = json.dumps(event)
    at = datetime.now(UTC)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, at, body),
    }
    return httpx.post(url, content=body, headers=headers).status_code


def test_the_command_counts_then_mends_and_exits_by_what_is_left(
    delivering: Services, connection: Connection
) -> None:
    failed = store(connection, sync_status="failed", sync_error="away")
    never = store(connection)
    left_alone = synced(connection)
    dry = delivering.run("mailroom", "reconcile")
    assert dry.returncode == 1, dry.stderr
    assert re.search(r"1 +given up", dry.stdout) and re.search(r"1 +ended without", dry.stdout)
    assert "2 emails would be delivered: do it with --apply" in dry.stdout
    assert set(statuses(connection).values()) == {"failed", "not_applicable", "synced"}
    one = delivering.run("mailroom", "reconcile", "--only", "failed", "--apply", "--json")
    assert one.returncode == 0, one.stderr
    told = json.loads(one.stdout)
    assert (told["found"]["failed"], told["to_be_delivered"]) == (1, 1)
    assert statuses(connection) == {
        failed: "pending",
        never: "not_applicable",
        left_alone: "synced",
    }
    rest = delivering.run("mailroom", "reconcile", "--apply")
    assert (rest.returncode, rest.stdout.splitlines()[-1]) == (
        0,
        "1 emails are to be delivered now",
    )
    nothing = delivering.run("mailroom", "reconcile")
    assert (nothing.returncode, nothing.stdout) == (0, "Nothing differs.\n")
    shown = delivering.run("mailroom", "show", failed).stdout
    assert "to be delivered again: its delivery had been given up (by an operator" in shown


def test_a_span_without_a_filter_is_refused_and_what_is_not_possible_says_its_mend(
    delivering: Services, connection: Connection
) -> None:
    email_id = synced(connection)
    refused = delivering.run("mailroom", "reconcile", "--since", "2026-11-23", "--apply")
    assert refused.returncode == 1
    assert "--all" in refused.stderr
    assert statuses(connection) == {email_id: "synced"}
    backward = ("--since", "2026-11-24", "--until", "2026-11-23", "--all")
    refused = delivering.run("mailroom", "reconcile", *backward)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "`until` has to be later than `since`" in refused.stderr
    meant = delivering.run("mailroom", "reconcile", "--since", "2026-11-23", "--all", "--apply")
    assert meant.returncode == 0, meant.stderr
    assert statuses(connection) == {email_id: "pending"}
    unasked = delivering.run("mailroom", "reconcile", "--only", "lacking")
    assert unasked.returncode == 1
    assert "MAILROOM_SYNC_CHECK_URL" in unasked.stderr
    nowhere = delivering.run("mailroom", "reconcile", MAILROOM_SYNC_URL="")
    assert nowhere.returncode == 1
    assert "MAILROOM_SYNC_URL" in nowhere.stderr
    no_time = delivering.run("mailroom", "reconcile", "--since", "yesterday")
    assert no_time.returncode == 2
    assert "2026-11-26" in no_time.stderr


def test_what_waits_is_called_off_once_nothing_is_delivered_any_more(
    delivering: Services, connection: Connection
) -> None:
    waiting = store(
        connection, sync_status="pending", sync_version=1, sync_next_attempt_at=datetime.now(UTC)
    )
    failed = store(connection, sync_status="failed")
    before = statuses(connection)
    refused = delivering.run("mailroom", "sync", "cancel", "--apply")
    assert refused.returncode == 1
    assert "empty MAILROOM_SYNC_URL, MAILROOM_SYNC_CHECK_URL and MAILROOM_SYNC" in refused.stderr
    assert statuses(connection) == before
    delivering.environment |= {"MAILROOM_SYNC_URL": "", "MAILROOM_KEEP_COMPLETED_DAYS": "3"}
    connection.execute(
        "UPDATE incoming_emails SET completed_at = now() - interval '9 days' WHERE id = %s",
        [waiting],
    )
    mend = "1 emails wait for that, which holds back their removal: set MAILROOM_SYNC_URL, or call "
    assert mend in delivering.run("mailroom", "prune", "--dry-run").stdout
    findings = json.loads(delivering.run("mailroom", "doctor", "--json").stdout)
    [found] = [finding for finding in findings if finding["check"] == "delivery"]
    assert not found["is_well"]
    assert mend in found["explanation"]
    dry = delivering.run("mailroom", "sync", "cancel")
    assert (dry.returncode, dry.stdout) == (1, "would be called off: 1 (do it with --apply)\n")
    assert statuses(connection) == before
    done = delivering.run("mailroom", "sync", "cancel", "--apply")
    assert (done.returncode, done.stdout) == (0, "called off: 1\n"), done.stderr
    assert statuses(connection) == {waiting: "not_applicable", failed: "failed"}
    again = delivering.run("mailroom", "sync", "cancel")
    assert (again.returncode, again.stdout) == (0, "would be called off: 0\n")
    assert mend not in delivering.run("mailroom", "prune", "--dry-run").stdout
    findings = json.loads(delivering.run("mailroom", "doctor", "--json").stdout)
    assert all(finding["is_well"] for finding in findings if finding["check"] == "delivery")
    # Should finished emails be delivered again one day.
    delivering.environment["MAILROOM_SYNC_URL"] = "http://127.0.0.1:1/"
    told = delivering.run("mailroom", "reconcile", "--only", "never_asked").stdout
    assert re.search(r"1 +ended without being asked for, or called off", told)


def test_what_a_worker_has_in_its_hands_is_not_called_off(
    delivering: Services, connection: Connection
) -> None:
    held = store(
        connection,
        sync_status="pending",
        sync_version=1,
        sync_next_attempt_at=ENDED,
        sync_token=uuid4(),
        sync_lease_expires_at=datetime.now(UTC) + timedelta(hours=1),
    )
    left = "in other hands right now, being sent or in a job again: 1. Run it again later\n"
    for options, said in (([], "would be called off: 0\n"), (["--apply"], "called off: 0\n")):
        done = delivering.run("mailroom", "sync", "cancel", *options, MAILROOM_SYNC_URL="")
        assert (done.returncode, done.stdout) == (1, said + left)
    assert statuses(connection) == {held: "pending"}


def test_a_receiver_is_asked_what_it_has_and_gets_what_it_lacks(
    delivering: Services, receiver: str, connection: Connection
) -> None:
    there, lost = synced(connection), synced(connection)
    webhook_id = f"email_{there.replace('-', '')}_1"
    event = {"type": "email.completed", "id": webhook_id, "data": {"ticket_id": "35436"}}
    assert deliver(receiver, event, webhook_id=webhook_id) == 200
    ended = delivering.run("mailroom", "reconcile", "--apply")
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"1 +not there, says the receiver", ended.stdout), ended.stdout
    assert statuses(connection) == {there: "synced", lost: "pending"}


def test_what_differs_is_mended_though_the_receiver_cannot_be_asked(
    delivering: Services, connection: Connection
) -> None:
    delivering.environment["MAILROOM_SYNC_CHECK_URL"] = "http://127.0.0.1:1/check"
    failed, there = store(connection, sync_status="failed"), synced(connection)
    ended = delivering.run("mailroom", "reconcile", "--apply")
    assert ended.returncode == 1
    assert "MAILROOM_SYNC_CHECK_URL cannot be asked" in ended.stderr
    assert "1 emails are to be delivered now" in ended.stdout
    assert statuses(connection) == {failed: "pending", there: "synced"}
    other = store(connection, sync_status="failed")
    delivering.start_web()
    headers = {"Authorization": "Bearer token"}
    body = {"dry_run": False}
    answer = httpx.post(delivering.url + PATH, json=body, headers=headers, timeout=60)
    assert answer.status_code == 502
    assert "MAILROOM_SYNC_CHECK_URL cannot be asked" in answer.json()["detail"]
    assert answer.json()["next_cursor"] is None
    assert statuses(connection)[other] == "pending"


@pytest.mark.long
def test_who_asks_by_the_api_goes_on_where_the_receiver_did_not_answer_for_long(
    delivering: Services, connection: Connection
) -> None:
    there = synced(connection)
    failed = store(connection, processing_status="failed", sync_status="failed")
    body: dict[str, Any] = {"dry_run": False}
    headers = {"Authorization": "Bearer token"}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        check_url = f"http://127.0.0.1:{silent.getsockname()[1]}/check"
        delivering.start_web(
            MAILROOM_SYNC_CHECK_URL=check_url,
            MAILROOM_SYNC_FAILED="true",
            # Longer than one request of the API takes.
            MAILROOM_SYNC_TIMEOUT_SECONDS="11",
        )
        asked = httpx.post(delivering.url + PATH, json=body, headers=headers, timeout=120)
    answer = asked.json()
    assert (asked.status_code, answer["status"]) == (502, 502), answer
    assert "go on with `next_cursor`" in answer["detail"]
    assert statuses(connection) == {there: "synced", failed: "failed"}
    body["cursor"] = answer["next_cursor"]
    rest = httpx.post(delivering.url + PATH, json=body, headers=headers, timeout=120)
    assert (rest.status_code, rest.json()["next_cursor"]) == (200, None), rest.text
    assert statuses(connection) == {there: "synced", failed: "pending"}


def test_the_receiver_of_development_shows_deliveries_and_refuses_wrong_signatures(
    delivering: Services, receiver: str
) -> None:
    event = {"type": "email.completed", "id": "email_1_1", "data": {"ticket_id": "35\x1b[2J436"}}
    assert deliver(receiver, event) == 200
    assert deliver(receiver, [event, {"type": "email.erased", "id": "event_2"}]) == 200
    assert deliver(receiver, event, secret=ANOTHER) == 401
    assert httpx.post(receiver, content=b"{}").status_code == 401
    odd = {"webhook-id": "x", "webhook-timestamp": "nan", "webhook-signature": "v1"}
    assert httpx.post(receiver, content=b"{}", headers=odd).status_code == 401
    wait_until(lambda: delivering.log().count("REFUSED: signature") == 3, delivering.log)
    log = delivering.log()
    assert "ticket 35\\u001b[2J436  signature right\n" in log
    assert "signature right, again\n" in log
    assert "email.erased  event_2" in log


def test_the_api_does_the_same_with_the_scope_to_operate(
    delivering: Services, api: httpx.Client, connection: Connection
) -> None:
    email_id = store(connection, sync_status="failed", zendesk_ticket_id="35436")
    other = store(connection, sync_status="failed", zendesk_ticket_id="35437")
    reads = create_token(delivering, "reads")
    assert api.post(PATH, json={}, headers=reads).status_code == 403
    counted = api.post(PATH).json()
    assert counted["found"] == {"failed": 2}
    assert (counted["to_be_delivered"], counted["next_cursor"]) == (0, None)
    assert set(statuses(connection).values()) == {"failed"}
    done = api.post(PATH, json={"ticket_id": "35436", "dry_run": False}).json()
    assert (done["looked_at"], done["to_be_delivered"]) == (1, 1)
    assert statuses(connection) == {email_id: "pending", other: "failed"}
    events = api.get(f"/api/v1/jobs/{email_id}").json()["events"]
    assert "given up (by " in events[-1]["what"] or "given up (by " in events[-2]["what"]
    for body, field in (
        ({"since": "2026-11-23T00:00:00Z"}, "everything"),
        ({"only": ["chosen"]}, "everything"),
        (
            {
                "since": "2026-11-24T00:00:00Z",
                "until": "2026-11-24T00:59:00+01:00",
                "everything": True,
            },
            "until",
        ),
        ({"only": ["untold"], "ticket_id": "35436"}, "only"),
        ({"only": ["untold"], "from_email": "erika@example.com"}, "only"),
        ({"ids": []}, "ids"),
        ({"ids": [str(uuid4())] * 1_001}, "ids"),
        ({"overdue_after_hours": -1}, "overdue_after_hours"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "WyJyZWNlaXZlZCIsIG51bGwsICIwIl0="}, "cursor"),
        ({"ticket_id": "\x00"}, "ticket_id"),
        ({"since": "0001-01-01T00:00:00+14:00", "everything": True}, "since"),
        ({"onlly": ["failed"]}, "onlly"),
    ):
        refused = api.post(PATH, json={**body, "dry_run": False})
        assert refused.status_code == 400, (body, refused.text)
        assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert api.post(PATH, json={"only": ["lacking"]}).status_code == 409
    assert statuses(connection) == {email_id: "pending", other: "failed"}


@pytest.mark.long
def test_what_a_receiver_lost_is_delivered_again_under_the_same_id(
    delivering: Services, listening: Process, receiver: str
) -> None:
    delivering.start_web()
    delivering.start_worker()
    answer = httpx.post(delivering.url + WEBHOOK_PATH, timeout=60, **signed(email())).json()
    email_id = answer["email_id"]
    webhook_id = f"email_{email_id.replace('-', '')}_1"
    line = f"email.completed  {webhook_id}  ticket {email()['ticket_id']}  signature right\n"
    wait_until(lambda: line in delivering.log(), delivering.log)

    def job() -> dict[str, Any]:
        headers = {"Authorization": "Bearer token"}
        told = httpx.get(f"{delivering.url}/api/v1/jobs/{email_id}", headers=headers, timeout=60)
        found: dict[str, Any] = told.json()["job"]
        return found

    wait_until(lambda: job()["sync_status"] == "synced", delivering.log)
    assert delivering.run("mailroom", "reconcile").stdout == "Nothing differs.\n"
    # It forgets what it had.
    listening.terminate()
    listening.wait()
    delivering.start("mailroom", "listen", "--port", str(urlsplit(receiver).port))
    wait_until(lambda: reach(receiver), delivering.log)
    ended = delivering.run("mailroom", "reconcile", "--apply")
    assert ended.returncode == 0, ended.stderr
    assert "not there, says the receiver" in ended.stdout
    wait_until(lambda: delivering.log().count(line) == 2, delivering.log)
    wait_until(lambda: job()["sync_status"] == "synced", delivering.log)
    shown = delivering.run("mailroom", "show", email_id).stdout.splitlines()
    deliveries = [line.split("  ", 2)[-1] for line in shown if "deliver" in line]
    assert [told.partition(" (by ")[0] for told in deliveries] == [
        "delivery, try 1: delivered",
        "to be delivered again: its receiver says that it has it not",
        "delivery, try 1: delivered",
    ]
    assert shown[-1] == "Next: nothing: it is done"
