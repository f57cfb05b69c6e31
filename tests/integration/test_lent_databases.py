"""The tests' databases: what is left of a test decides whether the next one gets its database."""

import psycopg
from databases import Databases

WHICH = "SELECT oid FROM pg_database WHERE datname = current_database()"
INSERT = "INSERT INTO incoming_emails (from_email) VALUES ('erika@example.com')"


def used(databases: Databases, *statements: str) -> object:
    """Have a test use a database so. Returns which one it was."""
    url = databases.create(migrated=True)
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT FROM incoming_emails").fetchall() == []
        for statement in statements:
            connection.execute(statement)
        which = connection.execute(WHICH).fetchone()
    databases.drop(url)
    return which


def test_one_in_which_only_rows_are_left_is_emptied_and_lent_again(databases: Databases) -> None:
    assert used(databases, INSERT) == used(databases)


def test_one_whose_schema_or_statistics_changed_is_not(databases: Databases) -> None:
    for change in ("CREATE INDEX ON incoming_emails (updated_at)", "ANALYZE incoming_emails"):
        assert used(databases, INSERT, change) != used(databases)


def test_nothing_changes_by_itself_what_the_copies_are_compared_with(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SHOW autovacuum").fetchone() == ("off",)
