"""Each number of the overview is that of the list to which it leads."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import lxml.html
import psycopg
from support import Services, create_operators, sign_in

TABLES = "/admin/api/tables"

# Among the errors of the last day one begins like another, some differ by their case, some have
# more lines, are long, hold wildcards of LIKE, or are none.
SAMPLE = r"""
INSERT INTO workers (name, threads, started_at, seen_at) VALUES ('mail-1:7', 4, now(), now());
INSERT INTO incoming_emails (
    from_email, processing_status, processing_error, created_at, started_at, processed_at,
    completed_at, claimed_by
)
SELECT 'erika@example.com', state, error, now() - came, now() - ended - interval '2 s',
    now() - ended, now() - ended, 'mail-1:7'
FROM (
    VALUES ('received', NULL, interval '3 min', NULL), ('queued', NULL, '4 min', NULL),
        ('processing', NULL, '5 min', NULL), ('completed', NULL, '30 min', interval '20 min'),
        ('completed', NULL, '2 h', '90 min'), ('completed', NULL, '3 days', '2 days'),
        ('failed', 'no text', '50 min', '40 min'), ('failed', 'no text', '5 h', '5 h'),
        ('failed', 'no text', '3 days', '2 days'), ('failed', 'no text found', '5 h', '5 h'),
        ('failed', 'No text', '5 h', '5 h'), ('failed', E'no text\nat line 7', '5 h', '5 h'),
        ('failed', E'NO TEXT\nat line 8', '5 h', '5 h'), ('failed', '100% of a_b\', '5 h', '5 h'),
        ('failed', E'100% of a_b\\\nat line 9', '5 h', '5 h'), ('failed', '', '5 h', '5 h'),
        ('failed', NULL, '5 h', '5 h'), ('failed', repeat('x', 119), '5 h', '5 h'),
        ('failed', repeat('x', 120), '5 h', '5 h'), ('failed', repeat('x', 121), '5 h', '5 h')
) AS sample (state, error, came, ended)
"""
FAILURES = {
    ("no text", 2),
    ("No text", 1),
    ("NO TEXT", 2),
    ("no text found", 1),
    ("100% of a_b\\", 1),
    ("no error was recorded", 2),
    ("x" * 119, 1),
    ("x" * 120, 2),
}


def test_each_number_of_the_overview_is_that_of_the_list_behind_it(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    connection.execute(SAMPLE)
    create_operators(services)
    services.start_web()
    with httpx.Client(base_url=services.url) as client:
        sign_in(client, "olga").raise_for_status()
        page = lxml.html.fromstring(client.get("/overview/figures").text)
        links = [(link, urlsplit(urlsplit(link.get("href")).fragment)) for link in page.iter("a")]
        lists = [(link, address) for link, address in links if address.query]
        for link, address in lists:
            counted = client.get(
                f"{TABLES}{address.path}count/", params=parse_qsl(address.query)
            ).json()["count"]
            assert number(link) == told(link, counted), address.query
        for _, address in links:
            if not address.query:
                client.get(f"{TABLES}{address.path}").raise_for_status()
    rows = page.xpath("//section[h2[starts-with(., 'Failures')]]//tbody/tr")
    failures = [(row[0].text_content(), int(row[1].text_content())) for row in rows]
    assert set(failures) == FAILURES
    # Four states, those completed, two rates of two spans, a worker, all failures but one.
    assert len(lists) == 4 + 1 + 2 * 2 + 1 + len(failures) - 1


def number(link: Any) -> str:
    text: str = link.text_content()
    return text.rpartition(": ")[2] if ": " in text else text.split()[0]


def told(link: Any, counted: int) -> str:
    """A count as its link tells it: itself, or how many those are a minute."""
    if ": " not in link.text_content():
        return str(counted)
    span = link.xpath("string(ancestor::section/h2)")
    return f"{counted / (60 if span.endswith('hour') else 24 * 60):.1f}"
