"""`mailroom demo`: the whole of it with the embedded PostgreSQL, and what is left when all of it is
killed."""

import contextlib
import re
from pathlib import Path

import psutil
import psycopg
from support import WAIT_SECONDS, Services, free_port, wait_until

from app.database.embedded.server import EmbeddedPostgres


def number(table: str, row: str) -> int:
    found = re.search(rf"│ {row} +│ (\d+) +│", table)
    assert found is not None, table
    return int(found[1])


def test_the_demo_completes_every_email_on_a_fresh_home(services: Services, tmp_path: Path) -> None:
    ended = services.run("mailroom", "demo", DATABASE_URL="", MAILROOM_HOME=str(tmp_path / "h"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert number(ended.stdout, "accepted") == 25
    assert number(ended.stdout, "completed") == 25
    assert number(ended.stdout, "failed") == 0
    assert number(ended.stdout, "duplicates") > 0
    for row in ("accept time", "accepted to completed"):
        for kind in ("median", "99th percentile"):
            assert re.search(rf"│ {row}, {kind} +│ [\d,]+ ms +│", ended.stdout)
    assert "Where to look next" in ended.stdout
    assert not (tmp_path / "h" / "postgres" / "postmaster.pid").exists()


def test_the_demo_fails_where_an_email_fails(services: Services) -> None:
    services.write_handler(
        "from app.handlers.seam import PermanentFailure\n"
        "async def handle(email):\n"
        "    if email.zendesk_ticket_id.endswith('1'):\n"
        "        raise PermanentFailure('this one')\n"
    )
    ended = services.run("mailroom", "demo", "--count", "60")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    failed = number(ended.stdout, "failed")
    assert failed > 0
    assert number(ended.stdout, "completed") == 60 - failed


def test_after_kill_9_of_every_process_up_completes_what_was_accepted(
    services: Services, tmp_path: Path
) -> None:
    home = tmp_path / "h"
    services.write_handler(
        "import asyncio\n"
        "from pathlib import Path\n"
        "async def handle(email):\n"
        "    while email.zendesk_ticket_id[-1] in '123' and not Path('go').exists():\n"
        "        await asyncio.sleep(0.02)\n"
    )
    services.environment |= {
        "DATABASE_URL": "",
        "MAILROOM_WORKER_CONCURRENCY": "4",
        "MAILROOM_HOME": str(home),
        "MAILROOM_LEASE_SECONDS": "3",
        "MAILROOM_MESSAGE_LOST_SECONDS": "3",
        # A machine under load may lose claims to so short a lease.
        "MAILROOM_MAX_LOST_CLAIMS": "50",
    }
    server = EmbeddedPostgres(home)
    demo = services.start("mailroom", "demo", "--count", "500", "--keep")
    wait_until(lambda: count(server.url, "processing") == 4, services.log)
    kill_every_process_of(home, demo.pid)
    (services.folder / "go").touch()
    services.environment["MAILROOM_PORT"] = str(free_port())
    services.start("mailroom", "up")
    wait_until(lambda: count(server.url, "completed") >= 4, services.log)
    wait_until(lambda: count(server.url, "completed") == count(server.url, None), services.log)


def count(url: str, state: str | None) -> int:
    """How many emails there are in a state, or in all; -1 while the database is away."""
    try:
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM incoming_emails"
                " WHERE processing_status = %(state)s OR %(state)s::text IS NULL",
                {"state": state},
            ).fetchone()
    except psycopg.Error:
        return -1
    assert row is not None
    found: int = row[0]
    return found


def kill_every_process_of(home: Path, pid: int) -> None:
    """The demo with its descendants, and the server, which is nobody's child."""
    demo = psutil.Process(pid)
    postmaster = psutil.Process(int((home / "postgres/postmaster.pid").read_text().split()[0]))
    family = [
        demo,
        *demo.children(recursive=True),
        postmaster,
        *postmaster.children(recursive=True),
    ]
    for process in family:
        # What lost its parent may have ended already.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=WAIT_SECONDS)
