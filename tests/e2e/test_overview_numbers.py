"""Each number of the overview is that of the list to which it leads."""

import httpx
import lxml.html
import psycopg
from support import Services, create_operators, enter

# Among the errors of the last day one begins like another, some differ by their case, some have
# more lines, are long, hold wildcards of LIKE, ids, long numbers or quotation marks, or are none.
SAMPLE = r"""
INSERT INTO workers (name, threads, started_at, seen_at) VALUES ('mail-1:7', 4, now(), now());
INSERT INTO sync_events (kind, email, sync_status)
    SELECT 'email.erased', gen_random_uuid(), unnest(ARRAY['pending', 'pending', 'failed']);
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
        ('failed', repeat('x', 120), '5 h', '5 h'), ('failed', repeat('x', 121), '5 h', '5 h'),
        ('failed', 'ticket 35436 of 019abc12-7f00-7000-8000-0123456789ab: 503', '5 h', '5 h'),
        ('failed', 'ticket 35437 of 019abc12-7f00-7000-8000-0123456789ac: 503', '5 h', '5 h'),
        ('failed', 'ticket 35437 of 019abc12-7f00-7000-8000-0123456789ac: 404', '5 h', '5 h'),
        ('failed', 'no field "name"', '5 h', '5 h')
) AS sample (state, error, came, ended)
"""
FAILURES = {
    ("no text", 3),
    ("No text", 1),
    ("NO TEXT", 1),
    ("no text found", 1),
    ("100% of a_b\\", 2),
    ("no error was recorded", 2),
    ("no field 'name'", 1),
    ("x" * 120, 2),
    ("ticket # of #: 503", 2),
    ("ticket # of #: 404", 1),
}


def test_each_number_of_the_overview_is_that_of_the_list_behind_it(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    connection.execute(SAMPLE)
    create_operators(services)
    services.start_web()
    with httpx.Client(base_url=services.url, timeout=60) as client:
        enter(client, services)
        answer = client.get("/")
        assert answer.status_code == 200, answer.text
        page = lxml.html.fromstring(answer.text).get_element_by_id("figures")
        told = "the receiver is to be told of 2, and could not be told of 1 (mailroom reconcile)"
        assert told in page.text_content()
        lists = [link for link in page.iter("a") if "?q=" in link.get("href")]
        for link in lists:
            found = lxml.html.fromstring(client.get(link.get("href")).text)
            rows = found.xpath("count(//table[@id='rows']/tbody/tr)")
            assert int(link.text_content().split()[0]) == rows, link.get("href")
        for link in page.iter("a"):
            # All of it is the desk's, and there.
            assert not link.get("href").startswith("/admin"), link.get("href")
            client.get(link.get("href")).raise_for_status()
    rows = page.xpath(".//section[h2[starts-with(., 'Failures')]]//tbody/tr")
    failures = [(row[0].text_content(), int(row[-1].text_content())) for row in rows]
    # The ten that are most.
    assert set(failures) == FAILURES
    assert len(lists) == 4 + 1 + len(failures)
    # What came and what ended in this hour, the current minute too.
    legend = page.xpath(".//section[h2='Emails in an hour']/p[@class='legend']")[0].text_content()
    assert "accepted 5" in legend
    assert "completed 1" in legend
    assert "failed 1" in legend
