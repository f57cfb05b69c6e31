"""Fills the table with emails that ended long ago, as fast as PostgreSQL inserts them."""

import threading

import psycopg

from benchmarks.payloads import make_email

TEXTS = 1_000
PIECE = 20_000
CONNECTIONS = 2

# Texts that compress as words do, and that are not all the same.
MAKE_TEXTS = "CREATE UNLOGGED TABLE IF NOT EXISTS texts (text int PRIMARY KEY, body text)"
ADD_TEXT = "INSERT INTO texts VALUES (%s, %s) ON CONFLICT (text) DO UPDATE SET body = excluded.body"

# The email numbered n ended so many seconds before now; ids rise with time, as the Intake's do. One
# in ten has a file, and an entry in its history.
FILL = """
WITH numbered AS (
    SELECT n, ended_at, (lpad(to_hex((extract(epoch FROM ended_at) * 1000)::bigint), 12, '0')
        || '7' || substr(md5(n || %(run)s), 1, 3) || '8' || substr(md5(n || %(run)s), 4, 15)
    )::uuid AS id, md5(n || %(run)s) || md5(%(run)s || n) AS hash
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
    CROSS JOIN LATERAL (
        SELECT now() - interval '1 second' * (
            %(oldest)s + (%(youngest)s - %(oldest)s)::float8 * n / %(total)s) AS ended_at
    ) AS moment
),
emails AS (
    INSERT INTO incoming_emails (
        id, zendesk_ticket_id, zendesk_webhook_id, from_email, from_name, subject, raw_body_text,
        cleaned_body, extracted_data, raw_payload, idempotency_key, delivery_signature,
        processing_status, received_at, created_at, updated_at, queued_at, started_at, completed_at,
        processed_at, claims
    )
    SELECT id, (n %% 300000)::text, n::text, 'person-' || n %% 50000 || '@example.com',
        'Erika Mustermann', 'Wo bleibt mein Päckchen ' || n || '?', n || body, body,
        '{"order": 4711}', json_build_object('ticket_id', n, 'body_text', n || body), hash,
        substr(hash, 1, 43) || '=', 'completed', ended_at, ended_at, ended_at, ended_at, ended_at,
        ended_at, ended_at, 1
    FROM numbered JOIN texts ON text = n %% %(texts)s
    ORDER BY n
),
files AS (
    INSERT INTO email_attachments (email, url, state, size, sha256, storage_key, ended_at)
    SELECT id, 'https://example.com/' || n, 'kept', 1000, hash, hash, ended_at
    FROM numbered WHERE n %% 10 = 0
)
INSERT INTO email_events (email, at, kind, text)
SELECT id, ended_at, 'delivery', 'delivered' FROM numbered WHERE n %% 10 = 0
"""


def fill(database_url: str, count: int, *, run: str, size: int, oldest: int, youngest: int) -> None:
    """Insert emails of about so many bytes of JSON, which ended between so many seconds ago.

    Args:
        run: tells their keys from those of other calls.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(MAKE_TEXTS)
        with connection.cursor() as cursor:
            cursor.executemany(
                ADD_TEXT, [(n, make_email(n, size)["body_text"]) for n in range(TEXTS)]
            )
    pieces = iter(range(0, count, PIECE))
    lock = threading.Lock()
    errors: list[Exception] = []

    def work() -> None:
        values = {
            "run": run,
            "total": count,
            "texts": TEXTS,
            "oldest": oldest,
            "youngest": youngest,
        }
        try:
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute("SET synchronous_commit = off")
                while True:
                    with lock:
                        first = next(pieces, None)
                    if first is None:
                        return
                    last = min(first + PIECE, count) - 1
                    connection.execute(FILL, {**values, "first": first, "last": last})
        except Exception as error:  # noqa: BLE001 - told by the one who waits
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
