"""A storm: real processes under a load of signed webhooks, while faults strike at seeded moments.

What is promised has to hold at its end, whatever struck: an email that was answered 200 is there
and finished, by the worker whose claim stood, and nothing is left in between.
"""

import contextlib
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pika
import psutil
import psycopg
import redis
from fake_receiver import SECRET as SYNC_SECRET
from flaky_files import GONE, HOST, FlakyFiles, content_of, name_of
from flaky_receiver import FlakyReceiver
from proxy import Proxy
from psycopg.rows import dict_row
from storm_database import Alone, Database, WithStandby
from strangers import flood
from support import (
    SECRET,
    Process,
    delete_queue,
    email,
    events,
    free_port,
    reach,
    signed,
    start_script,
    wait_until,
)

from app.attachments.store import storage_key
from app.drill import load
from app.drill.load import Webhook
from app.drill.verdict import judge
from app.intake.openapi import WEBHOOK_PATH

# Workers that are paused are to lose their leases; where each email is handled once, none may be
# lost on a machine that stands still for a while.
STORM_LEASE_SECONDS = 4.0
CALM_LEASE_SECONDS = 60.0
EVENTS_SHARE = 0.1
FILES_SHARE = 0.1
QUIET_SECONDS = 180
# A worker that is paused and has handlers to wait for.
STOP_SECONDS = 60
READY = "Worker process is ready for action."
SOON_SECONDS = 0.02
# It goes through seven tables.
COUNT_EVERY_SECONDS = 0.5
# Slower than any machine should be.
SLOWEST_PER_SECOND = 50

HANDLER = """
import asyncio, os, pathlib, random
RUNS = pathlib.Path(os.environ["STORM_RUNS"]) / f"{os.getpid()}.runs"
async def handle(email):
    token = email.started_at.isoformat()
    with RUNS.open("a") as runs:
        runs.write(f"{email.id} {token}\\n")
    await asyncio.sleep(random.random() * float(os.environ["STORM_LONGEST_SECONDS"]))
    return {"token": token}
"""

# Runs for longer than a lease, and tells all the while that it does. Every third email asks for a
# retry at once, several times, so that retries fall due all the time.
LONG_HANDLER = """
import asyncio, os, pathlib, time
from app.handlers.seam import Retry
RUNS = pathlib.Path(os.environ["STORM_RUNS"]) / f"{os.getpid()}.runs"
TICKS = pathlib.Path(os.environ["STORM_RUNS"]) / f"{os.getpid()}.ticks"
CALM = pathlib.Path(os.environ["STORM_RUNS"]) / "calm"
async def handle(email):
    token = email.started_at.isoformat()
    with RUNS.open("a") as runs:
        runs.write(f"{email.id} {token}\\n")
    if email.id.int % 3 == 0 and email.retry_count < 4:
        raise Retry("again", after=0)
    ends = time.monotonic() + float(os.environ["STORM_HANDLER_SECONDS"])
    while time.monotonic() < ends and not CALM.exists():
        with TICKS.open("a") as ticks:
            ticks.write(f"{email.id} {token} {time.monotonic()}\\n")
        await asyncio.sleep(0.05)
    return {"token": token}
"""

Fault: TypeAlias = Callable[[random.Random], None]

IN_WORK = "SELECT count(*) FROM incoming_emails WHERE processing_status = 'processing'"
# Twice what a message may take until it counts as lost, and more.
TAKEN_OVER_SECONDS = 300.0
TAKEN_OVER = """
SELECT count(*) FROM incoming_emails WHERE processing_status = 'processing' AND lost_claims > 0
"""
UNFINISHED = """
SELECT (SELECT count(*) FROM incoming_emails WHERE processing_status NOT IN ('completed', 'failed'))
    + (SELECT count(*) FROM email_attachments WHERE state = 'pending')
    + (SELECT count(*) FROM incoming_emails WHERE sync_status = 'pending')
    + (SELECT count(*) FROM incoming_emails WHERE completed_at < now() - interval '3 days')
    + (SELECT count(*) FROM erasures WHERE ended_at IS NULL)
    + (SELECT count(*) FROM sync_events WHERE sync_status = 'pending')
    + (SELECT count(*) FROM attachment_erasures)
"""
# As if they had ended so long ago that they are due in a moment: of what has been due for longer,
# the pruner knows that nothing is left.
GROW_OLD = """
UPDATE incoming_emails SET completed_at = now() - interval '3 days' + interval '2 seconds'
WHERE id = ANY(%s) AND processing_status = 'completed'
"""
# So many that no delivery is given up, and so short that a storm's end need not be waited for.
SYNC_PAUSES = ",".join(["0", "0.2", "0.5", *["1"] * 60])
FAIL_INSERTS = """
CREATE OR REPLACE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER no_space BEFORE INSERT ON incoming_emails EXECUTE FUNCTION no_space();
"""


class Load(load.Load):
    """Emails, events and files for the web processes at some ports."""

    def __init__(
        self,
        ports: list[int],
        per_second: float,
        chance: random.Random,
        files: FlakyFiles | None = None,
    ) -> None:
        self._files = files
        urls = [f"http://127.0.0.1:{port}{WEBHOOK_PATH}" for port in ports]
        super().__init__(urls, per_second, self._draw_webhooks, chance)

    def wait_for(self, emails: int) -> None:
        """Wait until so many are accepted."""

        def are_accepted() -> bool:
            self.check()
            return len(self.accepted) >= emails

        wait_until(are_accepted, seconds=60 + emails / SLOWEST_PER_SECOND)

    def _draw_webhooks(self) -> list[Webhook]:
        deliveries = self._draw_deliveries()
        self._chance.shuffle(deliveries)
        return [Webhook(**signed(delivery)) for delivery in deliveries]

    def _draw_deliveries(self) -> list[dict[str, Any]]:
        if self._chance.random() < EVENTS_SHARE:
            return events(self._files and self._files.new_url())
        if self._files is not None and self._chance.random() < FILES_SHARE:
            count = self._chance.randint(1, 3)
            return [email(attachments=[{"url": self._files.new_url()} for _ in range(count)])]
        return [email()]


class Storm:
    """Two web processes, two workers, a PostgreSQL of their own, and a broker.

    Args:
        folder: where logs and data go, with the home of a migrated server in `pg`.
        broker_url: "" for the database.
        seed: the same faults strike in the same order with the same parameters.
        handler_seconds: how long a handler runs that is told to tick; None: it ends soon.
        longest_seconds: within which such a one ends.
        with_files: some emails name files, which a server gives out that fails at times.
        with_delivery: emails are delivered to a receiver that fails at times.
        with_standby: the database has a standby, which takes over at times.
    """

    def __init__(
        self,
        folder: Path,
        broker_url: str,
        seed: int,
        per_second: float,
        lease_seconds: float,
        handler_seconds: float | None = None,
        longest_seconds: float = SOON_SECONDS,
        with_files: bool = False,
        with_delivery: bool = False,
        with_standby: bool = False,
    ) -> None:
        self._random = random.Random(seed)
        self._lease_seconds = lease_seconds
        self.struck: Counter[str] = Counter()
        self._killed: set[str] = set()
        """What was killed in this turn of the storm."""
        self._folder = folder
        self._handler_seconds = handler_seconds
        self._longest_seconds = longest_seconds
        self.erased: set[UUID] = set()
        """Emails that somebody asked to erase, whatever was answered."""
        self.aged: set[UUID] = set()
        """Emails that were, or may be, old enough to be pruned."""
        self.gone: dict[str, int] = {}
        """How many of those are gone, in the end."""
        self._paused: dict[int, list[float]] = defaultdict(list)
        """When processes were paused, by the clock of their ticks."""
        (folder / "my_handler.py").write_text(HANDLER if handler_seconds is None else LONG_HANDLER)
        (folder / "runs").mkdir()
        self._server: Database = WithStandby() if with_standby else Alone(folder / "pg")
        self._asking: psycopg.Connection[tuple[object, ...]] | None = None
        self._to_database = [Proxy(address) for address in self._server.addresses]
        """The way of one of the workers."""
        there = psycopg.conninfo.conninfo_to_dict(self._server.url)
        hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in self._to_database)
        self._own_url = f"postgresql://{there['user']}@{hosts}/{there['dbname']}"
        self._proxy: Proxy | None = None
        self._broker_url = broker_url
        if broker_url:
            parts = urlsplit(broker_url)
            self._proxy = Proxy((parts.hostname or "", parts.port or 0))
            netloc = parts.netloc.replace(f":{parts.port}", f":{self._proxy.port}")
            self._proxied_url = parts._replace(netloc=netloc).geturl()
        self._queue = f"storm-{seed}-{os.getpid()}"
        self.ports = [free_port(), free_port()]
        self._processes: dict[str, Process] = {}
        self._logs_read: dict[str, int] = {}
        """How many bytes of each log were looked at."""
        self._ready: set[str] = set()
        """The workers that have said so since they were started."""
        self._resting: set[str] = set()
        self._lock = threading.Lock()
        self._files = FlakyFiles(self._draw()) if with_files else None
        self.receiver = FlakyReceiver(self._draw()) if with_delivery else None
        self.load = Load(self.ports, per_second, self._draw(), self._files)
        self._keeper_stops = threading.Event()
        self._keeper = threading.Thread(target=self._keep)

    def begin(self) -> None:
        """Start all processes."""
        if isinstance(self._server, WithStandby):
            self._migrate()
        # Or a database that dies would lose less, or more, than one of a user.
        for setting in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
            assert self._ask(f"SHOW {setting}") == "on", setting
        for name in ("web0", "web1", "worker0", "worker1"):
            self._start(name)
        self._keeper.start()

    def strike(self, seconds: float, *, is_long: bool) -> None:
        """Let faults strike for so long, with the load on.

        Args:
            is_long: the broker is away for a minute once.
        """
        self.load.start()
        faults: list[Fault] = [
            self.kill_web,
            self.kill_worker_process,
            self.kill_worker_master,
            self.pause_worker,
            self.stop_worker,
            self.stop_web,
            self.empty_broker,
            self.restart_database,
            self.keep_database_away,
            self.cut_worker_off,
            self.end_connections,
            self.fail_inserts,
            self.let_strangers_in,
        ]
        if self.receiver is not None:
            faults += [self.keep_receiver_away, self.process_again]
            faults += [self.erase_some, self.let_some_grow_old]
        # Each strikes once, in a drawn order, before any strikes again.
        deck: list[Fault] = []
        if self._proxy is not None:
            faults += [self.cut_broker, self.slow_down_broker]
            deck += [self.cut_broker_for_a_minute] * is_long
        if isinstance(self._server, WithStandby):
            faults.append(self.let_standby_take_over)
            deck.append(self.let_standby_take_over)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            deck = deck or self._random.sample(faults, len(faults))
            struck = [deck.pop()]
            if deck and self._random.random() < 0.3:
                struck.append(deck.pop())
            self._killed.clear()
            with ThreadPoolExecutor(len(struck)) as threads:
                # Drawn here: two threads would draw in any order.
                striking = [threads.submit(fault, self._draw()) for fault in struck]
            for fault, ended in zip(struck, striking, strict=True):
                ended.result()
                self.struck[fault.__name__] += 1
            self.load.check()
            self._wait(self._random.uniform(0.5, 3))
        self._killed.clear()
        self.load.stop()

    def restart(self, name: str) -> None:
        """Stop a process and wait until it runs again."""
        self._stop(name)
        self._wait_for_start(name)

    def stop(self) -> None:
        """Stop all, each in order."""
        for name in self._processes:
            self._wait_for_start(name)
        with self._lock:
            self._resting.update(self._processes)
        for name in self._processes:
            self._stop(name)

    def stop_workers(self, names: Sequence[str] = ("worker0", "worker1")) -> None:
        """Stop them and leave them stopped."""
        for name in names:
            self._wait_for_start(name)
        with self._lock:
            self._resting.update(names)
        for name in names:
            self._stop(name)

    def start_workers(self) -> None:
        with self._lock:
            self._resting.clear()

    def web_memory(self) -> int:
        """Bytes that the larger web process occupies."""
        processes = [psutil.Process(self._processes[name].pid) for name in ("web0", "web1")]
        return max(process.memory_info().rss for process in processes)

    def order_of_processing(self) -> list[UUID]:
        """The emails as workers claimed them."""
        with psycopg.connect(self._server.url) as connection:
            rows = connection.execute("SELECT id FROM incoming_emails ORDER BY started_at")
            return [row[0] for row in rows]

    def order_of_receipt(self) -> list[UUID]:
        with psycopg.connect(self._server.url) as connection:
            rows = connection.execute("SELECT id FROM incoming_emails ORDER BY received_at")
            return [row[0] for row in rows]

    def kill_web(self, chance: random.Random) -> None:
        self._kill(chance.choice(["web0", "web1"]))

    def kill_worker_process(self, chance: random.Random) -> None:
        name = chance.choice(["worker0", "worker1"])
        self._killed.add(name)
        master = self._processes[name]
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(master.pid).children()
            for child in children:
                child.kill()
            # One that has not started any is not hit.
            wait_until(lambda: not children or master.poll() is not None, self.explain)

    def kill_worker_master(self, chance: random.Random) -> None:
        self._kill(chance.choice(["worker0", "worker1"]))

    def pause_worker(self, chance: random.Random) -> None:
        """Beyond its lease: it wakes as a zombie."""
        master = self._processes[chance.choice(["worker0", "worker1"])]
        with contextlib.suppress(psutil.NoSuchProcess):
            paused = psutil.Process(master.pid).children()
            for process in paused:
                self._paused[process.pid].append(time.monotonic())
                process.suspend()
            self._wait(self._lease_seconds + 2)
            for process in paused:
                process.resume()

    def stop_worker(self, chance: random.Random) -> None:
        self._stop(chance.choice(["worker0", "worker1"]))

    def stop_web(self, chance: random.Random) -> None:
        self._stop(chance.choice(["web0", "web1"]))

    def empty_broker(self, _: random.Random) -> None:
        """Every message is lost, those of retries too."""
        if self._broker_url.startswith("redis"):
            client = redis.Redis.from_url(self._broker_url)
            for key in client.scan_iter(f"{self._queue}:*"):
                client.delete(key)
            client.close()
        elif self._broker_url:
            with contextlib.closing(
                pika.BlockingConnection(pika.URLParameters(self._broker_url))
            ) as connection:
                for queue in (self._queue, f"{self._queue}.DQ"):
                    with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
                        connection.channel().queue_purge(queue)
        else:
            with contextlib.suppress(psycopg.Error):
                self._execute("DELETE FROM dramatiq.queue")

    def cut_broker(self, chance: random.Random) -> None:
        self._cut_broker(chance.uniform(1, 6))

    def cut_broker_for_a_minute(self, _: random.Random) -> None:
        self._cut_broker(60)

    def restart_database(self, _: random.Random) -> None:
        self._server.crash()

    def keep_database_away(self, _: random.Random) -> None:
        """For longer than a lease: nobody can extend one, and nobody may rob another then."""
        self._server.crash(self._lease_seconds + 3)

    def let_standby_take_over(self, _: random.Random) -> None:
        assert isinstance(self._server, WithStandby)
        self._server.promote()

    def cut_worker_off(self, chance: random.Random) -> None:
        """One worker alone reaches the database no longer, for longer than a lease: the other one
        takes over what it holds."""
        if self._handler_seconds is not None:
            wait_until(self._ticks, self.explain)
            # The other one is to keep places.
            self.load.stop()
            self.start_workers()
            self._wait_for_start("worker0")
        cut_off = chance.choice([Proxy.cut, Proxy.vanish])
        for way in self._to_database:
            cut_off(way)
        self._wait(self._lease_seconds + 3)
        if self._handler_seconds is not None:
            # Its broker still gives messages to the one that is cut off: they count as lost later.
            seconds = TAKEN_OVER_SECONDS
            wait_until(lambda: self._count(TAKEN_OVER) > 0, self.explain, seconds=seconds)
        for way in self._to_database:
            way.restore()

    def calm_down(self) -> None:
        """Let the handlers that tick end."""
        (self._folder / "runs" / "calm").touch()

    def _ticks(self) -> bool:
        """Whether a handler of that worker runs that will not end soon."""
        with contextlib.suppress(psutil.NoSuchProcess):
            pids = [
                child.pid for child in psutil.Process(self._processes["worker1"].pid).children()
            ]
            return any((self._folder / "runs" / f"{pid}.ticks").exists() for pid in pids)
        return False

    def slow_down_broker(self, _: random.Random) -> None:
        """Every answer takes its time."""
        assert self._proxy is not None
        self._proxy.slow_down(0.3)
        self._wait(self._lease_seconds)
        self._proxy.slow_down(0)

    def end_connections(self, _: random.Random) -> None:
        with contextlib.suppress(psycopg.Error):
            self._execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def fail_inserts(self, _: random.Random) -> None:
        with contextlib.suppress(psycopg.Error):
            self._execute(FAIL_INSERTS)
        self._wait(2)
        self._let_insert()

    def let_strangers_in(self, chance: random.Random) -> None:
        flood(chance.choice(self.ports), chance.uniform(1, 4))

    def keep_receiver_away(self, chance: random.Random) -> None:
        assert self.receiver is not None
        self.receiver.is_away = True
        self._wait(chance.uniform(1, 4))
        self.receiver.is_away = False

    def process_again(self, chance: random.Random) -> None:
        """An operator has emails processed again that have ended: each has a newer result then."""
        accepted = list(self.load.accepted)
        for email_id in chance.sample(accepted, min(20, len(accepted))):
            url = f"http://127.0.0.1:{chance.choice(self.ports)}/api/v1/jobs/{email_id}/retry"
            with contextlib.suppress(httpx.HTTPError):
                httpx.post(
                    url, json={"force": True}, headers={"authorization": "Bearer token"}, timeout=5
                )

    def erase_some(self, chance: random.Random) -> None:
        """An operator has emails erased, whatever is done with them right now."""
        for email_id in self._some_accepted(chance):
            self.erased.add(email_id)
            for _ in range(5):
                url = f"http://127.0.0.1:{chance.choice(self.ports)}/api/v1/jobs/{email_id}"
                with contextlib.suppress(httpx.HTTPError):
                    httpx.delete(url, headers={"authorization": "Bearer token"}, timeout=5)
                    break
                self._wait(0.5)

    def let_some_grow_old(self, chance: random.Random) -> None:
        """The workers prune them, beside all else."""
        some = self._some_accepted(chance)
        self.aged.update(some)
        with contextlib.suppress(psycopg.Error), psycopg.connect(self._server.url) as connection:
            connection.execute(GROW_OLD, [some])

    def _some_accepted(self, chance: random.Random) -> list[UUID]:
        self.load.wait_for(20)
        accepted = list(self.load.accepted)
        return chance.sample(accepted, min(20, len(accepted)))

    def wait_until_quiet(self) -> None:
        """Everything runs again; wait until every email is finished."""
        self._let_insert()
        seconds = QUIET_SECONDS + len(self.load.accepted) / SLOWEST_PER_SECOND
        wait_until(
            lambda: not self._count(UNFINISHED),
            self.explain,
            seconds=seconds,
            every=COUNT_EVERY_SECONDS,
        )

    def wait_for_handlers(self, handlers: int) -> None:
        """Wait until so many run at once."""
        wait_until(lambda: self._count(IN_WORK) >= handlers, self.explain)

    def check(self) -> dict[str, int]:
        """Check what is promised. Returns the counts of the states.

        Raises:
            AssertionError: a promise was broken.
        """
        with psycopg.connect(self._server.url) as connection:
            rows = connection.execute(
                "SELECT id, processing_status, started_at, extracted_data, processing_error,"
                " sync_status, sync_version FROM incoming_emails"
            ).fetchall()
            lonely = connection.execute(
                "SELECT count(*) FROM incoming_emails WHERE zendesk_comment_id IS NOT NULL"
                " AND json_array_length(coalesce(attachment_urls, '[]')) <> 1"
            ).fetchone()
        assert lonely == (0,), f"emails without their one file: {lonely}"
        verdict = judge(self.load.accepted, {row[0]: row[1] for row in rows})
        states = verdict.states
        assert not verdict.unfinished, states
        assert self.load.accepted, "nothing was accepted"
        stored = {row[0] for row in rows}
        lost = set(verdict.lost) - self.erased - self.aged
        assert not lost, f"answered 200, and not there: {lost}"
        self.gone = {"erased": len(self.erased - stored), "aged": len(self.aged - stored)}
        assert not verdict.twice, f"stored twice: {verdict.twice}"
        if self._files is not None:
            self._check_files()
        if self.receiver is not None:
            self.receiver.check({row[0]: (row[1], row[5], row[6]) for row in rows})
            self.receiver.check_erased(self.erased - stored - self.aged)
        runs = self._runs()
        for email_id, status, started_at, extracted_data, error, *_ in rows:
            if status == "completed":
                token = datetime.fromisoformat(extracted_data["token"])
                assert token == started_at, f"{email_id} was finished by another than its claimer"
                assert token in runs[email_id]
            else:
                assert error, f"{email_id} failed without a reason"
        return dict(states)

    def _check_files(self) -> None:
        """Each file of each email is kept whole, or has a reason; and nothing is left of others."""
        with psycopg.connect(self._server.url, row_factory=dict_row) as connection:
            rows = connection.execute("SELECT * FROM email_attachments").fetchall()
            odd = connection.execute(
                "SELECT count(*) FROM incoming_emails AS email"
                " WHERE json_array_length(coalesce(attachment_urls, '[]'))"
                " <> (SELECT count(*) FROM email_attachments AS f WHERE f.email = email.id)"
            ).fetchone()
        assert odd == {"count": 0}, f"emails without rows of their files: {odd}"
        kept = {row["sha256"]: row for row in rows if row["state"] == "kept"}
        home = self._folder / "home"
        for row in rows:
            name = name_of(row["url"])
            if row["state"] == "kept":
                assert row["sha256"] == hashlib.sha256(content_of(name)).hexdigest(), name
            else:
                assert (row["state"], bool(row["reason"])) == ("failed", True), row
            assert (row["reason"] == "gone") == name.startswith(GONE), row
        for sha256, row in kept.items():
            content = (home / "attachments" / storage_key(sha256)).read_bytes()
            assert hashlib.sha256(content).hexdigest() == sha256, row
        found = {path.name for path in (home / "attachments").rglob("*") if path.is_file()}
        # A process that was killed while it stored may leave its half, which counts as nothing.
        assert {name for name in found if "#" not in name} == set(kept)
        assert {path.name for path in (home / "downloads").rglob("*") if path.is_file()} <= {"lock"}

    def count_overlaps(self) -> int:
        """How often a run of an email began before the last sign of an earlier one of it.

        A process that was paused and goes on when it is woken may do so for a moment.
        """
        spans: dict[UUID, dict[str, list[float]]] = defaultdict(dict)
        for path in (self._folder / "runs").glob("*.ticks"):
            paused = self._paused.get(int(path.stem), [])
            for line in path.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    email_id, token, at = line.split()
                    moment = float(at)
                    if any(moment > pause for pause in paused):
                        continue
                    span = spans[UUID(email_id)].setdefault(f"{token} {path.stem}", [moment] * 2)
                    span[1] = max(span[1], moment)
        overlaps = 0
        for runs in spans.values():
            in_order = sorted(runs.values())
            overlaps += sum(
                later[0] < earlier[1] for earlier, later in itertools.pairwise(in_order)
            )
        return overlaps

    def count_ticking_runs(self) -> int:
        lines = (
            line.split()
            for path in (self._folder / "runs").glob("*.ticks")
            for line in path.read_text().splitlines()
        )
        return len({tuple(line[:2]) for line in lines if len(line) == 3})

    def count_runs(self) -> Counter[int]:
        """How many emails were handled how often."""
        return Counter(len(tokens) for tokens in self._runs().values())

    def explain(self) -> str:
        left: object = "unknown, the database is away"
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(self._server.url) as connection,
        ):
            left = (
                connection.execute(
                    "SELECT id, processing_status, queued_at, started_at, next_attempt_at,"
                    " lease_expires_at, claims, retry_count, now() FROM incoming_emails"
                    " WHERE processing_status NOT IN ('completed', 'failed') LIMIT 5"
                ).fetchall()
                + connection.execute(
                    "SELECT id, sync_status, sync_version, sync_retry_count, sync_next_attempt_at,"
                    " sync_lease_expires_at, sync_error, r.* FROM incoming_emails"
                    " LEFT JOIN sync_receivers AS r ON true WHERE sync_status = 'pending' LIMIT 5"
                ).fetchall()
            )
        logs = "\n".join(
            "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted(self._folder.glob("*.log"))
        )
        return f"struck: {dict(self.struck)}; left: {left}\n{logs}"

    def end(self) -> None:
        self.load.give_up()
        with self._lock:
            self._resting.update(self._processes)
        self._keeper_stops.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        delete_queue(self._broker_url, self._queue)
        if self._proxy is not None:
            self._proxy.close()
        for way in self._to_database:
            way.close()
        if self._files is not None:
            self._files.close()
        if self.receiver is not None:
            self.receiver.close()
        if self._asking is not None:
            self._asking.close()
        self._server.end()

    def _delivery(self) -> dict[str, str]:
        if self.receiver is None:
            return {}
        return {
            "MAILROOM_KEEP_COMPLETED_DAYS": "3",
            "MAILROOM_PRUNE_EVERY_SECONDS": "1",
            "MAILROOM_SYNC_URL": self.receiver.url,
            "MAILROOM_SYNC_SECRETS": SYNC_SECRET,
            "MAILROOM_SYNC_RETRY_SECONDS": SYNC_PAUSES,
            "MAILROOM_SYNC_TIMEOUT_SECONDS": "1.5",
            "MAILROOM_SYNC_BREAKER_SECONDS": "0.1",
            # Both ways of sending.
            "MAILROOM_SYNC_BATCH": "1" if self._proxy is None else "20",
        }

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **self._delivery(),
            "DATABASE_URL": self._server.url,
            "BROKER_URL": self._proxied_url if self._proxy else "",
            "MAILROOM_HOME": str(self._folder / "home"),
            "MAILROOM_QUEUE": self._queue,
            "MAILROOM_WEBHOOK_SECRETS": SECRET,
            "MAILROOM_API_TOKEN": "token",
            "MAILROOM_HANDLER": "my_handler:handle",
            "MAILROOM_LEASE_SECONDS": str(self._lease_seconds),
            "MAILROOM_MESSAGE_LOST_SECONDS": "6",
            "MAILROOM_MIN_BACKOFF_SECONDS": "0.2",
            "MAILROOM_MAX_BACKOFF_SECONDS": "1",
            "MAILROOM_MAX_LOST_CLAIMS": "8",
            # An email that waits for its files is out of the order of receipt.
            "MAILROOM_ATTACHMENTS": "before" if self._files else "off",
            "MAILROOM_ATTACHMENT_HOSTS": HOST,
            "MAILROOM_OUTBOUND_OPEN_LOOPBACK": "true",
            "MAILROOM_ATTACHMENT_WAIT_SECONDS": "30",
            "STORM_RUNS": str(self._folder / "runs"),
            "STORM_HANDLER_SECONDS": str(self._handler_seconds or 0),
            "STORM_LONGEST_SECONDS": str(self._longest_seconds),
            "PYTHONPATH": os.pathsep.join([str(self._folder), os.environ.get("PYTHONPATH", "")]),
        }

    def _migrate(self) -> None:
        with tempfile.TemporaryFile() as told, Path(os.devnull).open("rb") as nothing:
            migrating = start_script(
                *("mailroom", "migrate"),
                cwd=self._folder,
                env=self._environment(),
                files=(nothing, told, told),
            )
            if migrating.wait():
                told.seek(0)
                raise AssertionError(told.read().decode())

    def _start(self, name: str) -> None:
        number = int(name[-1])
        command = (
            ["mailroom", "web"]
            if name.startswith("web")
            else ["dramatiq", "app.worker", "--processes", "1"]
        )
        environment = {**self._environment(), "MAILROOM_PORT": str(self.ports[number])}
        if name == "worker1":
            environment["DATABASE_URL"] = self._own_url
        with self._log(name).open("ab") as log, Path(os.devnull).open("rb") as nothing:
            self._logs_read[name] = log.tell()
            self._ready.discard(name)
            self._processes[name] = start_script(
                *command, cwd=self._folder, env=environment, files=(nothing, log, log)
            )

    def _keep(self) -> None:
        """As a supervisor does: what ended is started again."""
        while not self._keeper_stops.wait(0.3):
            with self._lock:
                for name, process in list(self._processes.items()):
                    if process.poll() is not None and name not in self._resting:
                        self._start(name)

    def _draw(self) -> random.Random:
        """A source of chance for what runs in a thread of its own."""
        return random.Random(self._random.getrandbits(64))

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _kill(self, name: str) -> None:
        self._killed.add(name)
        process = self._processes[name]
        process.kill()
        process.wait()

    def _stop(self, name: str) -> None:
        """Stop a process that has started. It ends in order, unless it was killed meanwhile."""
        self._wait_for_start(name)
        process = self._processes[name]
        process.terminate()
        wait_until(lambda: process.poll() is not None, self.explain, seconds=STOP_SECONDS)
        assert process.returncode == 0 or name in self._killed, (
            f"{name} ended with {process.returncode}: {self.explain()}"
        )

    def _wait_for_start(self, name: str) -> None:
        wait_until(lambda: self._has_started(name), self.explain)

    def _has_started(self, name: str) -> bool:
        with self._lock:
            if self._processes[name].poll() is not None:
                return False
            if name.startswith("web"):
                return reach(f"http://127.0.0.1:{self.ports[int(name[-1])]}")
            if name not in self._ready:
                self._look_on_in_log(name)
            return name in self._ready

    def _look_on_in_log(self, name: str) -> None:
        with self._log(name).open("rb") as log:
            log.seek(self._logs_read[name])
            for line in log:
                # The rest of it is still to come.
                if not line.endswith(b"\n"):
                    return
                self._logs_read[name] += len(line)
                if READY.encode() in line:
                    self._ready.add(name)

    def _cut_broker(self, seconds: float) -> None:
        assert self._proxy is not None
        self._proxy.cut()
        self._wait(seconds)
        self._proxy.restore()

    def _wait(self, seconds: float) -> None:
        # A fault lasts; there is nothing to poll for.
        threading.Event().wait(seconds)

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            connection.execute(statement)

    def _let_insert(self) -> None:
        def succeed() -> bool:
            try:
                self._execute("DROP TRIGGER IF EXISTS no_space ON incoming_emails")
            except psycopg.Error:
                return False
            return True

        wait_until(succeed)

    def _count(self, statement: str) -> int:
        """What the database counts; less than none while it is away."""
        try:
            count = self._ask(statement)
        except psycopg.Error:
            return -1
        assert isinstance(count, int)
        return count

    def _ask(self, statement: str) -> object:
        """The one value that the database answers, over a connection that is kept."""
        if self._asking is None or self._asking.closed:
            self._asking = psycopg.connect(self._server.url, autocommit=True)
        row = self._asking.execute(statement).fetchone()
        assert row is not None
        return row[0]

    def _runs(self) -> dict[UUID, set[datetime]]:
        runs: dict[UUID, set[datetime]] = defaultdict(set)
        for path in (self._folder / "runs").glob("*.runs"):
            for line in path.read_text().splitlines():
                email_id, _, token = line.partition(" ")
                # The last line of a process that was killed may be cut.
                with contextlib.suppress(ValueError):
                    runs[UUID(email_id)].add(datetime.fromisoformat(token))
        return runs


@contextlib.contextmanager
def raging(
    folder: Path,
    broker_url: str,
    seed: int,
    per_second: float,
    lease_seconds: float = CALM_LEASE_SECONDS,
    handler_seconds: float | None = None,
    longest_seconds: float = SOON_SECONDS,
    with_files: bool = False,
    with_delivery: bool = False,
    with_standby: bool = False,
) -> Iterator[Storm]:
    """A storm that is ended afterwards."""
    storm = Storm(
        *(folder, broker_url, seed, per_second, lease_seconds, handler_seconds, longest_seconds),
        with_files=with_files,
        with_delivery=with_delivery,
        with_standby=with_standby,
    )
    try:
        storm.begin()
        yield storm
        storm.stop()
    finally:
        storm.end()


def summary(storm: Storm, seed: int, states: dict[str, int]) -> str:
    return json.dumps(
        {
            "seed": seed,
            "accepted": len(storm.load.accepted),
            "states": states,
            "runs": dict(storm.count_runs()),
            "answers": {str(answer): n for answer, n in storm.load.answers.items()},
            "struck": dict(storm.struck),
            "gone": storm.gone,
            "receiver": dict(storm.receiver.answers) if storm.receiver is not None else {},
            "taken twice": storm.receiver.twice() if storm.receiver is not None else 0,
        }
    )
