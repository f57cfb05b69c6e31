"""The schema comes, and goes again, while both versions take email and work it off. The long form:

pytest -n 0 tests/e2e/test_upgrade.py --upgrade-rows 1000000
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row
from support import PROJECT, Services, is_success, wait_until
from versions import Versions, posting

pytestmark = pytest.mark.long

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"

# With so many rows it is a matter of the schema's changes how long they block a webhook, and with
# fewer one of the machine.
MANY = 100_000
LONGEST_BLOCKED_SECONDS = 1.0
LONGEST_DRAIN_SECONDS = 600
EMAILS = 60
FILL = """
INSERT INTO incoming_emails (
    id, zendesk_ticket_id, from_email, subject, raw_body_text, cleaned_body, extracted_data,
    raw_payload, idempotency_key, processing_status, received_at, queued_at, started_at,
    completed_at, claims
)
SELECT gen_random_uuid(), 'before', 'person-' || n %% 50000 || '@example.com', 'Paket ' || n,
    repeat(md5(n::text) || ' ', 20), repeat(md5(n::text) || ' ', 20), '{"order": 4711}',
    json_build_object('ticket_id', n), md5(n::text), 'completed', at, at, at, at, 1
FROM generate_series(1, %s) AS n CROSS JOIN LATERAL (
    SELECT now() - n * interval '1 second' AS at
) AS moment
"""
# Of what both versions know.
DIGEST = """
SELECT count(*), sum(hashtextextended(concat_ws(
    '|', id, from_email, subject, raw_body_text, cleaned_body, extracted_data, raw_payload,
    idempotency_key, processing_status, received_at, completed_at, claims, retry_count
), 0))
FROM incoming_emails WHERE zendesk_ticket_id = 'before'
"""
# `RowExclusiveLock` is what an INSERT asks for.
BLOCKED = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8 FROM pg_locks
WHERE NOT granted AND mode = 'RowExclusiveLock' AND relation = to_regclass('incoming_emails')
"""
RAN = "SELECT name FROM migration WHERE app_name = 'mailroom' ORDER BY name"
ROWS = """
SELECT id::text, processing_status, claims, retry_count FROM incoming_emails
WHERE zendesk_ticket_id <> 'before'
"""


@pytest.mark.timeout(7200)
def test_both_versions_take_email_while_the_schema_comes_and_goes(
    empty_database_url: str,
    tmp_path: Path,
    older: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    count = request.config.option.upgrade_rows
    services = Services(empty_database_url, tmp_path)
    services.environment["PICCOLO_CONF"] = "piccolo_conf"
    versions = Versions(services, older)
    # A worker that falls behind must not be sent the same emails ever more often.
    services.environment["MAILROOM_MESSAGE_LOST_SECONDS"] = "10"
    migrated = services.run("mailroom", "migrate", **versions.older_environment)
    assert migrated.returncode == 0, migrated.stderr
    with psycopg.connect(empty_database_url, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(FILL, [count])
        before = connection.execute(DIGEST).fetchone()
        known = len(connection.execute(RAN).fetchall())
        try:
            versions.start_older()
            newer = versions.start_newer()
            # It says what is missing, and takes nothing that it could not store.
            ready = httpx.get(f"{services.url}/health/ready")
            assert ready.status_code == 503
            assert "run `mailroom migrate`" in ready.json()["checks"]["migrations"]
            with (
                posting(versions.older_url, services.url, repeats=True) as (targets, answers),
                Pauses(answers, empty_database_url) as pauses,
            ):
                pauses.have("usual", lambda: wait_until(lambda: len(answers) > EMAILS))
                pauses.have("forwards", lambda: run(services, "mailroom", "migrate"))
                wait_until(lambda: is_success(f"{services.url}/health/ready"), services.log)
                assert connection.execute(DIGEST).fetchone() == before
                wait_until(lambda: all(versions.runs()[v] for v in ("older", "newer")))
                for process in newer:
                    process.send_signal(signal.SIGTERM)
                    process.wait()
                targets.remove(services.url)
                first = str(connection.execute(RAN).fetchall()[known]["name"])
                back = ("piccolo", "migrations", "backwards", "mailroom", first, "--auto_agree")
                newest = {"PYTHONPATH": f"{PROJECT}:{services.environment['PYTHONPATH']}"}
                pauses.have("backwards", lambda: run(services, *back, **newest))
                assert len(connection.execute(RAN).fetchall()) == known
                taken = len(answers)
                wait_until(lambda: len(answers) > taken + EMAILS, services.log)
            record_property(f"upgrade of {count} emails", str(pauses))
            check(versions, connection, answers)
            assert connection.execute(DIGEST).fetchone() == before
            assert count < MANY or pauses.longest_blocked <= LONGEST_BLOCKED_SECONDS
        finally:
            services.end()


class Pauses:
    """How long webhooks were waited for, by what was done meanwhile; and for how long of that a
    statement that changes the schema kept them from their table."""

    def __init__(self, answers: list[httpx.Response], url: str) -> None:
        self._answers = answers
        self._url = url
        self._told: list[str] = []
        self._is_over = threading.Event()
        self._watching = threading.Thread(target=self._watch)
        self._blocked = 0.0
        self.longest_blocked = 0.0

    def __enter__(self) -> "Pauses":
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._watching.join()

    def have(self, what: str, work: Callable[[], object]) -> None:
        """Do some work, beside which webhooks are stored."""
        first, began, self._blocked = len(self._answers), time.monotonic(), 0.0
        work()
        seconds = time.monotonic() - began
        # The one that is waited for is another.
        wait_until(lambda: len(self._answers) > first + 1)
        longest = max(answer.elapsed.total_seconds() for answer in self._answers[first:])
        self.longest_blocked = max(self.longest_blocked, self._blocked)
        self._told.append(
            f"{what}: {seconds:.1f} s, {len(self._answers) - first} webhooks, longest"
            f" {longest:.3f} s, longest blocked {self._blocked:.3f} s"
        )

    def __str__(self) -> str:
        return "; ".join(self._told)

    def _watch(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._is_over.wait(0.01):
                row = connection.execute(BLOCKED).fetchone()
                self._blocked = max(self._blocked, row[0] if row else 0.0)


def run(services: Services, *command: str, **environment: str) -> None:
    ended = services.run(*command, **environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def check(versions: Versions, connection: Connection, answers: list[httpx.Response]) -> None:
    """All that was accepted is there, each once, and was worked off once."""
    assert {answer.status_code for answer in answers} == {200}
    wait_until(
        lambda: {row["processing_status"] for row in connection.execute(ROWS)} == {"completed"},
        versions.services.log,
        seconds=LONGEST_DRAIN_SECONDS,
    )
    found = connection.execute(ROWS).fetchall()
    assert Counter(row["id"] for row in found) == Counter(
        answer.json()["email_id"] for answer in answers
    )
    assert Counter((row["claims"], row["retry_count"]) for row in found) == {(1, 0): len(found)}
    handled = [email_id for ids in versions.runs().values() for email_id in ids]
    assert Counter(handled) == Counter(row["id"] for row in found)
