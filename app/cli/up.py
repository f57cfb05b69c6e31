"""`mailroom up`."""

import asyncio
import shlex
import socket
import threading

import click
import structlog

from app.cli.database_access import told_in_a_sentence
from app.cli.listener import listen
from app.cli.printing import say, say_lines
from app.cli.processes import Supervisor
from app.cli.send import webhook_url
from app.cli.web import web_parts
from app.cli.worker import worker_part
from app.database.embedded.programs import EmbeddedPostgresError
from app.database.engine import DB
from app.database.migrations import migrate
from app.desk.admin_user import ADMIN_NAME, ensure_admin_user
from app.development_secrets import load_or_make_secrets
from app.intake.openapi import WEBHOOK_PATH
from app.intake.signature import signed_headers
from app.jobs.broker_url import broker_scheme
from app.settings import Settings, get_settings
from app.telemetry.logs import configure_logging
from app.telemetry.process_metrics import counted_together

log = structlog.get_logger(__name__)

THREAD = "embedded-database"

EXAMPLE = (
    b'{"ticket_id": "35436", "from_email": "erika.mustermann@example.com", '
    b'"subject": "Wo bleibt mein Paket?", "body_text": "Guten Tag, wo ist es?"}'
)


@click.command()
@click.option(
    "--processes", type=click.IntRange(min=1), help="Worker processes. [default: the setting]"
)
@click.option(
    *("--concurrency", "--threads", "concurrency"),
    type=click.IntRange(min=1),
    help="Emails that each handles at once. [default: the setting]",
)
def up(processes: int | None, concurrency: int | None) -> None:
    """Run everything on this machine: database, web, workers.

    Brings the database up to this version first. Parts that die are started again. Stop it with
    Ctrl-C or SIGTERM: what is in hand is finished.
    """
    settings = get_settings()
    configure_logging(settings)
    broker_scheme(settings)
    listener = listen(settings)
    try:
        has_admin = asyncio.run(_prepare(settings))
        workers = worker_part(
            settings,
            processes=processes or settings.worker_processes,
            concurrency=concurrency or settings.worker_concurrency,
        )
        with counted_together() as folder:
            supervisor = Supervisor(
                [*web_parts(listener, settings.web_processes, folder), workers],
                stop_seconds=settings.worker_shutdown_seconds,
                tell=log.error,
                see_to=_DatabaseStarter().see_to,
            )
            status = supervisor.run(on_started=lambda: _introduce(settings, listener, has_admin))
    finally:
        DB.release()
    raise SystemExit(status)


async def _prepare(settings: Settings) -> bool:
    """Migrate the database. Returns whether the administrator of development can sign in."""
    with told_in_a_sentence():
        await migrate()
        if settings.is_production:
            return False
        password = load_or_make_secrets(settings.home).admin_password
        return await ensure_admin_user(password, may_reset=DB.embedded is not None)


class _DatabaseStarter:
    """Starts the embedded server again if it was killed. That may take minutes, for which the
    supervisor has to hear of SIGTERM and to look after its parts, so a thread does it."""

    def __init__(self) -> None:
        self._thread = threading.Thread(target=self._start)

    def see_to(self) -> None:
        """Have it done, once at a time."""
        if DB.embedded is not None and not self._thread.is_alive():
            self._thread = threading.Thread(target=self._start, name=THREAD, daemon=True)
            self._thread.start()

    def _start(self) -> None:
        try:
            if DB.embedded is not None:
                DB.embedded.acquire()
        except EmbeddedPostgresError as error:
            log.error("embedded_database_away", reason=str(error))


def _introduce(settings: Settings, listener: socket.socket, has_admin: bool) -> None:
    # Port 0 means: any free one.
    url = webhook_url(settings.model_copy(update={"port": listener.getsockname()[1]}))
    base = url.removesuffix(WEBHOOK_PATH)
    say(f"Webhook  {url}")
    say(f"Admin    {base}/admin/")
    if has_admin:
        secrets = load_or_make_secrets(settings.home)
        say(f"         user {ADMIN_NAME}, password {secrets.admin_password}")
    say(f"Health   {base}/health/ready")
    say(f"OpenAPI  {base}/schema/openapi.json")
    if not settings.is_production:
        say_lines("\nDeliver an email:\n")
        say(_curl_line(settings, url))
    say_lines("\nCtrl-C stops it.")


def _curl_line(settings: Settings, url: str) -> str:
    headers = signed_headers(settings.webhook_secrets[0].secret, EXAMPLE)
    words = ["curl", "-i", url]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    return shlex.join([*words, "-d", EXAMPLE.decode()])
