"""`mailroom demo`."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from uuid import UUID

import asyncpg
import attrs
import click
import httpx2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.cli.processes import mailroom_command
from app.cli.samples.emails import sample_emails
from app.cli.send import ANSWER_SECONDS, webhook_url
from app.database.engine import DB
from app.desk.admin_user import ADMIN_NAME
from app.development_secrets import load_or_make_secrets
from app.errors import MailroomError
from app.intake.openapi import WEBHOOK_PATH
from app.intake.signature import signed_headers
from app.models.incoming_email import ProcessingStatus
from app.settings import Settings, get_settings

SENDERS = 16
# As Zendesk does now and then: one of so many is delivered a second time.
REDELIVER_EVERY = 25
DELIVERY_TRIES = 20
START_SECONDS = 150.0
REFRESH_SECONDS = 0.4
# Longer than a lease and the time after which a message counts as lost.
STALLED_SECONDS = 300.0

COUNT_STATES = """
SELECT processing_status, count(*) FROM incoming_emails WHERE id = ANY($1::uuid[]) GROUP BY 1
"""
COMPLETION_TIMES = """
SELECT extract(epoch FROM completed_at - created_at)::float8 FROM incoming_emails
WHERE id = ANY($1::uuid[]) AND processing_status = 'completed'
"""


class DemoError(MailroomError):
    """The demo cannot go on."""


@attrs.define
class Tally:
    """What was sent and what it was answered."""

    accepted: list[UUID] = attrs.field(factory=list)
    duplicates: int = 0
    refused: int = 0
    accept_seconds: list[float] = attrs.field(factory=list)


@click.command()
@click.option("--count", type=click.IntRange(min=1), default=25, show_default=True)
@click.option("--keep", is_flag=True, help="Leave the service running afterwards, until Ctrl-C.")
@click.option("--seed", type=int, help="Make the emails of an earlier run again.")
def demo(count: int, keep: bool, seed: int | None) -> None:
    """See it work: send sample emails through the whole of it.

    Starts what `mailroom up` starts, posts signed webhooks as Zendesk does (some of them twice),
    and waits until each email is processed. Exits with 0 only if each accepted email is completed.
    """
    settings = get_settings()
    if settings.is_production:
        raise DemoError(
            "the demo writes sample emails, so it does not run with MAILROOM_ENV=production: "
            "unset it, or use another folder"
        )
    settings = settings.model_copy(update={"port": _usable_port(settings)})
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_path = settings.home / "demo.log"
    # A stop has to end the service too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console()
    with log_path.open("wb") as log, _service(settings, log) as service:
        console.print(f"Starting Mailroom on port {settings.port}; its log is {log_path}")
        runner = _Demo(settings, service, log_path, console)
        is_complete = asyncio.run(runner.run(count, secrets.randbits(32) if seed is None else seed))
        if keep:
            console.print("The service goes on running. Ctrl-C stops it.")
            with contextlib.suppress(KeyboardInterrupt):
                service.wait()
    DB.release()
    raise SystemExit(0 if is_complete else 1)


def _usable_port(settings: Settings) -> int:
    """The configured port, or a free one where that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError:
            probe.bind((settings.host, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _service(settings: Settings, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """`mailroom up` as a child."""
    service = subprocess.Popen(
        mailroom_command("up"),
        env={
            **os.environ,
            "MAILROOM_PORT": str(settings.port),
            # Those of the samples are nowhere.
            "MAILROOM_ATTACHMENTS": "off",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
        process_group=0,
    )
    try:
        yield service
    finally:
        service.terminate()
        service.wait()


class _Demo:
    def __init__(
        self,
        settings: Settings,
        service: "subprocess.Popen[bytes]",
        log_path: Path,
        console: Console,
    ) -> None:
        self._settings = settings
        self._service = service
        self._log_path = log_path
        self._console = console
        self._url = webhook_url(settings)
        self._secret = settings.webhook_secrets[0].secret
        self._base = self._url.removesuffix(WEBHOOK_PATH)
        self._tally = Tally()

    async def run(self, count: int, seed: int) -> bool:
        """Returns whether each accepted email is completed."""
        await self._wait_until_ready()
        connection = await DB.get_new_connection()
        try:
            states = await self._send_and_watch(connection, count, seed)
            times = await connection.fetch(COMPLETION_TIMES, self._tally.accepted)
        finally:
            await connection.close()
        self._print_table(states, [row[0] for row in times], seed)
        completed = states.get(ProcessingStatus.COMPLETED, 0)
        return completed == len(self._tally.accepted) and self._tally.refused == 0

    async def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        async with httpx2.AsyncClient() as client:
            while time.monotonic() < deadline:
                self._check_service()
                with contextlib.suppress(httpx2.HTTPError):
                    if (await client.get(f"{self._base}/health/ready")).is_success:
                        return
                await asyncio.sleep(0.1)
        raise DemoError(f"the service is not ready after {START_SECONDS:g} s: see {self._log_path}")

    def _check_service(self) -> None:
        if self._service.poll() is not None:
            lines = self._log_path.read_text(errors="replace").splitlines()
            raise DemoError(
                f"the service ended; the end of its log {self._log_path} is:\n"
                + "\n".join(lines[-8:])
            )

    async def _send_and_watch(
        self, connection: "asyncpg.Connection[asyncpg.Record]", count: int, seed: int
    ) -> dict[str, int]:
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[states]}"),
            console=self._console,
        )
        with progress:
            bar = progress.add_task("Emails", total=count, states="")
            sending = asyncio.create_task(self._send_all(count, seed))
            states: dict[str, int] = {}
            changed_at = time.monotonic()
            while True:
                is_sent = sending.done()
                before = states
                rows = await connection.fetch(COUNT_STATES, self._tally.accepted)
                states = {row[0]: row[1] for row in rows}
                done = states.get("completed", 0) + states.get("failed", 0)
                progress.update(bar, completed=done, states=_describe(states))
                if is_sent:
                    await sending
                    if done == len(self._tally.accepted):
                        return states
                if states != before:
                    changed_at = time.monotonic()
                if time.monotonic() - changed_at > STALLED_SECONDS:
                    sending.cancel()
                    return states
                self._check_service()
                await asyncio.sleep(REFRESH_SECONDS)

    async def _send_all(self, count: int, seed: int) -> None:
        emails = enumerate(sample_emails(count, seed))
        async with httpx2.AsyncClient(timeout=ANSWER_SECONDS) as client:
            await asyncio.gather(*(self._send_some(client, emails) for _ in range(SENDERS)))

    async def _send_some(
        self, client: httpx2.AsyncClient, emails: Iterator[tuple[int, dict[str, object]]]
    ) -> None:
        for number, email in emails:
            body = json.dumps(email, ensure_ascii=False).encode()
            headers = signed_headers(self._secret, body)
            await self._deliver(client, body, headers)
            if number % REDELIVER_EVERY == 0:
                await self._deliver(client, body, headers)

    async def _deliver(
        self, client: httpx2.AsyncClient, body: bytes, headers: dict[str, str]
    ) -> None:
        """Post a webhook, again and again where it gets no answer or 503, as Zendesk does."""
        for _ in range(DELIVERY_TRIES):
            began = time.perf_counter()
            try:
                answer = await client.post(self._url, content=body, headers=headers)
            except httpx2.HTTPError:
                await asyncio.sleep(1)
                continue
            if answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE:
                await asyncio.sleep(float(answer.headers["retry-after"]))
                continue
            self._count(answer, time.perf_counter() - began)
            return
        self._tally.refused += 1

    def _count(self, answer: httpx2.Response, seconds: float) -> None:
        if not answer.is_success:
            self._tally.refused += 1
            return
        content = answer.json()
        if content["status"] == "duplicate":
            self._tally.duplicates += 1
        else:
            self._tally.accepted.append(UUID(content["email_id"]))
            self._tally.accept_seconds.append(seconds)

    def _print_table(self, states: dict[str, int], times: list[float], seed: int) -> None:
        table = Table(title="Mailroom demo", show_header=False)
        table.add_row("accepted", str(len(self._tally.accepted)))
        table.add_row("duplicates", str(self._tally.duplicates))
        for state in ("completed", "failed"):
            table.add_row(state, str(states.get(state, 0)))
        for state in ("received", "queued", "processing"):
            if states.get(state):
                table.add_row(f"still {state}", str(states[state]))
        if self._tally.refused:
            table.add_row("not accepted", str(self._tally.refused))
        table.add_row("accept time, median", _milliseconds(self._tally.accept_seconds, 50))
        table.add_row("accept time, 99th percentile", _milliseconds(self._tally.accept_seconds, 99))
        table.add_row("accepted to completed, median", _milliseconds(times, 50))
        table.add_row("accepted to completed, 99th percentile", _milliseconds(times, 99))
        self._console.print(table)
        password = load_or_make_secrets(self._settings.home).admin_password
        self._console.print(
            "Where to look next:\n"
            f"  {self._base}/admin/ shows each email; sign in as {ADMIN_NAME} with "
            f"{password} (`mailroom up` or `demo --keep` keep it running)\n"
            f"  {self._log_path} is the log of the service\n"
            f"  mailroom demo --seed {seed} sends the same emails again, as duplicates",
            soft_wrap=True,
            highlight=False,
        )


def _describe(states: dict[str, int]) -> str:
    return " ".join(
        f"{state.value} {states[state.value]}"
        for state in ProcessingStatus
        if state.value in states
    )


def _milliseconds(seconds: list[float], percentile: int) -> str:
    if not seconds:
        return "-"
    if len(seconds) == 1:
        return f"{seconds[0] * 1000:,.0f} ms"
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return f"{cuts[percentile - 1] * 1000:,.0f} ms"
