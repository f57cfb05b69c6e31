"""Real worker processes: handlers that block, hang or kill, workers that are killed, stopped or
paused, brokers that are emptied and a database that is away. Every email ends, and says how."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

import pika
import psutil
import psycopg
import pytest
import redis
from support import WAIT_SECONDS, Process, Services, shut_out, wait_until

from app.jobs.transitions.keeping import MESSAGE_LOST

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"

READY = "Worker process is ready for action."
# Where a claim is to be lost, or extended, while the test waits for it.
SHORT_LEASE = {"MAILROOM_LEASE_SECONDS": "3"}

# What each handler of these tests begins with. It also takes some patience out of the workers.
PRELUDE = """
import asyncio, os, re, signal, sys, time
from datetime import timedelta
from pathlib import Path

import app.jobs.claimer
import app.jobs.keeper
import app.jobs.process
from app.handlers.seam import PermanentFailure, Retry

app.jobs.keeper.RESCUE_EVERY_SECONDS = 0.3
app.jobs.process.CANCEL_SECONDS = 0.3
app.jobs.claimer.SUSPECT_PAUSE = timedelta(seconds=0.3)

HERE = Path(__file__).parent

def note(email):
    with (HERE / "notes").open("a") as notes:
        notes.write(f"{email.subject} {os.getpid()}\\n")
    return sum(line.split()[0] == email.subject for line in (HERE / "notes").open())

async def wait_for_go():
    while not (HERE / "go").exists():
        await asyncio.sleep(0.02)

"""


class Workers(Services):
    """Services whose workers are killed in the end: how they stop is not what a test waits for."""

    def __init__(self, database_url: str, folder: Path) -> None:
        super().__init__(database_url, folder)
        self.workers: list[Process] = []

    def start(self, *command: str, **environment: str) -> Process:
        process = super().start(*command, **environment)
        if command[0] == "dramatiq":
            self.workers.append(process)
        return process

    def end(self) -> None:
        for process in self.workers:
            self.kill_group(process)
        super().end()


@pytest.fixture
def workers(database_url: str, tmp_path: Path) -> Iterator[Workers]:
    """Starts workers that lose no claim or message because the machine is under load."""
    running = Workers(database_url, tmp_path)
    running.environment |= {
        "MAILROOM_LEASE_SECONDS": "60",
        "MAILROOM_MESSAGE_LOST_SECONDS": "60",
        "MAILROOM_HANDLER_TIMEOUT_SECONDS": "120",
    }
    yield running
    running.end()


def handler(workers: Workers, body: str) -> None:
    workers.write_handler(PRELUDE + "async def handle(email):\n    run = note(email)\n" + body)


def put(connection: Connection, *subjects: str) -> list[UUID]:
    """Store emails as the Intake does."""
    rows = [
        connection.execute(
            "INSERT INTO incoming_emails (from_email, subject) VALUES ('erika@example.com', %s)"
            " RETURNING id",
            [subject],
        ).fetchone()
        for subject in subjects
    ]
    connection.execute("NOTIFY mailroom_received")
    return [row["id"] for row in rows if row is not None]


def emails(connection: Connection) -> dict[str, dict[str, Any]]:
    """Each email by its subject."""
    found = connection.execute("SELECT * FROM incoming_emails ORDER BY received_at").fetchall()
    return {row["subject"]: row for row in found}


def statuses(connection: Connection) -> dict[str, int]:
    return dict(Counter(row["processing_status"] for row in emails(connection).values()))


def wait_for(workers: Workers, connection: Connection, **expected: int) -> None:
    """Wait until so many emails are in each state."""
    wait_until(
        lambda: statuses(connection) == expected,
        lambda: f"{statuses(connection)} {workers.log()}",
    )


def notes(workers: Workers) -> list[list[str]]:
    """Subject and process id of each run of the handler."""
    path = workers.folder / "notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_run(workers: Workers, subject: str, *, times: int = 1) -> int:
    """Wait until the handler runs with an email. Returns the id of the process."""

    def pids() -> list[int]:
        return [int(pid) for noted, pid in notes(workers) if noted == subject]

    wait_until(lambda: len(pids()) >= times, workers.log)
    return pids()[times - 1]


def errors_of(row: dict[str, Any]) -> list[str]:
    errors = [entry["error"] for entry in row["attempt_errors"]]
    # Where messages count as lost soon, that of an email that waits long may count as lost, too.
    return [error for error in errors if error != MESSAGE_LOST]


def go(workers: Workers) -> None:
    """Let the handlers go on that wait for it."""
    (workers.folder / "go").touch()


def status_of(process: Process, workers: Workers) -> int:
    """Wait for a process to end. Returns its exit status."""
    wait_until(lambda: process.poll() is not None, workers.log)
    status: int = process.wait()
    return status


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_every_handler_ends_in_its_own_way_beside_the_others(
    workers: Workers, connection: Connection
) -> None:
    handler(
        workers,
        """
    match email.subject:
        case "hangs":
            await asyncio.Event().wait()
        case "exits":
            sys.exit(3)
        case "fails-once":
            if run == 1:
                raise ConnectionError("away")
        case "asks-once":
            if run == 1:
                raise Retry("busy", after=0)
        case "fails-for-good":
            raise PermanentFailure("no such customer")
    email.cleaned_body = email.subject
    return {"run": run}
""",
    )
    worker = workers.start_worker(
        concurrency=8, MAILROOM_HANDLER_TIMEOUT_SECONDS="3", MAILROOM_MAX_RETRIES="1"
    )
    put(connection, "hangs", "exits", "fails-once", "asks-once")
    put(connection, "fails-for-good", "good", "also-good")
    wait_for(workers, connection, completed=4, failed=3)
    ended = emails(connection)
    assert {name: row["extracted_data"] for name, row in ended.items()} == {
        "hangs": None,
        "exits": None,
        "fails-once": {"run": 2},
        "asks-once": {"run": 2},
        "fails-for-good": None,
        "good": {"run": 1},
        "also-good": {"run": 1},
    }
    too_slow = "the handler did not finish within 3 seconds"
    assert {name: errors_of(row) for name, row in ended.items()} == {
        "hangs": [too_slow] * 2,
        "exits": ["RuntimeError: the handler raised SystemExit(3)"] * 2,
        "fails-once": ["ConnectionError: away"],
        "asks-once": ["busy"],
        "fails-for-good": ["no such customer"],
        "good": [],
        "also-good": [],
    }
    assert all(row["claims"] == len(errors_of(row)) for row in ended.values() if errors_of(row)[1:])
    assert worker.poll() is None
    worker.terminate()
    assert status_of(worker, workers) == 0


def test_a_handler_that_takes_no_cancellation_ends_its_worker_and_never_runs_twice_at_once(
    workers: Workers, connection: Connection
) -> None:
    handler(
        workers,
        """
    if email.subject == "beside":
        if run == 1:
            await asyncio.Event().wait()
        return {"run": run}
    pids = [line.split()[1] for line in (HERE / "notes").open() if "stubborn" in line]
    for pid in pids[:-1]:
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
            (HERE / "overlap").touch()
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
""",
    )
    workers.start(
        *("mailroom", "worker"),
        MAILROOM_HANDLER_TIMEOUT_SECONDS="2",
        MAILROOM_MESSAGE_LOST_SECONDS="1",
        MAILROOM_MAX_RETRIES="1",
    )
    put(connection, "stubborn")
    wait_for_run(workers, "stubborn")
    put(connection, "beside")
    wait_for(workers, connection, completed=1, failed=1)
    stubborn = emails(connection)["stubborn"]
    error = (
        "the handler did not finish within 2 seconds, and took no cancellation: "
        "its process was ended"
    )
    assert errors_of(stubborn) == [error] * 2
    assert not (workers.folder / "overlap").exists()
    assert emails(connection)["beside"]["extracted_data"]


def test_a_handler_that_blocks_the_event_loop_ends_its_worker_and_is_named(
    workers: Workers, connection: Connection
) -> None:
    handler(
        workers,
        """
    if email.subject == "block" and run == 1:
        await wait_for_go()
        time.sleep(3600)
    elif email.subject == "beside" and run == 1:
        await asyncio.Event().wait()
    return {"run": run}
""",
    )
    environment = {
        "MAILROOM_HANDLER_TIMEOUT_SECONDS": "3",
        # The messages that it had fetched are lost with it.
        "MAILROOM_MESSAGE_LOST_SECONDS": "1",
    }
    worker = workers.start_worker(**environment)
    put(connection, "block", "beside")
    wait_for_run(workers, "block")
    wait_for_run(workers, "beside")
    put(connection, *(f"waits-{number}" for number in range(20)))
    go(workers)
    assert status_of(worker, workers) == 75
    (line,) = [line for line in workers.log().splitlines() if "event_loop_blocked" in line]
    blocked = emails(connection)["block"]
    assert str(blocked["id"]) in line
    assert "handle (my_handler.py:" in line
    assert blocked["processing_status"] == "queued"
    assert blocked["retry_count"] == 1
    ((error),) = errors_of(blocked)
    assert "blocked the event loop at handle (my_handler.py:" in error
    assert "asyncio.to_thread" in error

    workers.start_worker(**environment)
    wait_for(workers, connection, completed=22)
    ended = emails(connection)
    assert ended["block"]["extracted_data"] == {"run": 2}
    assert errors_of(ended["block"]) == [error]
    # The one beside it was handed back: no attempt of its own.
    assert ended["beside"]["extracted_data"] == {"run": 2}
    assert errors_of(ended["beside"]) == ["handed back untried: its worker stopped"]
    assert (ended["beside"]["claims"], ended["beside"]["retry_count"]) == (1, 0)


def test_a_handler_that_lets_nothing_else_run_ends_its_worker_too(
    workers: Workers, connection: Connection
) -> None:
    # A regular expression holds Python's interpreter lock: no thread of the process runs.
    handler(
        workers,
        """
    if email.subject == "freeze":
        re.match(r"(a+)+$", "a" * 64 + "b")
    return {"run": run}

app.jobs.keeper.LAST_WORDS_SECONDS = 1.0
app.jobs.keeper.ALARM_MARGIN_SECONDS = 1.0
""",
    )
    workers.start(
        *("mailroom", "worker"),
        **SHORT_LEASE,
        MAILROOM_HANDLER_TIMEOUT_SECONDS="1",
        MAILROOM_MAX_LOST_CLAIMS="1",
        MAILROOM_MESSAGE_LOST_SECONDS="1",
    )
    put(connection, "freeze")
    wait_for_run(workers, "freeze")
    put(connection, *(f"good-{number}" for number in range(5)))
    wait_for(workers, connection, failed=1, completed=5)
    row = emails(connection)["freeze"]
    assert row["processing_error"] == "its worker vanished while processing it (times: 1)"
    assert "my_handler.py" in workers.log()


def test_a_handler_that_cannot_be_imported_ends_the_worker_with_one_sentence(
    workers: Workers, connection: Connection
) -> None:
    workers.write_handler("raise RuntimeError('no licence')")
    put(connection, "one", "two")
    commands = [
        ["dramatiq", "app.worker", "--processes", "1"],
        ["mailroom", "worker"],
    ]
    running = [workers.start(*command) for command in commands]
    assert [status_of(process, workers) for process in running] == [2, 2]
    said = [line for line in workers.log().splitlines() if "MAILROOM_HANDLER" in line]
    assert len(said) == 2, workers.log()
    assert all("mailroom: " in line and "my_handler fails to import" in line for line in said)
    assert all("RuntimeError: no licence" in line for line in said)
    assert "Traceback" not in workers.log()
    assert statuses(connection) == {"received": 2}


def test_a_worker_killed_while_a_handler_runs_is_replaced_by_another(
    workers: Workers, connection: Connection
) -> None:
    handler(
        workers,
        """
    if run == 1:
        await asyncio.Event().wait()
    return {"run": run}
""",
    )
    worker = workers.start_worker(**SHORT_LEASE)
    put(connection, "one", "two")
    wait_for_run(workers, "one")
    wait_for_run(workers, "two")
    workers.kill_group(worker)
    assert statuses(connection) == {"processing": 2}
    workers.start_worker(**SHORT_LEASE)
    wait_for(workers, connection, completed=2)
    for row in emails(connection).values():
        assert row["extracted_data"] == {"run": 2}
        assert (row["claims"], row["retry_count"]) == (2, 0)


@pytest.mark.parametrize("whom", ["the master", "the whole group, twice"])
def test_a_worker_that_is_stopped_lets_its_handler_finish(
    workers: Workers, connection: Connection, whom: str
) -> None:
    handler(
        workers,
        """
    await wait_for_go()
    return {"run": run}
""",
    )
    worker = workers.start_worker(concurrency=1, **SHORT_LEASE)
    put(connection, "in-hand")
    wait_for_run(workers, "in-hand")
    if whom == "the master":
        worker.terminate()
    else:
        os.killpg(worker.pid, signal.SIGTERM)
        wait_until(lambda: "Stopping worker process" in workers.log(), workers.log)
        os.killpg(worker.pid, signal.SIGTERM)
    wait_until(lambda: "Stopping worker process" in workers.log(), workers.log)
    # It is given its lease all the while: this is longer than one.
    lease_ends = emails(connection)["in-hand"]["lease_expires_at"]
    wait_until(lambda: emails(connection)["in-hand"]["lease_expires_at"] > lease_ends, workers.log)
    assert worker.poll() is None
    go(workers)
    assert status_of(worker, workers) == 0
    row = emails(connection)["in-hand"]
    assert row["processing_status"] == "completed"
    assert (row["extracted_data"], row["claims"]) == ({"run": 1}, 1)


def test_a_worker_that_has_no_time_to_stop_hands_back_what_it_holds(
    workers: Workers, connection: Connection
) -> None:
    handler(
        workers,
        """
    if run == 1:
        await asyncio.Event().wait()
    return {"run": run}
""",
    )
    # The lease is long: only what is handed back is taken soon.
    workers.environment["MAILROOM_LEASE_SECONDS"] = "3600"
    worker = workers.start("mailroom", "worker", MAILROOM_WORKER_SHUTDOWN_SECONDS="0.1")
    put(connection, "one", "two")
    wait_for_run(workers, "one")
    wait_for_run(workers, "two")
    worker.terminate()
    assert status_of(worker, workers) == 0
    for row in emails(connection).values():
        assert row["processing_status"] == "queued"
        assert row["queued_at"] is row["lease_expires_at"] is None
        assert (row["claims"], row["retry_count"]) == (0, 0)
    workers.start_worker()
    wait_for(workers, connection, completed=2)


def test_a_worker_that_was_paused_past_its_lease_overwrites_nothing(
    workers: Workers, connection: Connection
) -> None:
    handler(
        workers,
        """
    if run == 1:
        await wait_for_go()
    return {"run": run}
""",
    )
    paused = workers.start_worker(concurrency=1, **SHORT_LEASE)
    put(connection, "contested")
    wait_for_run(workers, "contested")
    os.killpg(paused.pid, signal.SIGSTOP)
    try:
        workers.start_worker(concurrency=1, **SHORT_LEASE)
        wait_for(workers, connection, completed=1)
        before = emails(connection)
        assert before["contested"]["extracted_data"] == {"run": 2}
        go(workers)
    finally:
        os.killpg(paused.pid, signal.SIGCONT)
    wait_until(lambda: "claim_lost" in workers.log(), workers.log)
    paused.terminate()
    assert status_of(paused, workers) == 0
    assert emails(connection) == before
    assert before["contested"]["claims"] == 2


def test_two_workers_share_the_emails_and_each_is_handled_once(
    workers: Workers, connection: Connection
) -> None:
    # Long enough that no worker is through before the other has begun.
    handler(workers, "    await asyncio.sleep(0.05)\n    return {'run': run}\n")
    workers.environment["MAILROOM_LEASE_SECONDS"] = "60"
    for _ in range(2):
        workers.start_worker()
    wait_until(lambda: workers.log().count(READY) == 2, workers.log)
    subjects = [f"email-{number}" for number in range(200)]
    put(connection, *subjects)
    wait_for(workers, connection, completed=200)
    assert sorted(subject for subject, _ in notes(workers)) == sorted(subjects)
    assert len({pid for _, pid in notes(workers)}) == 2
    assert {row["claims"] for row in emails(connection).values()} == {1}


def test_workers_whose_master_is_killed_end_by_themselves(
    workers: Workers, connection: Connection
) -> None:
    handler(
        workers,
        """
    await wait_for_go()
    return {"run": run}
""",
    )
    worker = workers.start_worker()
    put(connection, "in-hand")
    wait_for_run(workers, "in-hand")
    left_behind = psutil.Process(worker.pid).children(recursive=True)
    assert left_behind
    worker.kill()
    worker.wait()
    go(workers)
    wait_until(lambda: all(is_gone(process) for process in left_behind), workers.log)
    # What it had in hand it finished, or another one does.
    workers.start_worker()
    wait_for(workers, connection, completed=1)


def test_an_email_that_kills_its_worker_fails_and_the_worker_is_started_again(
    workers: Workers, connection: Connection
) -> None:
    handler(
        workers,
        """
    if email.subject == "bomb":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"run": run}
""",
    )
    supervisor = workers.start(
        *("mailroom", "worker"),
        **SHORT_LEASE,
        MAILROOM_MAX_LOST_CLAIMS="2",
        MAILROOM_MESSAGE_LOST_SECONDS="1",
    )
    put(connection, "bomb", "good", "also-good")
    wait_for(workers, connection, failed=1, completed=2)
    bomb = emails(connection)["bomb"]
    assert bomb["processing_error"] == "its worker vanished while processing it (times: 2)"
    vanished = ["its worker vanished"] * 2
    assert errors_of(bomb) == [*vanished, bomb["processing_error"]]
    assert len([subject for subject, _ in notes(workers) if subject == "bomb"]) == 2
    assert workers.log().count("part_ended") == 2
    # Emails that come later find a worker.
    put(connection, "later")
    wait_for(workers, connection, failed=1, completed=3)
    assert supervisor.poll() is None
    supervisor.terminate()
    assert status_of(supervisor, workers) == 0


@pytest.fixture
def broker(broker_url: str, workers: Workers) -> Iterator[str]:
    """Each of the brokers, used by the workers, and without our queue afterwards."""
    workers.environment["BROKER_URL"] = broker_url
    yield broker_url
    workers.end()
    empty(broker_url, workers, to_delete=True)


def empty(broker_url: str, workers: Workers, *, to_delete: bool = False) -> None:
    """Take every message of these workers from a broker."""
    queue = workers.queue
    scheme = urlsplit(broker_url).scheme
    if scheme == "redis":
        client = redis.Redis.from_url(broker_url)
        if keys := list(client.scan_iter(f"{queue}:*")):
            client.delete(*keys)
        client.close()
    elif scheme == "amqp":
        connection = pika.BlockingConnection(pika.URLParameters(broker_url))
        channel = connection.channel()
        for name in (queue, f"{queue}.DQ", f"{queue}.XQ"):
            if to_delete:
                channel.queue_delete(name)
            else:
                channel.queue_purge(name)
        connection.close()
    elif not to_delete:
        with psycopg.connect(workers.environment["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("DELETE FROM dramatiq.queue")


def test_emails_whose_messages_are_lost_with_the_brokers_queue_are_completed(
    workers: Workers, connection: Connection, broker: str
) -> None:
    handler(
        workers,
        """
    await wait_for_go()
    return {"run": run}
""",
    )
    workers.environment["MAILROOM_MESSAGE_LOST_SECONDS"] = "1"
    workers.start_worker(concurrency=1)
    put(connection, *(f"email-{number}" for number in range(12)))
    wait_for(workers, connection, processing=1, queued=11)
    empty(broker, workers)
    go(workers)
    wait_for(workers, connection, completed=12)
    assert len(notes(workers)) == 12
    assert {row["claims"] for row in emails(connection).values()} == {1}


def test_emails_are_completed_after_the_database_was_away(
    workers: Workers, connection: Connection
) -> None:
    handler(
        workers,
        """
    if int(email.subject) >= 20:
        await wait_for_go()
    return {"run": run}
""",
    )
    database_url = workers.environment["DATABASE_URL"]
    worker = workers.start_worker(concurrency=4)
    put(connection, *(str(number) for number in range(40)))
    wait_for(workers, connection, completed=20, processing=4, queued=16)
    connection.close()
    with shut_out(database_url):
        go(workers)
        wait_until(lambda: "duty_interrupted" in workers.log(), workers.log)
    with psycopg.connect(
        database_url, autocommit=True, row_factory=psycopg.rows.dict_row
    ) as connection:
        wait_for(workers, connection, completed=40)
        ended = emails(connection).values()
        # Those that ran were let go if the outage was longer than a lease. Nobody is to blame.
        assert {(row["retry_count"], row["lost_claims"]) for row in ended} == {(0, 0)}
        assert len(notes(workers)) in range(40, 45)
    assert worker.poll() is None


def test_a_worker_whose_consumer_hangs_ends_with_a_failure_to_be_started_again(
    workers: Workers,
) -> None:
    handler(
        workers,
        """
import app.jobs.watched_broker

app.jobs.watched_broker.HANGS_AFTER_LOOKS = 1

async def handle(email):
    pass
""",
    )
    worker = workers.start_worker()
    assert status_of(worker, workers) == 75
    assert "consumer_hangs" in workers.log()


def test_a_handler_in_a_thread_does_not_outlive_the_stop_of_its_worker(
    workers: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    workers.write_handler(
        "import asyncio, time\n"
        "async def handle(email):\n"
        "    print('handling', flush=True)\n"
        "    await asyncio.to_thread(time.sleep, 600)\n"
    )
    put(connection, "long")
    worker = workers.start("mailroom", "worker", MAILROOM_WORKER_SHUTDOWN_SECONDS="0.1")
    wait_until(lambda: "handling" in workers.log(), workers.log)
    family = psutil.Process(worker.pid).children(recursive=True)
    worker.terminate()
    assert worker.wait(WAIT_SECONDS) == 0, workers.log()
    assert psutil.wait_procs(family, timeout=WAIT_SECONDS)[1] == []
    assert emails(connection)["long"]["processing_status"] == "queued"


def test_a_worker_is_known_while_it_lives_even_if_it_has_nothing_to_do(
    workers: Workers, connection: Connection
) -> None:
    def known() -> list[tuple[object, object]]:
        found = connection.execute("SELECT name, threads FROM workers").fetchall()
        return [(str(row["name"]).partition(":")[0], row["threads"]) for row in found]

    vanishes = workers.start_worker(concurrency=2)
    wait_until(lambda: known() == [(os.uname().nodename, 2)], workers.log)
    workers.kill_group(vanishes)
    stops = workers.start_worker(concurrency=3)
    wait_until(lambda: len(known()) == 2, workers.log)
    stops.terminate()
    assert status_of(stops, workers) == 0
    assert known() == [(os.uname().nodename, 2)]


THREAD = """
import threading

def burn():
    while True:
        time.sleep(0.01)

"""


@pytest.mark.parametrize("command", ["dramatiq", "mailroom"])
def test_a_worker_whose_handler_left_a_thread_behind_ends(
    workers: Workers, connection: Connection, command: str
) -> None:
    # The claim ended long ago, so that nothing is in hand but the thread.
    handler(
        workers,
        """
    if email.subject == "burns":
        await asyncio.to_thread(burn)
"""
        + THREAD,
    )
    commands = {
        "dramatiq": ["dramatiq", "app.worker", "--processes", "1"],
        "mailroom": ["mailroom", "worker"],
    }
    worker = workers.start(
        *commands[command],
        MAILROOM_HANDLER_TIMEOUT_SECONDS="0.5",
        MAILROOM_MAX_RETRIES="0",
        MAILROOM_WORKER_SHUTDOWN_SECONDS="1",
    )
    put(connection, "burns")
    wait_for(workers, connection, failed=1)
    family = psutil.Process(worker.pid).children(recursive=True)
    worker.terminate()
    assert status_of(worker, workers) == 0
    wait_until(lambda: all(is_gone(process) for process in family), workers.log)
    assert "part_killed" not in workers.log()


def test_a_process_that_is_stopped_while_its_handler_is_imported_ends(
    workers: Workers, connection: Connection
) -> None:
    workers.write_handler("import time\nprint('importing', flush=True)\ntime.sleep(3600)\n")
    worker = workers.start_worker(MAILROOM_WORKER_SHUTDOWN_SECONDS="0")
    wait_until(lambda: "importing" in workers.log(), workers.log)
    (process,) = psutil.Process(worker.pid).children()
    process.terminate()
    wait_until(lambda: is_gone(process), workers.log)
    wait_until(lambda: "ended_by_force" in workers.log(), workers.log)


def test_a_process_whose_master_is_killed_while_it_boots_ends(
    workers: Workers, connection: Connection
) -> None:
    # It would tell its master that it has booted, and wait for ever that the master hears it.
    workers.write_handler(
        """
import time
from pathlib import Path

print("importing", flush=True)
while not Path("go").exists():
    time.sleep(0.02)

async def handle(email):
    pass
"""
    )
    master = workers.start_worker(MAILROOM_WORKER_SHUTDOWN_SECONDS="0")
    wait_until(lambda: "importing" in workers.log(), workers.log)
    family = psutil.Process(master.pid).children(recursive=True)
    assert family
    master.kill()
    master.wait()
    go(workers)
    wait_until(lambda: all(is_gone(process) for process in family), workers.log)
