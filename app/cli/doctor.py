"""`mailroom doctor`."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import attrs
import click

from app.attachments.store import AttachmentStore
from app.attachments.virus_check import VirusCheck
from app.cli.printing import say, say_lines
from app.cli.restore_checks import RESTORE_CHECKS
from app.cli.sign_in_check import sign_in_check
from app.cli.sync import see_delivery
from app.cli.through_proxy import checks
from app.cli.zendesk_checks import (
    NotWellError,
    canary_check,
    outage_check,
    silence_check,
    zendesk_check,
)
from app.database.connections import can_write
from app.database.engine import DB
from app.database.errors import CANNOT_ASK
from app.database.pooler import Pooler, find_pooler
from app.database.schema_fit import schema_state
from app.development_secrets import FILE_NAME
from app.errors import MailroomError
from app.handlers.loading import load_handler
from app.jobs import pausing
from app.jobs.broker_url import broker_scheme, try_broker
from app.setting_groups.secrets import ZENDESK_PUBLIC_TEST_SECRET
from app.settings import Settings, get_settings

# Migrations say CREATE OR REPLACE TRIGGER.
OLDEST_POSTGRES = 140_000
MOST_CLOCK_DIFFERENCE_SECONDS = 5.0
LEAST_FREE_BYTES = 1024**3
CHECK_SECONDS = 15.0
WHERE_TO_LOOK = {
    "database": "DATABASE_URL",
    "migrations": "DATABASE_URL",
    "broker": "BROKER_URL",
    "secrets": "MAILROOM_WEBHOOK_SECRETS and MAILROOM_HOME",
    "handler": "MAILROOM_HANDLER",
    "clock": "DATABASE_URL",
    "disk": "MAILROOM_HOME",
    "zendesk": "MAILROOM_ZENDESK_TOKEN",
    "silence": "DATABASE_URL",
    "processing": "DATABASE_URL",
    "canary": "DATABASE_URL",
    "files": "MAILROOM_ATTACHMENT_STORE and MAILROOM_CLAMD",
    "delivery": "MAILROOM_SYNC_URL and MAILROOM_SYNC",
    "sign-in": "MAILROOM_OIDC_ISSUER",
    "webhook": "--url",
    "body size": "--url",
    "pages": "--url",
    "outage": "DATABASE_URL",
    **dict.fromkeys(RESTORE_CHECKS, "DATABASE_URL and MAILROOM_ATTACHMENT_STORE"),
}


Check: TypeAlias = Callable[[Settings], Awaitable[str]]


@attrs.frozen
class Finding:
    """What a check found."""

    check: str
    is_well: bool
    explanation: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option(
    "--url", help="Go there as well, as Zendesk and operators do: Mailroom's public address."
)
@click.option(
    "--before-deploy",
    is_flag=True,
    help="Check as well whether email would be found that comes while the web process is down.",
)
@click.option(
    "--after-restore",
    is_flag=True,
    help="Check as well what a backup of an earlier moment leaves to be done.",
)
def doctor(as_json: bool, url: str | None, before_deploy: bool, after_restore: bool) -> None:
    """Check everything that Mailroom needs, and say how to mend what is wrong.

    With --url https://... the way there is checked as well: whether a signed webhook arrives
    unchanged (nothing is stored), how large it may be, and whether operators can sign in.

    With --before-deploy it says how long the web process may be down before Zendesk's retries run
    out, and is not well where nobody would find the email that comes later.

    With --after-restore it says what to do with a database that was put back to an earlier moment,
    before web processes and workers are started (docs/backup.md).

    Exits with 0 only if all is well.
    """
    settings = get_settings()
    more = {
        **(checks(url) if url else {}),
        **({"outage": outage_check} if before_deploy else {}),
        **(RESTORE_CHECKS if after_restore else {}),
    }
    try:
        findings = asyncio.run(_examine(settings, more))
    finally:
        DB.release()
    if as_json:
        say_lines(json.dumps([attrs.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = "ok  " if finding.is_well else "FAIL"
            say(f"{mark} {finding.check:<11} {finding.explanation}")
    raise SystemExit(0 if all(finding.is_well for finding in findings) else 1)


async def _examine(settings: Settings, more: dict[str, Check]) -> list[Finding]:
    all_checks: dict[str, Check] = {
        "database": _database,
        "migrations": _migrations,
        "broker": _broker,
        "secrets": _secrets,
        "handler": _handler,
        "clock": _clock,
        "disk": _disk,
        "zendesk": zendesk_check,
        "silence": silence_check,
        "processing": _processing,
        "canary": canary_check,
        "files": _files,
        "delivery": see_delivery,
        "sign-in": sign_in_check,
        **more,
    }
    return [await _find(name, check, settings) for name, check in all_checks.items()]


async def _find(name: str, check: Check, settings: Settings) -> Finding:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return Finding(name, True, await check(settings))
    except MailroomError as error:
        return Finding(name, False, str(error))
    except TimeoutError:
        return Finding(name, False, f"no answer within {CHECK_SECONDS:g} seconds")
    except CANNOT_ASK as error:
        if isinstance(error, OSError) and await _does_database_answer():
            # It was a file, or another server.
            of_what = f": {error.filename}" if error.filename else ""
            said = f"{type(error).__name__}: {error.strerror or 'no reason given'}{of_what}"
            return Finding(name, False, f"the check failed ({said}): see {WHERE_TO_LOOK[name]}")
        said = f"{type(error).__name__} {error}".splitlines()[0].strip()
        return Finding(name, False, f"the database cannot be used ({said}): see DATABASE_URL")
    except Exception as error:  # noqa: BLE001 - the other findings must not be lost
        # Its text may hold the URL, and with it a password.
        explanation = f"the check failed with {type(error).__name__}: see {WHERE_TO_LOOK[name]}"
        return Finding(name, False, explanation)


async def _database(settings: Settings) -> str:
    await DB.ensure_running()
    pooler = await find_pooler(DB.url)
    if pooler is Pooler.TRANSACTIONS and not settings.behind_pgbouncer:
        raise NotWellError(
            "DATABASE_URL leads through a pooler in transaction mode, such as PgBouncer: set "
            "MAILROOM_BEHIND_PGBOUNCER=true, and let BROKER_URL lead past it"
        )
    version = int(await _ask("SELECT current_setting('server_version_num')"))
    name = "embedded PostgreSQL" if DB.embedded else "PostgreSQL"
    if version < OLDEST_POSTGRES:
        raise NotWellError(f"{name} {version // 10000} is too old: Mailroom needs 14 or newer")
    if await _ask("SELECT pg_is_in_recovery()"):
        raise NotWellError(
            "the server is a standby and takes no email: point DATABASE_URL at the primary, or "
            "name all hosts in it, comma-separated"
        )
    if await _ask("SELECT current_setting('transaction_read_only')") == "on":
        raise NotWellError(
            "the database is read-only, so no email is taken: see default_transaction_read_only in "
            "postgresql.conf, and ALTER DATABASE or ALTER ROLE that set it"
        )
    if await _ask("SELECT current_setting('fsync')") != "on":
        raise NotWellError(
            "fsync is off, so a crash loses accepted email: switch it on in PostgreSQL"
        )
    if await _ask("SELECT current_setting('synchronous_commit')") == "off":
        raise NotWellError(
            "synchronous_commit is off, so a crash of PostgreSQL loses accepted email: switch it "
            "on in postgresql.conf, or where ALTER DATABASE or ALTER ROLE switched it off"
        )
    through = "" if pooler is Pooler.NONE else ", through a pooler"
    return f"{name} {version // 10000} answers{through}"


async def _migrations(settings: Settings) -> str:
    state = await schema_state()
    if state.verdict != "current":
        raise NotWellError(state.explanation)
    await _try_to_write()
    return f"{state.explanation}, and emails can be written"


async def _broker(settings: Settings) -> str:
    await asyncio.to_thread(try_broker, settings, DB.url)
    scheme = broker_scheme(settings)
    if scheme == "postgresql":
        pooler = await find_pooler(can_write(settings.broker_url) or DB.url)
        if pooler is Pooler.TRANSACTIONS:
            raise NotWellError(
                "the job engine needs sessions, and its database is behind a pooler in transaction "
                "mode: let BROKER_URL lead past it, or to Redis or RabbitMQ"
            )
    return f"{scheme} answers"


async def _secrets(settings: Settings) -> str:
    if any(secret.secret == ZENDESK_PUBLIC_TEST_SECRET for secret in settings.webhook_secrets):
        raise NotWellError(
            "MAILROOM_WEBHOOK_SECRETS holds Zendesk's public test secret, which everybody knows: "
            "use the secret of your own webhook"
        )
    path = settings.home / FILE_NAME
    if path.exists() and path.stat().st_mode & 0o077:
        raise NotWellError(f"{path} can be read by others: run `chmod 600 {path}`")
    labels = ", ".join(secret.label for secret in settings.webhook_secrets)
    origin = "from the settings" if settings.is_production else "for development"
    return f"{len(settings.webhook_secrets)} webhook secret(s) {origin}: {labels}"


async def _handler(settings: Settings) -> str:
    load_handler(settings.handler, threads=1)
    return f"{settings.handler} can be loaded"


async def _clock(settings: Settings) -> str:
    theirs = await _ask("SELECT clock_timestamp()")
    difference = abs((datetime.now(UTC) - theirs).total_seconds())
    if difference > MOST_CLOCK_DIFFERENCE_SECONDS:
        raise NotWellError(
            f"this clock and the database's differ by {difference:.0f} seconds: let both be set "
            "by NTP"
        )
    return "this clock and the database's agree"


async def _disk(settings: Settings) -> str:
    folder = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES and DB.embedded:
        raise NotWellError(
            f"{free // 1024**2} MiB are free for the embedded database in {settings.home}: make "
            "room, or move MAILROOM_HOME"
        )
    return f"{free // 1024**3} GiB are free in {folder}"


async def _processing(settings: Settings) -> str:
    connection = await DB.get_new_connection()
    try:
        pause = await pausing.find(connection)
    finally:
        await connection.close()
    if pause is not None:
        raise NotWellError(
            f"paused since {pause.since:%Y-%m-%d %H:%M} by {pause.who}: {pause.reason}. Once that "
            "is over: `mailroom resume`"
        )
    return "not paused"


async def _try_to_write() -> None:
    """Write an email, and take it back.

    Raises:
        NotWellError: the database does not take it; the message says why.
    """
    connection = await DB.get_new_connection()
    try:
        trying = connection.transaction()
        await trying.start()
        await connection.execute("INSERT INTO incoming_emails (from_email) VALUES ('doctor')")
        await trying.rollback()
    except asyncpg.PostgresError as error:
        raise NotWellError(
            f"emails cannot be written ({type(error).__name__}: {error}): mend that in PostgreSQL"
        ) from error
    finally:
        await connection.close()


async def _does_database_answer() -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return bool(await _ask("SELECT true"))
    except (*CANNOT_ASK, MailroomError):
        return False


async def _ask(query: str) -> Any:
    connection = await DB.get_new_connection()
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def _files(settings: Settings) -> str:
    if settings.attachments == "off":
        return "the files of emails are not fetched: MAILROOM_ATTACHMENTS is off"
    if settings.clamd:
        await VirusCheck(settings.clamd).try_out()
    store = AttachmentStore.from_url(settings.attachment_store_url)
    await store.try_out()
    if not settings.attachment_store:
        return (
            "the store in MAILROOM_HOME takes files, for processes of this machine; others need "
            "MAILROOM_ATTACHMENT_STORE"
        )
    return "the store takes files and gives them back"
