"""The demo corpus: repeatable, valid, and as varied as a real inbox."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from itertools import islice
from typing import Any
from urllib.parse import unquote

import pytest

from app.cli.samples.emails import sample_emails
from app.handlers import extract_text
from app.intake.payload import check_payload
from app.intake.received_at import parse_received_at
from app.models.incoming_email import IncomingEmail

NOW = datetime(2026, 11, 23, 14, 5, 9, 123456, tzinfo=UTC)
FIRST = 25
SEEDS = range(40)

RESERVED = re.compile(r"(^|\.)(example\.(com|org|net)|example)$")
ZENDESK = "https://example.zendesk.com/attachments/token/"


def corpus(count: int, seed: int = 1) -> list[dict[str, Any]]:
    return list(sample_emails(count, seed, now=NOW))


def bodies(payload: dict[str, Any]) -> str:
    return f"{payload.get('body_text', '')}\n{payload.get('body_html', '')}"


def test_a_seed_always_makes_the_same_emails() -> None:
    assert corpus(300, 7) == corpus(300, 7)
    assert corpus(300, 7)[:50] == corpus(50, 7)
    assert corpus(50, 7) != corpus(50, 8)


def test_emails_are_made_one_at_a_time() -> None:
    assert len(list(islice(sample_emails(10**12, 1), 3))) == 3


def test_none_are_made_where_none_are_wanted() -> None:
    assert corpus(0) == []


def test_without_a_given_time_it_is_now() -> None:
    before = datetime.now(UTC)
    times = [
        datetime.fromtimestamp(email["received_at"], UTC)
        for email in sample_emails(2_000, 1)
        if isinstance(email.get("received_at"), int)
    ]
    assert before - timedelta(days=2) < max(times) < before


def test_every_webhook_id_is_unique() -> None:
    ids = [email["webhook_id"] for seed in (-1, 0, 1, 2**70) for email in corpus(5_000, seed)]
    assert len(set(ids)) == 20_000


def test_a_thousand_emails_do_not_look_alike() -> None:
    emails = corpus(1_000)
    assert len({bodies(email) for email in emails}) == 1_000
    assert len({email["from_email"] for email in emails}) > 800
    without_numbers = {re.sub(r"\d", "", bodies(email)) for email in emails}
    assert len(without_numbers) > 990


@pytest.mark.parametrize("seed", SEEDS)
class TestTheFirstEmailsShowEveryKind:
    def test_topics_and_languages(self, seed: int) -> None:
        kinds = {tuple(email["tags"]) for email in corpus(FIRST, seed)}
        assert kinds == {
            (topic, language)
            for language in ("german", "english")
            for topic in (
                *("order", "complaint", "invoice", "return", "password", "bug", "praise"),
                *("cancellation", "out_of_office", "question"),
            )
        }

    def test_bodies(self, seed: int) -> None:
        emails = corpus(FIRST, seed)
        forms = {("body_text" in email, "body_html" in email) for email in emails}
        assert forms == {(True, False), (False, True), (True, True)}
        html = "".join(email.get("body_html", "") for email in emails)
        for part in (
            *("<style>", "<script>", '<img src="cid:', "data:image/", "https://img.firma.example/"),
            *("MsoNormal", '<div dir="ltr">', "<blockquote", "&nbsp;", "&lt;"),
        ):
            assert part in html, part
        assert re.search(r"<table.*<table.*</table>.*</table>", html)
        text = "\n".join(email.get("body_text", "") for email in emails)
        assert "\n> " in text
        assert "\n> > > " in text
        both = unescape(html + text)
        assert re.search("[äöü]", both) and "ß" in both
        for mark in ("Sent from my iPhone", "Von meinem iPhone gesendet", "-- "):
            assert mark in both
        assert has_emoji(both)
        lengths = [len(bodies(email)) for email in emails]
        assert min(lengths) < 800
        assert max(lengths) > 2_000

    def test_subjects_and_senders(self, seed: int) -> None:
        emails = corpus(FIRST, seed)
        subjects = [email.get("subject", "missing") for email in emails]
        assert {"missing", "", None} <= set(subjects)
        assert any(has_emoji(subject) for subject in subjects if subject)
        assert any(subject.startswith(("AW: ", "Re: ")) for subject in subjects if subject)
        names = [email.get("from_name", "missing") for email in emails]
        assert {"missing", None} <= set(names)
        assert any(", " in name for name in names if name)
        assert any(re.search("[äöüß]", name) for name in names if name)
        assert {type(email["ticket_id"]) for email in emails} == {str, int}

    def test_attachments(self, seed: int) -> None:
        emails = corpus(FIRST, seed)
        lists = [email.get("attachments", "missing") for email in emails]
        assert "missing" in lists
        assert None in lists
        lengths = {len(attachments) for attachments in lists if isinstance(attachments, list)}
        assert lengths == {0, 1, 2, 3}
        attachments = [item for items in lists if isinstance(items, list) for item in items]
        assert {type(item.get("size", "missing")) for item in attachments} == {
            *(int, str, type(None)),
        }
        assert any("size" not in item for item in attachments)
        assert any("content_type" not in item for item in attachments)
        assert any(" " in item["filename"] for item in attachments)
        assert any(not item["filename"].isascii() for item in attachments)

    def test_times(self, seed: int) -> None:
        times = [email.get("received_at") for email in corpus(FIRST, seed)]
        formats = (
            *(r"None", r"\d{10}", r"\d{4}-\d\d-\d\d \d\d:\d\d", r"\d\d\.\d\d\.\d{4} \d\d:\d\d"),
            *(r"[-\dT:]+Z", r"[-\dT:]+\.000Z", r"[-\dT:]+\+01:00", r"[-\dT:]+-05:00"),
            r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0200",
        )
        for wanted in formats:
            assert any(re.fullmatch(wanted, str(time)) for time in times), wanted

    def test_unknown_fields(self, seed: int) -> None:
        keys = {key for email in corpus(FIRST, seed) for key in email}
        assert {"tags", "brand", "priority", "via", "organization"} <= keys


def has_emoji(text: str) -> bool:
    return re.search("[\u2600-\u27bf\u21a9\U0001f300-\U0001faff]", text) is not None


@pytest.mark.long
class TestTheIntakeTakesAll:
    emails = corpus(2_000, 3)

    def test_payloads_are_valid(self) -> None:
        for email in self.emails:
            checked = check_payload(json.loads(json.dumps(email)))
            assert len(checked.attachment_urls) == len(email.get("attachments") or [])
            for stored, sent in zip(
                checked.attachment_urls, email.get("attachments") or [], strict=True
            ):
                assert stored["size"] == (int(sent["size"]) if sent.get("size") else None)

    def test_no_placeholder_is_left(self) -> None:
        placeholder = re.compile(r"\{[a-z_.0]*\}|@(letter|id)@")
        for email in self.emails:
            text = f"{email.get('subject')} {email.get('from_name')} {bodies(email)}"
            assert not placeholder.search(text), text

    def test_no_email_comes_from_the_future(self) -> None:
        for email in self.emails:
            time = email.get("received_at")
            if time is not None:
                # The parser answers `now` for what it cannot read as well.
                assert NOW - timedelta(days=61) < parse_received_at(time, NOW) < NOW, time
                assert parse_received_at(time, NOW + timedelta(days=99)) < NOW, time

    def test_all_domains_are_reserved(self) -> None:
        for email in self.emails:
            text = unquote(unescape(json.dumps(email, ensure_ascii=False))).replace(ZENDESK, "")
            for domain in re.findall(r"(?://|@|www\.)([\w-]+(?:\.[\w-]+)+)", text):
                assert RESERVED.search(domain), domain
            local, _, domain = email["from_email"].partition("@")
            assert re.fullmatch(r"[a-z.]+", local), local
            assert RESERVED.search(domain), domain
        assert not RESERVED.search("example.de") and not RESERVED.search("notexample.com")

    def test_sizes_are_those_of_real_emails(self) -> None:
        sizes = [len(json.dumps(email)) for email in self.emails]
        assert 600 < sum(sizes) / len(sizes) < 3_000
        lengths = [len(email.get("body_text") or email["body_html"]) for email in self.emails]
        assert 700 < sum(lengths) / len(lengths) < 1_400

    def test_html_is_as_mail_programs_write_it(self) -> None:
        html = "".join(email.get("body_html", "") for email in self.emails)
        for part in (
            *(
                "&auml;",
                "&uuml;",
                "&szlig;",
                "&ndash;",
                "&euro;",
                "&bdquo;",
                "&amp;",
                "&#223;",
                "ß",
            ),
            *("gmail_quote", "moz-cite-prefix", '<blockquote type="cite">', "<o:p>&nbsp;</o:p>"),
        ):
            assert part in html, part
        assert "</p><br><p" not in html

    def test_the_built_in_handler_finds_their_text(self) -> None:
        async def clean() -> list[str]:
            cleaned = []
            for email in self.emails:
                row = IncomingEmail(
                    raw_body_html=email.get("body_html"), raw_body_text=email.get("body_text")
                )
                await extract_text.handle(row)
                cleaned.append(row.cleaned_body)
            return cleaned

        for email, text in zip(self.emails, asyncio.run(clean()), strict=True):
            assert len(text) > 80
            assert not re.search(r"MsoNormal|cellpadding|window\.opened|&[a-z]+;|<p\b", text)
            if "body_text" not in email and "german" in email["tags"]:
                assert re.search("[äöüß]", text)
