"""Two versions side by side, as while one takes the place of the other, in both directions: all
emails are completed, and none is claimed twice.

The older version is a commit of this repository, run with the libraries of today's.
"""

import signal
from collections import Counter
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import psycopg
import pytest
from support import Services, wait_until
from versions import Versions, posting

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"

EMAILS = 120


def check(versions: Versions, connection: Connection, answers: list[httpx.Response]) -> None:
    """All that was posted gets to its end, by one claim and one run of the handler."""
    assert Counter(answer.status_code for answer in answers) == {200: len(answers)}

    def rows() -> list[dict[str, Any]]:
        return connection.execute(
            "SELECT id::text, processing_status, claims, retry_count FROM incoming_emails"
        ).fetchall()

    wait_until(
        lambda: {row["processing_status"] for row in rows()} == {"completed"},
        lambda: f"{Counter(row['processing_status'] for row in rows())} {versions.services.log()}",
    )
    found = rows()
    assert {row["id"] for row in found} == {answer.json()["email_id"] for answer in answers}
    assert Counter((row["claims"], row["retry_count"]) for row in found) == {(1, 0): len(answers)}
    handled = [email_id for ids in versions.runs().values() for email_id in ids]
    assert Counter(handled) == Counter(row["id"] for row in found)
    # What a worker does not understand would come again in a form that it does.
    assert "Failed to process" not in versions.services.log()


@pytest.mark.long
def test_the_schema_and_a_newer_version_come_while_the_older_one_takes_email(
    empty_database_url: str, tmp_path: Path, older: Path
) -> None:
    services = Services(empty_database_url, tmp_path)
    versions = Versions(services, older)
    migrated = services.run("mailroom", "migrate", **versions.older_environment)
    assert migrated.returncode == 0, migrated.stderr
    try:
        versions.start_older()
        with posting(versions.older_url) as (targets, answers):
            # Its worker has emails in hand.
            wait_until((tmp_path / "older").exists, services.log)
            accepted = len(answers)
            migrated = services.run("mailroom", "migrate")
            assert migrated.returncode == 0, migrated.stderr
            assert len(answers) > accepted
            versions.start_newer()
            targets.append(services.url)
            wait_until(lambda: has_enough(versions), services.log)
        with psycopg.connect(
            empty_database_url, autocommit=True, row_factory=psycopg.rows.dict_row
        ) as connection:
            check(versions, connection, answers)
    finally:
        services.end()


@pytest.mark.long
@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_an_older_version_takes_over_again(
    services: Services, connection: Connection, older: Path, broker_url: str
) -> None:
    services.environment["BROKER_URL"] = broker_url
    versions = Versions(services, older)
    newer = versions.start_newer()
    with posting(services.url) as (targets, answers):
        wait_until((services.folder / "newer").exists, services.log)
        # So that the worker is asked for many at once.
        wait_until(lambda: len(answers) > EMAILS / 2, services.log)
        versions.start_older()
        targets.append(versions.older_url)
        wait_until(lambda: has_enough(versions), services.log)
        targets.remove(services.url)
        accepted = len(answers)
        for process in newer:
            process.send_signal(signal.SIGTERM)
            process.wait()
        wait_until(lambda: len(answers) > accepted + EMAILS / 2, services.log)
    check(versions, connection, answers)


def has_enough(versions: Versions) -> bool:
    """Both have had emails beside each other. The faster one may leave few to the other."""
    runs = versions.runs()
    return all(runs[name] for name in ("older", "newer")) and sum(map(len, runs.values())) >= EMAILS
