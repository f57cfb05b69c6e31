"""`mailroom web --processes`: several processes behind one port, as if they were one."""

import contextlib
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import psycopg
from prometheus_client.parser import text_string_to_metric_families
from support import WAIT_SECONDS, Process, Services, email, is_success, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

TOKEN = {"Authorization": "Bearer token"}
MEMORY = "process_resident_memory_bytes"


def start(services: Services, *options: str) -> Process:
    """Two web processes, both of which answer."""
    supervisor = services.start("mailroom", "web", "--processes", "2", *options)
    wait_until(lambda: supervisor.poll() is not None or is_success(f"{services.url}/health/live"))
    wait_until(lambda: len(living(services)) == 2, services.log)
    return supervisor


def scrape(services: Services) -> dict[tuple[str, str], float]:
    """Each sample by its name and the value of its label."""
    answer = httpx.get(f"{services.url}/metrics", headers=TOKEN)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def living(services: Services) -> list[str]:
    """The places in which a process lives."""
    return [place for name, place in scrape(services) if name == MEMORY]


def accepted(services: Services) -> float:
    return scrape(services)["mailroom_webhooks_total", "accepted"]


def post_until_answered(services: Services, payload: dict[str, Any]) -> str:
    """As Zendesk does where a connection breaks. Returns what became of the email."""
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        try:
            answers.append(httpx.post(services.url + WEBHOOK_PATH, **signed(payload)))
        except httpx.TransportError:
            return False
        return answers[-1].status_code == 200

    wait_until(is_answered, services.log)
    return str(answers[-1].json()["status"])


class Load:
    """Emails that come all the time, each until it is answered 200."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._is_over = threading.Event()
        self.sent: list[dict[str, Any]] = []
        self.answers: list[str] = []
        self._threads = ThreadPoolExecutor(4)
        self._done = [self._threads.submit(self._run) for _ in range(4)]

    def end(self) -> None:
        self._is_over.set()
        for one in self._done:
            one.result()
        self._threads.shutdown()

    def _run(self) -> None:
        while not self._is_over.is_set():
            payload = email()
            self.sent.append(payload)
            self.answers.append(post_until_answered(self._services, payload))

    def wait_for(self, more: int) -> None:
        """Until so many more are answered."""
        wanted = len(self.answers) + more
        wait_until(lambda: len(self.answers) >= wanted, self._services.log)


def test_a_killed_process_comes_back_loses_nothing_and_what_it_counted_stays(
    services: Services, connection: "psycopg.Connection[dict[str, Any]]"
) -> None:
    supervisor = start(services)
    load = Load(services)
    try:
        load.wait_for(20)
        for victim in psutil.Process(supervisor.pid).children():
            victim.kill()
            gone = f"a process was killed: {victim.pid}"
            wait_until(lambda pid=victim.pid: not psutil.pid_exists(pid) or is_zombie(pid))
            load.wait_for(10)
            wait_until(lambda: len(children(supervisor)) == 2, lambda g=gone: g + services.log())
            wait_until(lambda: living(services) == ["1", "2"], services.log)
    finally:
        load.end()
    rows = connection.execute("SELECT from_email FROM incoming_emails").fetchall()
    stored = sorted(row["from_email"] for row in rows)
    assert stored == sorted(payload["from_email"] for payload in load.sent)
    # One that was killed between the commit and the answer has not counted.
    assert load.answers.count("accepted") <= accepted(services) <= len(stored)
    before = accepted(services)
    for _ in range(10):
        assert post_until_answered(services, email()) == "accepted"
    # Whichever answers.
    assert [accepted(services) for _ in range(10)] == [before + 10] * 10
    assert services.log().count("part_ended") == 2


def children(supervisor: Process) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(supervisor.pid).children()
        if child.status() != psutil.STATUS_ZOMBIE
    ]


def is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_all_of_them_finish_what_they_have_in_hand_when_they_are_told_to_stop(
    services: Services, connection: "psycopg.Connection[dict[str, Any]]"
) -> None:
    supervisor = start(services, "--only", "intake")
    assert httpx.get(f"{services.url}/", headers=TOKEN).status_code == 404
    started = children(supervisor)
    with contextlib.ExitStack() as open_sockets:
        elsewhere = open_sockets.enter_context(
            psycopg.connect(services.environment["DATABASE_URL"])
        )
        elsewhere.execute("LOCK TABLE incoming_emails IN ACCESS EXCLUSIVE MODE")
        posts = [open_sockets.enter_context(begin_post(services)) for _ in range(12)]
        supervisor.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_success(f"{services.url}/health/live"), services.log)
        elsewhere.rollback()
        assert [post.makefile("rb").readline() for post in posts] == [b"HTTP/1.1 200 OK\r\n"] * 12
    assert supervisor.wait(60) == 0, services.log()
    assert not any(psutil.pid_exists(child.pid) for child in started)
    assert connection.execute("SELECT count(*) AS n FROM incoming_emails").fetchone() == {"n": 12}


def begin_post(services: Services) -> socket.socket:
    """Post an email, up to where the process has it in hand: it says so by asking for the body."""
    arguments = signed(email())
    connection = socket.create_connection(("127.0.0.1", int(services.environment["MAILROOM_PORT"])))
    connection.settimeout(WAIT_SECONDS)
    fields = {
        **arguments["headers"],
        "host": "127.0.0.1",
        "content-length": str(len(arguments["content"])),
        "expect": "100-continue",
    }
    lines = [f"{name}: {value}" for name, value in fields.items()]
    connection.sendall("\r\n".join([f"POST {WEBHOOK_PATH} HTTP/1.1", *lines, "", ""]).encode())
    expected = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert connection.recv(len(expected), socket.MSG_WAITALL) == expected
    connection.sendall(arguments["content"])
    return connection


def test_none_outlives_the_one_that_started_them(services: Services) -> None:
    supervisor = start(services)
    started = children(supervisor)
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not any(child.is_running() for child in started), services.log)
