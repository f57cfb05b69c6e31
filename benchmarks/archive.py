"""Fills a database with an archive as years of email leave one: a few common words and very many
rare ones, a few large senders and very many small ones, failures of few kinds.
"""

import random
from collections.abc import Iterator

import psycopg

WORDS = 30_000
PIECE = 20_000
SPAN_DAYS = 730
# What the first words of the vocabulary are: the others are made of syllables.
COMMON = (
    *("bestellung", "rechnung", "order", "invoice", "lieferung", "frage", "payment", "delivery"),
    *("problem", "anfrage", "kündigung", "return", "konto", "update", "termin", "support"),
    *("päckchen", "refund", "vertrag", "password", "angebot", "status", "adresse", "late"),
)
SYLLABLES = (
    *("ka", "re", "lo", "mi", "tan", "ber", "schu", "vel", "dor", "fing", "ha", "no", "pel", "ru"),
    *(
        "sa",
        "ti",
        "wen",
        "zur",
        "bla",
        "gri",
        "mä",
        "nö",
        "tü",
        "strom",
        "lich",
        "keit",
        "er",
        "en",
    ),
)

MAKE = """
CREATE UNLOGGED TABLE IF NOT EXISTS vocabulary (place int PRIMARY KEY, word text);
CREATE UNLOGGED TABLE IF NOT EXISTS causes (place int PRIMARY KEY, cause text);
"""
CAUSES = (
    "ConnectTimeout: the CRM did not answer in 10 s",
    "ReadTimeout: timed out while reading the answer of the CRM",
    "the CRM answered 503",
    "HTTPStatusError: the CRM answered 429 Too Many Requests",
    "ConnectionError: connection refused by crm.internal:8443",
    "PermanentError: there is no customer with this address",
    "ValueError: order number missing in the text",
    "KeyError: 'customer_id'",
    "TimeoutError: the handler ran longer than 60 s",
    "OutOfMemory: the attachment is too large to be read",
)

# Rare words are as rare as real ones: their place goes by the fourth power of a random number. One
# email in fifty is failed, one in six names a file, one delivery in a hundred was given up.
FILL = """
INSERT INTO incoming_emails (
    id, zendesk_ticket_id, from_email, from_name, subject, raw_body_text, cleaned_body,
    extracted_data, raw_payload, attachment_urls, processing_status, processing_error, received_at,
    created_at, updated_at, queued_at, started_at, completed_at, processed_at, claims, retry_count,
    sync_status
)
SELECT id, ticket, 'person' || person || '@' || domain, 'Person ' || person, subject, body, body,
    json_build_object('language', language, 'customer', json_build_object('tier', tier),
        'order', 100000 + n %% 900000),
    json_build_object('ticket_id', ticket, 'from_email', 'person' || person || '@' || domain),
    CASE WHEN n %% 6 = 0 THEN '[{"url": "https://example.com/a.pdf"}]'::json END,
    state, CASE WHEN state = 'failed' AND cause LIKE '%%503' THEN cause
        WHEN state = 'failed' THEN cause || ' [' || n || ']' END,
    at, at, at, at, at + interval '1 second', at + interval '2 seconds',
    at + interval '2 seconds', 1, CASE WHEN state = 'failed' THEN 4 ELSE 0 END,
    CASE WHEN n %% 100 = 7 THEN 'failed' ELSE 'synced' END
FROM (
    SELECT n, at, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
        || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid AS id,
        (n * 2 / 5 + 1000)::text AS ticket, person,
        CASE WHEN person %% 10 < 4 THEN (ARRAY['gmail.example', 'gmx.example', 'web.example',
            'outlook.example'])[person %% 4 + 1]
            ELSE 'company' || person %% 20000 || '.example' END AS domain,
        CASE WHEN n %% 50 = 3 THEN 'failed' ELSE 'completed' END AS state,
        CASE WHEN n %% 3 = 0 THEN 'Re: ' ELSE '' END || (
            SELECT string_agg(word, ' ') FROM (
                SELECT floor(%(words)s * power(random(), 4))::int AS place
                FROM generate_series(1, 3 + (n %% 5)::int)
            ) AS drawn JOIN vocabulary USING (place)
        ) || ' ' || n AS subject,
        'Good day, this is about ' || n || '. ' || md5(n::text) || md5((n + 1)::text) AS body,
        (ARRAY['de', 'de', 'de', 'en', 'en', 'fr'])[n %% 6 + 1] AS language,
        CASE WHEN n %% 200 = 0 THEN 'gold' ELSE 'plain' END AS tier, cause
    FROM (
        SELECT n, floor(500000 * power(random(), 3))::int AS person, now() - interval '1 day' * (
            %(days)s * (1 - n::float8 / %(total)s)) AS at
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
    ) AS numbered
    JOIN causes ON causes.place = (n / 50) %% %(causes)s
) AS made
ORDER BY n
"""

# As `app.search.words` makes them, but for words without their accents.
FILL_ENTRIES = r"""
INSERT INTO search_entries (email, received_at, ended_at, words)
SELECT id, received_at, completed_at,
    setweight(to_tsvector('simple', translate(subject, ':', ' ')), 'A')
    || setweight(to_tsvector('simple', from_name || ' ' || translate(from_email, '@.', '  ')), 'B')
    || setweight(to_tsvector('simple', zendesk_ticket_id), 'C')
    || setweight(to_tsvector('simple', translate(
        regexp_replace(COALESCE(processing_error, ''), '([a-z])([A-Z])', '\1 \2', 'g')
        || ' ' || split_part(COALESCE(processing_error, ''), ':', 1), ':.[]_', '     ')), 'D')
    || array_to_tsvector(array_remove(ARRAY[
        'at=' || split_part(from_email, '@', 2),
        CASE WHEN attachment_urls IS NOT NULL THEN 'has=attachment' END,
        'result=language=' || (extracted_data ->> 'language'),
        'result=customer.tier=' || (extracted_data #>> '{customer,tier}'),
        'result=order=' || (extracted_data ->> 'order')
    ], NULL))
FROM incoming_emails ORDER BY received_at
"""
INDEX = "ix_search_entries_words"
AFTERWARDS = (
    "INSERT INTO search_marks (id, stored_until, ended_until) VALUES (1, now(), now())"
    " ON CONFLICT (id) DO UPDATE SET stored_until = now(), ended_until = now(), older_than = NULL",
    "VACUUM ANALYZE search_entries",
    "VACUUM ANALYZE incoming_emails",
)


def vocabulary() -> Iterator[tuple[int, str]]:
    """Each word with its place, the commonest first; the same ones in each run."""
    chance = random.Random(1)
    seen = set(COMMON)
    yield from enumerate(COMMON)
    place = len(COMMON)
    while place < WORDS:
        word = "".join(chance.choices(SYLLABLES, k=chance.randint(2, 4)))
        if word not in seen:
            seen.add(word)
            yield place, word
            place += 1


def fill_archive(database_url: str, count: int) -> None:
    """Insert so many emails, received in two years, the oldest first."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(MAKE)
        with connection.cursor() as cursor:
            for table, rows in (("vocabulary", vocabulary()), ("causes", enumerate(CAUSES))):
                cursor.executemany(
                    f"INSERT INTO {table} VALUES (%s, %s) ON CONFLICT DO NOTHING",  # noqa: S608
                    [*rows],
                )
        connection.execute("SET synchronous_commit = off")
        values = {
            "words": WORDS, "days": SPAN_DAYS, "total": count, "causes": len(CAUSES)
        }  # fmt: skip
        for first in range(0, count, PIECE):
            last = min(first + PIECE, count) - 1
            connection.execute(FILL, {**values, "first": first, "last": last})
        connection.execute("DROP TABLE vocabulary, causes")


def fill_entries(database_url: str) -> None:
    """Insert the entry of each email of the archive; their index is built afterwards, as that is
    much faster."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute("SELECT pg_get_indexdef(%s::regclass)", [INDEX]).fetchone()
        connection.execute(f"DROP INDEX {INDEX}")
        connection.execute("SET synchronous_commit = off; SET maintenance_work_mem = '1GB'")
        connection.execute(FILL_ENTRIES)
        if row is not None:
            connection.execute(row[0])
        for statement in AFTERWARDS:
            connection.execute(statement)
