"""Which language a page is told in, and how numbers and times are written in it."""

import contextvars
import html
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from support import PROJECT

from app.desk.admin_page import with_ours
from app.desk.language import preferred_language
from app.durations import in_words
from app.i18n.formats import decimal, moment, number
from app.i18n.languages import LANGUAGES, speak, spoken
from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext, ngettext
from app.intake.json_body import read_json_object
from app.intake.payload import check_payload
from app.intake.refused import RefusedError
from app.jobs.leases import LEASE_NOT_EXTENDED
from app.jobs.outcome import CANCELLED
from app.jobs.transitions.ending import STOPPED
from app.jobs.transitions.keeping import MESSAGE_LOST
from app.sync.claims import VANISHED
from app.zendesk.suspended.watch import MEND, NO_ROOM_TROUBLE
from app.zendesk.verdict import WORDS

AT = datetime(2026, 11, 3, 14, 5, 9, tzinfo=UTC)
Told = TypeVar("Told")


def refusal_of(body: str) -> Any:
    try:
        check_payload(read_json_object(body.encode()).fields)
    except RefusedError as error:
        return error
    raise AssertionError(body)


def in_language(language: str, tell: Callable[[], Told]) -> Told:
    def told() -> Told:
        speak(language)
        return tell()

    return contextvars.copy_context().run(told)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("en-US,en;q=0.9,de;q=0.8", "en"),
        ("fr,de;q=0.5,en;q=0.4", "de"),
        ("en;q=0.2, de;q=0.7", "de"),
        ("fr", "en"),
        ("*", "en"),
        ("de;q=0", "en"),
        ("de;q=nonsense", "en"),
        ("de;level=1", "de"),
        ("DE", "de"),
        (",,;q=,de-", "de"),
        ("x," * 10_000 + "de", "en"),
    ],
)
def test_the_language_is_the_first_that_the_browser_asks_for_and_there_is(
    header: str, language: str
) -> None:
    assert preferred_language(header) == language


def test_numbers_and_times_are_written_as_in_the_language() -> None:
    assert number(1_234_567) == "1,234,567"
    assert in_language("de", lambda: number(1_234_567)) == "1.234.567"
    assert decimal(1.25, 1) == "1.2"
    assert in_language("de", lambda: decimal(12.5, 1)) == "12,5"
    assert moment(AT) == "2026-11-03 14:05"
    assert moment(AT, seconds=True) == "2026-11-03 14:05:09"
    assert in_language("de", lambda: moment(AT)) == "03.11.2026, 14:05"
    assert in_language("de", lambda: moment(AT, seconds=True)) == "03.11.2026, 14:05:09"
    assert in_words(timedelta(seconds=1.5)) == "1.5 s"
    assert in_language("de", lambda: in_words(timedelta(seconds=1.5))) == "1,5 s"


def test_a_text_has_its_values_and_its_number() -> None:
    assert in_language("de", lambda: gettext("Sign out")) == "Abmelden"
    assert gettext("%(part)s of %(whole)s", part=1, whole=2) == "1 of 2"
    assert ngettext("%(num)s email", "%(num)s emails", 1) == "1 email"
    assert ngettext("%(num)s email", "%(num)s emails", 1_234) == "1,234 emails"
    assert in_language("de", lambda: gettext("nobody translates this")) == "nobody translates this"


def test_a_language_is_spoken_where_it_was_chosen_and_nowhere_else() -> None:
    assert in_language("de", spoken) == "de"
    assert spoken() == "en"


@pytest.mark.parametrize(
    ("stored", "german"),
    [
        ("retried by olga", "erneut versucht von olga"),
        ("completed by user:7: done: by phone", "abgeschlossen von user:7: done: by phone"),
        (CANCELLED, "der Handler wurde abgebrochen"),
        (MESSAGE_LOST, "ihre Nachricht ging verloren"),
        (STOPPED, "unversucht zurückgegeben: ihr Worker hielt an"),
        (
            LEASE_NOT_EXTENDED,
            "zurückgegeben: ihr Worker erreichte die Datenbank nicht, um sie länger zu halten",
        ),
        (VANISHED, "der Worker, der sie zustellte, verschwand"),
        ("the CRM answered 503", "the CRM answered 503"),
        ("retried by olga %(who)s 5%", "erneut versucht von olga %(who)s 5%"),
        (
            "no email came for 3 h, in which 12 usually come: Mailroom does not know why: see at "
            "Zendesk that the webhook and its trigger are active",
            "seit 3 h kam keine E-Mail, üblich sind in dieser Zeit 12: Mailroom weiß nicht, warum: "
            "prüfen Sie bei Zendesk, dass der Webhook und sein Trigger aktiv sind",
        ),
        (
            "from_email: is missing: it has to be sent with a value; ticket_id: has to be a string "
            "or a number, not a list",
            "from_email: fehlt: es muss mit einem Wert gesendet werden; ticket_id: muss Text oder "
            "eine Zahl sein, nicht eine Liste",
        ),
        ("1,200 emails indexed", "1,200 E-Mails indiziert"),
        (
            "at the texts of failed emails now; removed: 1,200 completed emails, 3 bulk actions, "
            "7 texts of completed emails",
            "jetzt bei: Texte fehlgeschlagener E-Mails; entfernt: 1,200 abgeschlossene E-Mails, "
            "3 Sammelaktionen, 7 Texte abgeschlossener E-Mails",
        ),
        ("ended between; removed: nothing", "zwischendrin beendet; entfernt: nichts"),
        (
            "12 are suspended, 3 recovered, 1 without an id, left out",
            "12 sind gesperrt, 3 wiederhergestellt, 1 ohne Id, ausgelassen",
        ),
        ("waits until 14:05:09 UTC: too many", "wartet bis 14:05:09 UTC: too many"),
        (
            "the webhook at http://localhost:8000 answers 503, so emails are not accepted",
            "der Webhook unter http://localhost:8000 antwortet 503, also werden keine E-Mails "
            "angenommen",
        ),
        ("its message was lost" * 100, "its message was lost" * 100),
    ],
)
def test_what_transitions_wrote_is_told_in_the_language(stored: str, german: str) -> None:
    assert as_told(stored) == stored
    assert in_language("de", lambda: as_told(stored)) == german


@pytest.mark.parametrize(
    "stored",
    [
        *(text for words in WORDS.values() for text in words),
        *(NO_ROOM_TROUBLE.text, NO_ROOM_TROUBLE.mend, MEND),
        *(error.message for error in refusal_of("{}").errors),
        *map(str, map(refusal_of, ("", "[1]", "{'a'}", '{"ticket_id": [1, 2], "from_email": 7}'))),
    ],
)
def test_what_is_stored_and_told_to_programs_is_known(stored: str) -> None:
    assert in_language("de", lambda: as_told(stored)) != stored


def test_who_speaks_english_loads_no_babel() -> None:
    command = "import sys, app.cli.main, app.jobs.story; assert 'babel' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], check=True, cwd=PROJECT, timeout=120)


def test_piccolo_admin_is_given_its_link_in_each_language() -> None:
    page = html.unescape(with_ours("<head></head><body></body>", read_only=[]))
    texts = json.loads(page.partition('data-way="')[2].partition('"></script>')[0])
    assert set(texts) == set(LANGUAGES)
    assert texts["de"] == "Am Desk öffnen"


def test_a_catalogue_is_read_beside_the_event_loop() -> None:
    # In a process of its own, which has read none yet.
    script = """
import asyncio, pathlib, threading
from litestar.testing import RequestFactory
from app.desk.language import choose_language
from app.i18n.languages import spoken
from app.i18n.texts import gettext

asking = RequestFactory().get("/", headers={"Accept-Language": "de"})
opened, path_open = [], pathlib.Path.open

def noted(path, *others, **named):
    if path.suffix == ".po":
        opened.append(threading.current_thread() is threading.main_thread())
    return path_open(path, *others, **named)

pathlib.Path.open = noted

async def ask():
    for _ in range(2):
        await choose_language(asking)
    return spoken(), gettext("Sign out")

print(asyncio.run(ask()), opened)
"""
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert told.stdout.strip() == "('de', 'Abmelden') [False]", told.stderr
