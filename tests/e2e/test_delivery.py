"""Delivery by real workers to a real receiver: of an email that ends, after a kill, and by
operators."""

import json
import os
import re
import signal
from typing import Any

import httpx
import psycopg
import pytest
from fake_receiver import SECRET, answer, hang, receiver_in_a_thread
from support import WAIT_SECONDS, Services, create_operators, enter, wait_until

from app.ending import FORCED_EXIT_STATUS

Connection = psycopg.Connection[dict[str, Any]]

INSERT = """
INSERT INTO incoming_emails (from_email, raw_body_text, processing_status)
VALUES ('erika@example.com', 'Wo bleibt mein Paket?', 'received') RETURNING id
"""


def add(connection: Connection) -> str:
    row = connection.execute(INSERT).fetchone()
    assert row is not None
    return str(row["id"])


def status_of(connection: Connection, email_id: str) -> dict[str, Any]:
    row = connection.execute("SELECT * FROM incoming_emails WHERE id = %s", [email_id]).fetchone()
    assert row is not None
    return row


@pytest.mark.long
def test_what_a_worker_finishes_it_delivers_at_once_and_what_a_kill_left_another_one(
    services: Services, connection: Connection
) -> None:
    with receiver_in_a_thread() as receiver:
        environment = {
            "MAILROOM_SYNC_URL": receiver.url,
            "MAILROOM_SYNC_SECRETS": SECRET,
            "MAILROOM_SYNC_RETRY_SECONDS": "0,0,0,0,0,0",
            "MAILROOM_LEASE_SECONDS": "2",
        }
        services.environment.update(environment)
        first = add(connection)
        worker = services.start_worker()
        wait_until(lambda: status_of(connection, first)["sync_status"] == "synced", services.log)
        [event] = receiver.events
        assert (event["type"], event["data"]["id"]) == ("email.completed", first)
        assert event["data"]["cleaned_body"] == "Wo bleibt mein Paket?"

        receiver.respond = hang
        second = add(connection)
        wait_until(lambda: len(receiver.events) == 2, services.log)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert status_of(connection, second)["sync_status"] == "pending"
        receiver.respond = answer(204)
        services.start_worker()
        wait_until(lambda: status_of(connection, second)["sync_status"] == "synced", services.log)
        ids = [delivery.webhook_id for delivery in receiver.deliveries[1:]]
        assert len(ids) >= 2
        assert len(set(ids)) == 1

        receiver.respond = answer(410, b"moved")
        third = add(connection)
        connection.execute(
            "INSERT INTO sync_events (kind, email, sync_status)"
            " VALUES ('email.erased', gen_random_uuid(), 'failed')"
        )
        wait_until(lambda: services.run("mailroom", "sync", "status").returncode == 1)
        assert "answered 410" in services.run("mailroom", "doctor").stdout
        told = services.run("mailroom", "sync", "status").stdout
        assert "answered 410" in told
        assert "1 emails are to be delivered" in told
        assert "1 erasures it could not be told: mailroom reconcile" in told
        receiver.respond = answer(204)
        assert services.run("mailroom", "sync", "resume").returncode == 0
        wait_until(lambda: status_of(connection, third)["sync_status"] == "synced", services.log)
        assert services.run("mailroom", "sync", "status").returncode == 0


def test_a_receiver_that_asked_to_be_left_alone_is_not_said_to_be_delivered_to(
    services: Services, connection: Connection
) -> None:
    with receiver_in_a_thread() as receiver:
        services.environment.update(MAILROOM_SYNC_URL=receiver.url, MAILROOM_SYNC_SECRETS=SECRET)
        receiver.respond = answer(503, retry_after="3600")
        email_id = add(connection)
        services.start_worker()
        services.start_web()
        wait_until(lambda: status_of(connection, email_id)["sync_error"], services.log)
        stands = connection.execute("SELECT rests_until FROM sync_receivers").fetchone()
        assert stands is not None
        until = f"{stands['rests_until']:%Y-%m-%d %H:%M:%S}"
        told = services.run("mailroom", "sync", "status")
        assert told.returncode == 1
        assert f"left alone until {until}" in told.stdout
        assert "the receiver answered 503" in told.stdout
        assert f"alone until {until}" in services.run("mailroom", "doctor").stdout
        assert "asked to be left alone" in services.run("mailroom", "show", email_id).stdout
        token = {"Authorization": "Bearer token"}
        metrics = httpx.get(f"{services.url}/metrics", headers=token).text
        assert 'mailroom_receiver_state{state="resting"} 1.0' in metrics
        create_operators(services)
        with httpx.Client(base_url=services.url, timeout=60) as client:
            enter(client, services)
            page = client.get("/deliveries").text
            assert re.search("left alone until <time[^>]+>[^<]+</time>: the receiver answ", page)
            assert "asked to be left alone: the receiver answered 503" in client.get("/").text
        receiver.respond = answer(204)
        assert services.run("mailroom", "sync", "resume").returncode == 0
        told = services.run("mailroom", "sync", "status")
        assert (told.returncode, "it is delivered to" in told.stdout) == (0, True)


def test_a_receiver_that_is_there_and_refuses_what_it_is_sent_is_told_to_do_so(
    services: Services, connection: Connection
) -> None:
    with receiver_in_a_thread() as receiver:
        services.environment.update(MAILROOM_SYNC_URL=receiver.url, MAILROOM_SYNC_SECRETS=SECRET)
        services.start_worker()
        services.start_web()
        taken = add(connection)
        wait_until(lambda: status_of(connection, taken)["sync_status"] == "synced", services.log)
        receiver.respond = answer(401, b"wrong\nsignature")
        refused = [add(connection) for _ in range(3)]
        for email_id in refused:
            wait_until(lambda one=email_id: status_of(connection, one)["sync_error"], services.log)
        why = "the receiver answered 401: wrong signature"
        told = services.run("mailroom", "sync", "status")
        assert (told.returncode, f"it refuses what it is sent: {why}" in told.stdout) == (1, True)
        assert "MAILROOM_SYNC_SECRETS" in told.stdout
        checks = services.run("mailroom", "doctor", "--json").stdout
        [found] = [one for one in json.loads(checks) if one["check"] == "delivery"]
        assert (found["is_well"], why in found["explanation"]) == (False, True)
        create_operators(services)
        with httpx.Client(base_url=services.url, timeout=60) as client:
            enter(client, services)
            assert f"It refuses what it is sent: {why}." in client.get("/deliveries").text
            banner = f"The receiver of deliveries refuses what it is sent: {why}"
            assert banner in client.get("/").text
        receiver.respond = answer(204)
        mended = add(connection)
        wait_until(lambda: status_of(connection, mended)["sync_status"] == "synced", services.log)
        assert services.run("mailroom", "sync", "status").returncode == 0


def test_a_worker_whose_deliveries_cannot_go_on_ends_to_be_started_again(
    services: Services, connection: Connection
) -> None:
    (services.folder / "stopper.py").write_text(
        "import asyncio\n\n\nasync def deliver(event):\n    asyncio.get_running_loop().stop()\n"
    )
    inherited = os.environ.get("PYTHONPATH", "")
    services.environment["PYTHONPATH"] = f"{services.folder}{os.pathsep}{inherited}"
    add(connection)
    worker = services.start_worker(MAILROOM_SYNC="stopper:deliver")
    wait_until(lambda: "delivery_cannot_go_on" in services.log(), services.log)
    # Dramatiq ends with the status of its process: that is, start it again.
    assert worker.wait(WAIT_SECONDS) == FORCED_EXIT_STATUS


def test_a_receiver_that_may_not_be_called_keeps_a_worker_from_starting(
    services: Services,
) -> None:
    worker = services.start_worker(
        MAILROOM_SYNC_URL="https://10.1.2.3/in", MAILROOM_SYNC_SECRETS=SECRET
    )
    wait_until(lambda: "MAILROOM_OUTBOUND_INTERNAL_HOSTS" in services.log(), services.log)
    assert worker.wait() != 0


def test_nor_does_a_worker_start_whose_receiver_may_not_be_asked(services: Services) -> None:
    worker = services.start_worker(
        MAILROOM_SYNC_URL="http://127.0.0.1:9/in",
        MAILROOM_SYNC_CHECK_URL="https://10.1.2.3/check",
        MAILROOM_SYNC_SECRETS=SECRET,
    )
    wait_until(lambda: "MAILROOM_SYNC_CHECK_URL: " in services.log(), services.log)
    assert worker.wait() != 0
