"""`kill -9` at each step of delivery, of pruning and of erasing: nothing is lost and nothing half
removed, and another process goes on to the right end.

Each test kills a run before its first step, one like it before its second, and so on, until one
comes to its end.
"""

import hashlib
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from crashing import EXTENDS_LEASE, Crashing, Run
from fake_receiver import FakeReceiver, answer, receiver_in_a_thread
from support import wait_until

from app.attachments.store import storage_key

Connection = psycopg.Connection[dict[str, Any]]

pytestmark = pytest.mark.long

EMPTY = """
TRUNCATE incoming_emails, email_attachments, email_events, quarantined_webhooks, sync_events,
    retention_marks, erasures, tombstones
"""
OTHERS = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
OTHER_ADDRESS = "kim@example.com"


@pytest.fixture(scope="module")
def crashing() -> Iterator[Crashing]:
    crashing = Crashing()
    yield crashing
    crashing.end()


@pytest.fixture
def receiver() -> Iterator[FakeReceiver]:
    with receiver_in_a_thread() as receiver:
        yield receiver


def insert(connection: Connection, table: str, **values: Any) -> Any:
    names, places = ", ".join(values), ", ".join(["%s"] * len(values))
    query = f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING id"
    row = connection.execute(query, [*values.values()]).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row["id"]


def rows(connection: Connection, query: str, *values: Any) -> list[dict[str, Any]]:
    return connection.execute(query, values).fetchall()  # type: ignore[arg-type]


def of_emails(connection: Connection, table: str, column: str, ids: list[UUID]) -> set[UUID]:
    """Which of these emails have something in a table."""
    query = f"SELECT {column} AS id FROM {table} WHERE {column} = ANY(%s)"
    return {row["id"] for row in rows(connection, query, ids)}


class Whole:
    """An email with all that may belong to one."""

    def __init__(self, connection: Connection, store: Path, ended: datetime, **values: Any) -> None:
        self.id = insert(
            connection,
            "incoming_emails",
            **{
                "from_email": OTHER_ADDRESS,
                "processing_status": "completed",
                "completed_at": ended,
                "received_at": ended,
                "raw_body_text": "Guten Tag",
                "raw_payload": "{}",
                "idempotency_key": uuid4().hex,
                "sync_status": "synced",
                "sync_version": 1,
                "synced_at": ended,
                **values,
            },
        )
        content = self.id.bytes
        sha256 = hashlib.sha256(content).hexdigest()
        self.bytes = store / storage_key(sha256)
        self.bytes.parent.mkdir(parents=True, exist_ok=True)
        self.bytes.write_bytes(content)
        insert(
            connection,
            "email_attachments",
            email=self.id,
            state="kept",
            sha256=sha256,
            storage_key=sha256,
            ended_at=ended,
        )
        insert(connection, "email_events", email=self.id, at=ended, kind="delivery", text="mended")
        insert(connection, "quarantined_webhooks", id=self.id, body=b"x")


# What belongs to an email, and the column that says to which.
BELONGINGS = {"email_attachments": "email", "email_events": "email", "quarantined_webhooks": "id"}


def check_whole_or_gone(connection: Connection, emails: list[Whole]) -> set[UUID]:
    """Each has all of its belongings, or none and is asked to leave no byte. Returns which are
    there."""
    ids = [email.id for email in emails]
    there = of_emails(connection, "incoming_emails", "id", ids)
    for table, column in BELONGINGS.items():
        assert of_emails(connection, table, column, ids) == there, table
    to_go = {row["sha256"] for row in rows(connection, "SELECT sha256 FROM attachment_erasures")}
    for email in emails:
        if email.id in there:
            assert email.bytes.exists()
        else:
            assert not email.bytes.exists() or email.bytes.name.partition(".")[0] in to_go
    return there


def kill_at_each_step(run: Any) -> dict[str, int]:
    """Call `run` with each number of a step, until it is killed no more. Returns how often it was
    killed before which."""
    killed: dict[str, int] = defaultdict(int)
    for number in range(1_000):
        result: Run = run(number)
        if not result.is_killed:
            assert result.status == 0, result
            return killed
        killed[result.steps[-1]] += 1
    raise AssertionError("it comes to no end")


def test_killed_at_each_step_of_delivery(
    crashing: Crashing, connection: Connection, database_url: str, receiver: FakeReceiver
) -> None:
    given = {"database_url": database_url, "receiver": receiver.url}

    def add() -> list[UUID]:
        now = datetime.now(UTC)
        ids = [
            insert(
                connection,
                "incoming_emails",
                zendesk_ticket_id="1",
                processing_status="completed",
                completed_at=now,
                received_at=now + timedelta(seconds=number),
                sync_status="pending",
                sync_version=1,
                sync_next_attempt_at=now,
            )
            for number in range(2)
        ]
        insert(connection, "sync_events", kind="email.erased", email=uuid4(), sync_version=1)
        return ids

    def check(ids: list[UUID], killed: Run) -> None:
        let_time_pass(connection)
        assert crashing.run("deliver", **given).status == 0, killed
        left = "SELECT id FROM {} WHERE sync_status <> 'synced' OR sync_token IS NOT NULL"
        for table in ("incoming_emails", "sync_events"):
            assert rows(connection, left.format(table)) == [], killed
        told = [(event["data"]["id"], event["id"]) for event in receiver.events]
        assert {UUID(email_id) for email_id, _ in told} >= set(ids), killed
        by_email = defaultdict(set)
        for email_id, webhook_id in told:
            by_email[email_id].add(webhook_id)
        assert all(len(of_one) == 1 for of_one in by_email.values()), killed
        # In the order of their ticket.
        of_ticket = list(dict.fromkeys(UUID(one) for one, _ in told if UUID(one) in ids))
        assert of_ticket == ids, killed
        erased = {row["email"] for row in rows(connection, "SELECT email FROM sync_events")}
        assert {UUID(email_id) for email_id, _ in told} == {*ids, *erased}, killed
        connection.execute(EMPTY)
        receiver.deliveries.clear()

    def run(number: int) -> Run:
        ids = add()
        result = crashing.run("deliver", kill_at=number, **given)
        check(ids, result)
        return result

    killed = kill_at_each_step(run)
    for step, times in (
        ("request", 3),
        ("answer", 3),
        ("UPDATE sync_receivers SET state = 'closed',", 3),
        ("WITH due AS MATERIALIZED ( SELECT", 3),
        ("WITH result AS MATERIALIZED ( SELECT", 3),
        ("UPDATE incoming_emails AS next SET", 2),
    ):
        count = sum(number for name, number in killed.items() if name.startswith(step))
        assert count >= times, (step, dict(killed))

    async def kill(*_: object) -> None:
        os.kill(crashing.pid, signal.SIGKILL)

    # The request has arrived, and is not answered.
    ids = add()
    receiver.respond = kill
    result = crashing.run("deliver", **given)
    assert (result.is_killed, result.steps[-1]) == (True, "request")
    receiver.respond = answer(204)
    check(ids, result)


def let_time_pass(connection: Connection) -> None:
    """The leases of who was killed run out, once the server has ended what it was asked last."""
    wait_until(lambda: rows(connection, OTHERS) == [])
    for table in ("incoming_emails", "sync_events"):
        connection.execute(
            f"UPDATE {table} SET sync_lease_expires_at = now(), sync_next_attempt_at = now()"
            " WHERE sync_status = 'pending'"
        )
    connection.execute("UPDATE chores SET lease_expires_at = now()")
    connection.execute("UPDATE erasures SET worked_at = '-infinity' WHERE ended_at IS NULL")


def test_killed_at_each_step_of_pruning(
    crashing: Crashing, connection: Connection, database_url: str, tmp_path: Path
) -> None:
    keep = {
        "keep_completed_days": 30,
        "keep_bodies_days": 20,
        "keep_attachments_days": 10,
        "keep_events_days": 5,
    }
    given = {"database_url": database_url, "store": tmp_path.as_uri(), "keep": keep}

    def run(kill_at: int | str) -> Run:
        def add(days: int) -> Whole:
            return Whole(connection, tmp_path, datetime.now(UTC) - timedelta(days=days))

        old = [add(31) for _ in range(3)]
        bodies, files, entries, young = add(21), add(11), add(6), add(1)
        result = crashing.run("prune", kill_at=kill_at, **given)
        check_whole_or_gone(connection, old)
        let_time_pass(connection)
        assert crashing.run("prune", **given).status == 0, result
        assert check_whole_or_gone(connection, [*old, young]) == {young.id}, result
        assert not [one for one in old if one.bytes.exists()], result
        for one, has_text, has_bytes, has_entry in (
            (bodies, False, False, False),
            (files, True, False, False),
            (entries, True, True, False),
            (young, True, True, True),
        ):
            [row] = rows(connection, "SELECT * FROM incoming_emails WHERE id = %s", one.id)
            assert (row["raw_body_text"] is not None) is has_text, result
            assert (row["bodies_removed_at"] is None) is has_text, result
            assert one.bytes.exists() is has_bytes, result
            [file] = rows(connection, "SELECT * FROM email_attachments WHERE email = %s", one.id)
            assert (file["state"] == "kept") is has_bytes, result
            entry = rows(connection, "SELECT id FROM email_events WHERE email = %s", one.id)
            assert bool(entry) is has_entry, result
        assert rows(connection, "SELECT sha256 FROM attachment_erasures") == [], result
        connection.execute(EMPTY)
        return result

    assert run(EXTENDS_LEASE).is_killed
    killed = kill_at_each_step(run)
    for step, times in (
        ("SELECT id FROM incoming_emails AS email", 3),
        ("WITH files_gone AS ( DELETE FROM", 2),
        ("DELETE FROM email_events WHERE email =", 2),
        ("DELETE FROM quarantined_webhooks WHERE id =", 2),
        ("DELETE FROM incoming_emails WHERE id =", 2),
        ("UPDATE incoming_emails SET raw_body_html =", 1),
        ("DELETE FROM email_events WHERE id =", 1),
        ("COMMIT;", 6),
        ("INSERT INTO retention_marks AS mark", 5),
        ("delete from the store", 5),
        ("end", 1),
    ):
        count = sum(number for name, number in killed.items() if name.startswith(step))
        assert count >= times, (step, dict(killed))


def test_killed_at_each_step_of_an_erasure(
    crashing: Crashing,
    connection: Connection,
    database_url: str,
    receiver: FakeReceiver,
    tmp_path: Path,
) -> None:
    given = {"database_url": database_url, "store": tmp_path.as_uri(), "receiver": receiver.url}

    def run(number: int) -> Run:
        sender = f"erika-{number}@example.com"
        now = datetime.now(UTC)
        mine = [Whole(connection, tmp_path, now, from_email=sender) for _ in range(3)]
        other = Whole(connection, tmp_path, now)
        refused = insert(connection, "quarantined_webhooks", body=f"<{sender}>".encode())
        result = crashing.run("erase", kill_at=number, sender=sender, **given)
        there = check_whole_or_gone(connection, [*mine, other])
        gone = {one.id for one in mine} - there
        tombs = "SELECT key FROM tombstones"
        tombstones = {row["key"] for row in rows(connection, tombs)}
        told = {row["email"] for row in rows(connection, "SELECT email FROM sync_events")}
        assert {f"email {email_id}" for email_id in gone} <= tombstones, result
        assert told == gone, result
        let_time_pass(connection)
        if rows(connection, "SELECT id FROM erasures"):
            assert crashing.run("finish erasures", **given).status == 0, result
        else:
            # Nobody was told that it was asked for.
            assert not gone, result
            assert crashing.run("erase", sender=sender, **given).status == 0, result
        assert check_whole_or_gone(connection, [*mine, other]) == {other.id}, result
        assert not [one for one in mine if one.bytes.exists()], result
        assert rows(connection, "SELECT id FROM quarantined_webhooks") == [{"id": other.id}]
        assert f"quarantine:{refused}" in {row["key"] for row in rows(connection, tombs)}
        assert rows(connection, "SELECT sha256 FROM attachment_erasures") == [], result
        [record] = rows(connection, "SELECT * FROM erasures")
        counted = (record["emails"], record["files"], record["entries"], record["refused"])
        assert counted == (3, 3, 3, 4), result
        assert (record["criterion"], record["ended_at"] is None) == (None, False), result
        assert {event["type"] for event in receiver.events} == {"email.erased"}, result
        ids_told = {(event["data"]["id"], event["id"]) for event in receiver.events}
        assert {UUID(email_id) for email_id, _ in ids_told} == {one.id for one in mine}, result
        assert len(ids_told) == len(mine), result
        connection.execute(EMPTY)
        receiver.deliveries.clear()
        return result

    killed = kill_at_each_step(run)
    for step, times in (
        ("INSERT INTO erasures (kind, criterion,", 1),
        ("INSERT INTO tombstones (key, email,", 3),
        ("SELECT virtualtransaction AS writer FROM", 3),
        ("SELECT sync_status FROM incoming_emails WHERE", 2),
        ("INSERT INTO sync_events (kind, email,", 2),
        ("WITH files_gone AS ( DELETE FROM", 2),
        ("DELETE FROM email_events WHERE email", 2),
        ("DELETE FROM incoming_emails WHERE id", 2),
        ("UPDATE erasures SET emails = emails", 4),
        ("UPDATE erasures SET ended_at =", 1),
        ("COMMIT;", 6),
        ("delete from the store", 3),
        ("request", 3),
        ("answer", 3),
        ("end", 1),
    ):
        count = sum(number for name, number in killed.items() if name.startswith(step))
        assert count >= times, (step, dict(killed))
