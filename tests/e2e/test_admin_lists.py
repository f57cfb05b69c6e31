"""Lists of Piccolo Admin: what they read of the emails, and how many."""

from collections.abc import Iterator

import httpx
import psycopg
import pytest
from databases import Databases
from support import Services, create_operators, sign_in

from app.desk.admin_tables import EMAILS as EMAILS_TABLE

Connection = psycopg.Connection[tuple[object, ...]]

EMAILS = "/admin/api/tables/incoming_emails/"
BODY_BYTES = 200_000
ROWS = 300


@pytest.fixture(scope="module")
def web(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    url = databases.create(migrated=True)
    running = Services(url, tmp_path_factory.mktemp("web"))
    create_operators(running)
    running.start_web()
    yield running
    running.end()
    databases.drop(url)


@pytest.fixture(scope="module")
def operator(web: Services) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.url, timeout=120) as client:
        sign_in(client, "olga").raise_for_status()
        yield client


@pytest.fixture
def emails(web: Services) -> Iterator[Connection]:
    """A connection to a database without emails."""
    with psycopg.connect(web.environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("TRUNCATE incoming_emails")
        yield connection


def store_large(emails: Connection) -> None:
    emails.execute(
        "INSERT INTO incoming_emails (id, zendesk_ticket_id, from_email, subject, raw_body_html,"
        " raw_body_text, cleaned_body, received_at)"
        " SELECT gen_random_uuid(), n::text, 'erika@example.com', 'Päckchen ' || n,"
        " repeat('a', %(size)s), repeat('b', %(size)s), repeat('c', %(size)s), now()"
        " FROM generate_series(1, %(rows)s) AS n",
        {"size": BODY_BYTES, "rows": ROWS},
    )


def test_a_list_reads_what_its_page_shows_and_a_single_email_all(
    operator: httpx.Client, emails: Connection
) -> None:
    store_large(emails)
    visible = {*EMAILS_TABLE.get_visible_column_names()}
    for query in (
        "",
        "?__page_size=1000",
        "?__readable=true&__page_size=100&__page=2&__order=-received_at",
        "?subject=P%C3%A4ckchen&__page_size=1000",
        "?__page_size=1000&subject=P%C3%A4ckchen%2010",
    ):
        answer = operator.get(EMAILS + query)
        assert answer.is_success, answer.text
        rows = answer.json()["rows"]
        assert rows, query
        assert all(row.keys() == visible for row in rows), query
        # One body is larger.
        assert len(answer.content) < BODY_BYTES
    chosen = operator.get(f"{EMAILS}?__page_size=1000&__visible_fields=id,claims,completed_at")
    assert len(chosen.json()["rows"]) == ROWS
    assert chosen.json()["rows"][0].keys() == {"id", "claims", "completed_at"}
    single = operator.get(f"{EMAILS}{rows[0]['id']}/").json()
    assert len(single["raw_body_html"]) == BODY_BYTES


def test_bodies_are_not_listed_for_who_asks_for_them(operator: httpx.Client) -> None:
    for query in (
        "__visible_fields=id,raw_body_html",
        "__visible_fields[]=id&__visible_fields[]=raw_body_text",
        "__visible_fields=id&__visible_fields=cleaned_body",
        "%5F_visible_fields=raw_payload",
        "__visible_fields=extracted_data,attempt_errors",
    ):
        answer = operator.get(f"{EMAILS}?{query}")
        assert answer.status_code == 400, query
        assert answer.headers["content-type"] == "application/problem+json"
        assert "no list has it" in answer.json()["detail"]


def test_a_page_and_a_list_of_ids_are_bounded(operator: httpx.Client, emails: Connection) -> None:
    emails.execute(
        "INSERT INTO incoming_emails (id, zendesk_ticket_id, from_email, subject, received_at)"
        " SELECT gen_random_uuid(), '1', '', '', now() FROM generate_series(1, 1001)"
    )
    assert operator.get(f"{EMAILS}?__page_size=1001").status_code == 403
    for query in ("", "?limit=5000", "?search=0", "?limit=1&limit=99999999999999999999"):
        assert len(operator.get(f"{EMAILS}ids/{query}").json()) <= 1_000, query
    assert len(operator.get(f"{EMAILS}ids/?limit=3").json()) == 3
    assert operator.get(f"{EMAILS}ids/?limit=x").status_code == 422
    assert operator.get(f"{EMAILS}?__page_size=-1").status_code == 400


def test_users_are_listed_as_before(web: Services) -> None:
    with httpx.Client(base_url=web.url, timeout=120) as ada:
        sign_in(ada, "ada").raise_for_status()
        (row, _) = ada.get("/admin/api/tables/piccolo_user/").json()["rows"]
    assert {"id", "username", "email", "active", "admin", "superuser", "last_login"} <= row.keys()
    assert "password" not in row
