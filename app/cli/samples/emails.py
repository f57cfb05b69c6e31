"""The demo corpus: support emails, German and English, as a Zendesk trigger posts them.

A shop's customers ask, complain, return, cancel and praise. Everything is drawn from tables
as from decks of cards (`_Dealer`), and no table holds more than twenty: so the first 25
emails show every kind there is, and thousands of them still differ in people, products, numbers
and wording. All addresses are in domains that RFC 2606 reserves; the telephone numbers are those
set aside for fiction.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from email.utils import format_datetime
from functools import cache
from random import Random
from typing import Any, TypeVar
from urllib.parse import quote

from app.cli.samples.clients import CLIENTS, Message, as_text
from app.cli.samples.language import Language, Topic, load_language

T = TypeVar("T")

OLDEST_DAYS = 60


def sample_emails(
    count: int, seed: int, *, now: datetime | None = None
) -> Iterator[dict[str, Any]]:
    """Make `count` webhook payloads, one at a time; a seed and a `now` always make the same ones.

    Their webhook ids depend on the seed alone: what is sent twice is recognised as sent before.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC)
    dealer = _Dealer(Random(seed))  # noqa: S311 - a demo has to be repeatable, not secret
    for index in range(count):
        yield _payload(dealer, _webhook_id(seed, index), now)


class _Dealer:
    """Draws from tables as from shuffled decks: nothing comes again before all else came."""

    def __init__(self, random: Random) -> None:
        self._random = random.random
        self._decks: dict[int, list[Any]] = {}

    def deal(self, table: Sequence[T]) -> T:
        """Draw from one of this module's tables, which is known by its identity."""
        deck = self._decks.get(id(table))
        if not deck:
            deck = self._decks[id(table)] = list(table)
        # Not shuffled beforehand: that would take half the time of making an email.
        card: T = deck.pop(int(self._random() * len(deck)))
        return card

    def number(self, low: int, high: int) -> int:
        return low + int(self._random() * (high - low))

    def age(self) -> timedelta:
        """How long ago an email came: most of them lately, none of them just now."""
        return timedelta(seconds=1 + int(self._random() ** 3 * OLDEST_DAYS * 86_400))


_LETTERS = tuple(
    (language, topic)
    for language in map(load_language, ("german", "english"))
    for topic in language.topics
)

_CITIES = [
    "Köln",
    "Lübeck",
    "Gießen",
    "Zürich",
    "Graz",
    "Leeds",
    "Cork",
    "Bath",
    "Malmö",
    "Tromsø",
    "York",
    "Plön",
]
_AGENTS = ("Sabine Röhrig", "Tim Falkner", "Aylin Çelik", "Jonas Weißbach", "Mona Fields")
_SHOPS = (("Nordlicht", "nordlicht.example"), ("Haus & Hof", "haus-und-hof.example"))
_DOMAINS = (
    "example.com",
    "example.org",
    "example.net",
    "mail.example.com",
    "post.kunde.example",
    "firma.example",
    "buero.firma.example",
    "familie.kunde.example",
    "studio.example",
)
_CONTENT_TYPES = {
    "pdf": "application/pdf",
    "jpg": "image/jpeg",
    "png": "image/png",
    "csv": "text/csv",
    "HEIC": "image/heic",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}

_BODIES = tuple((form, quotes) for form in ("text", "html", "both") for quotes in (0, 0, 0, 1, 3))
"""Which bodies an email has, and how many earlier messages they quote."""

_SUBJECT_FORMS = ("plain",) * 8 + ("emoji",) * 3 + ("missing", "empty", "null")
_NAME_FORMS = ("full",) * 7 + ("reversed", "missing", "null")
_LONG = (True,) + (False,) * 8
_WITH_EMOJI = (True, False, False)
_TICKET_ID_TYPES: tuple[Callable[[int], str | int], ...] = (str, str, str, str, int)
_ATTACHMENTS: tuple[int | str, ...] = ("missing", "missing", "null", 0, 1, 1, 1, 2, 3)
_ATTACHMENT_FORMS = ("full", "full", "full", "text size", "no size", "no type", "bare", "null size")
_EXTRAS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"brand": "Nordlicht"},
    {"priority": "high", "via": "email"},
    {"organization": None, "is_public": True},
)

_ZONES = {hours: timezone(timedelta(hours=hours)) for hours in (-5, 1, 2)}
_TIME_FORMATS: tuple[Callable[[datetime], str | int | None], ...] = (
    lambda time: time.isoformat()[:19] + "Z",
    lambda time: time.isoformat()[:19] + ".000Z",
    lambda time: time.astimezone(_ZONES[1]).isoformat(),
    lambda time: time.astimezone(_ZONES[-5]).isoformat(),
    lambda time: format_datetime(time.astimezone(_ZONES[2])),
    lambda time: int(time.timestamp()),
    lambda time: time.isoformat(" ")[:16],
    lambda time: time.strftime("%d.%m.%Y %H:%M"),
    lambda time: None,
)


_IN_ADDRESSES = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "o", "é": "e", "á": "a", "ë": "e"}
    | {"ı": "i", "å": "a", "'": ""}
)


def _payload(dealer: _Dealer, webhook_id: str, now: datetime) -> dict[str, Any]:
    language, topic = dealer.deal(_LETTERS)
    received = (now - dealer.age()).replace(microsecond=0)
    facts = _facts(dealer, language, received)
    form, quotes = dealer.deal(_BODIES)
    letter = _letter(dealer, language, topic).format_map(facts)
    quoted = _quoted(dealer, language, facts, received, quotes)

    payload: dict[str, Any] = {
        "ticket_id": dealer.deal(_TICKET_ID_TYPES)(dealer.number(10_000, 1_000_000)),
        "from_email": facts["email"],
        "webhook_id": webhook_id,
        "tags": [topic.tag, language.tag],
        **dealer.deal(_EXTRAS),
        **_from_name(dealer, facts),
        **_subject(dealer, language, topic, facts, bool(quoted)),
    }
    if form != "html":
        payload["body_text"] = as_text(letter, quoted)
    if form != "text":
        payload["body_html"] = _page(dealer, letter, quoted)
    time = dealer.deal(_TIME_FORMATS)(received)
    if time is not None:
        payload["received_at"] = time
    attachments = "missing" if topic.automatic else dealer.deal(_ATTACHMENTS)
    if attachments == "null":
        payload["attachments"] = None
    elif isinstance(attachments, int):
        payload["attachments"] = [_attachment(dealer, language) for _ in range(attachments)]
    return payload


def _webhook_id(seed: int, index: int) -> str:
    """An id in the form of Zendesk's (a ULID), which no other seed and index have."""
    return f"01{hashlib.blake2b(f'{seed}/{index}'.encode(), digest_size=12).hexdigest().upper()}"


def _facts(dealer: _Dealer, language: Language, received: datetime) -> dict[str, str]:
    """What the texts name in braces: one customer and what happened to them."""
    first, last = dealer.deal(language.first_names), dealer.deal(language.last_names)
    shop, shop_domain = dealer.deal(_SHOPS)
    domain = dealer.deal(_DOMAINS)
    days = dealer.number(2, 30)
    return {
        "first": first,
        "last": last,
        "name": f"{first} {last}",
        "email": f"{_in_address(first)}.{_in_address(last)}@{domain}",
        "site": domain,
        "city": dealer.deal(_CITIES),
        "phone": language.phone.format(dealer.number(100, 1000)),
        "shop": shop,
        "support": f"support@{shop_domain}",
        "agent": dealer.deal(_AGENTS),
        "product": dealer.deal(language.products),
        "order": f"B-{dealer.number(100_000, 1_000_000)}",
        "invoice": f"{received.year}-{dealer.number(1_000, 100_000):05}",
        "amount": language.amount.format(*divmod(dealer.number(500, 60_000), 100)),
        "days": str(days),
        "version": f"{dealer.number(2, 9)}.{dealer.number(0, 30)}",
        "date": _day(language, received.date() - timedelta(days=days)),
        "until": _day(language, received.date() + timedelta(days=dealer.number(5, 40))),
    }


@cache
def _in_address(name: str) -> str:
    return name.lower().translate(_IN_ADDRESSES)


@cache
def _day(language: Language, day: date) -> str:
    return language.day.format(day)


def _letter(dealer: _Dealer, language: Language, topic: Topic) -> str:
    """Greeting, matter, farewell and signature, with the facts still in braces."""
    paragraphs = [dealer.deal(language.greetings), dealer.deal(topic.openings)]
    if not topic.automatic and dealer.deal(_LONG):
        paragraphs += language.stories
    paragraphs.append(dealer.deal(topic.details))
    if not topic.automatic:
        paragraphs.append(dealer.deal(language.asides))
    if dealer.deal(_WITH_EMOJI):
        paragraphs[1] += f" {topic.emoji}"
    paragraphs += [dealer.deal(language.closings), dealer.deal(language.signatures)]
    return "\n\n".join(filter(None, paragraphs))


def _quoted(
    dealer: _Dealer, language: Language, facts: dict[str, str], before: datetime, count: int
) -> list[Message]:
    """The earlier messages, latest first: support's and the customer's by turns.

    Returns:
        For each the line that says who wrote it when, and its text.
    """
    messages = []
    for number in range(count):
        before -= timedelta(minutes=dealer.number(20, 4_000))
        by_support = number % 2 == 0
        who, address = ("shop", "support") if by_support else ("name", "email")
        intro = language.wrote.format(
            day=_day(language, before.date()),
            time=f"{before.hour:02}:{before.minute:02}",
            who=facts[who],
            address=facts[address],
        )
        text = dealer.deal(language.answers if by_support else language.questions)
        messages.append((intro, text.format_map(facts)))
    return messages


def _page(dealer: _Dealer, letter: str, quoted: Sequence[Message]) -> str:
    client = dealer.deal(CLIENTS)
    return client.write(letter, quoted, image=f"ii_{dealer.number(16**7, 16**8):x}")


def _subject(
    dealer: _Dealer, language: Language, topic: Topic, facts: dict[str, str], is_reply: bool
) -> dict[str, str | None]:
    form = dealer.deal(_SUBJECT_FORMS)
    if form in _ABSENT:
        return _ABSENT[form]("subject")
    subject = dealer.deal(topic.subjects).format_map(facts)
    if form == "emoji":
        subject = f"{topic.emoji} {subject}"
    return {"subject": language.reply + subject if is_reply else subject}


def _from_name(dealer: _Dealer, facts: dict[str, str]) -> dict[str, str | None]:
    form = dealer.deal(_NAME_FORMS)
    if form in _ABSENT:
        return _ABSENT[form]("from_name")
    return {
        "from_name": "{last}, {first}".format_map(facts) if form == "reversed" else facts["name"]
    }


_ABSENT: dict[str, Callable[[str], dict[str, str | None]]] = {
    "missing": lambda field: {},
    "null": lambda field: {field: None},
    "empty": lambda field: {field: ""},
}


_quote = cache(quote)


def _attachment(dealer: _Dealer, language: Language) -> dict[str, Any]:
    filename = dealer.deal(language.files)
    token = f"{dealer.number(16**11, 16**12):x}"
    form = dealer.deal(_ATTACHMENT_FORMS)
    size = dealer.number(800, 4_000_000)
    attachment: dict[str, Any] = {
        "url": f"https://example.zendesk.com/attachments/token/{token}/?name={_quote(filename)}",
        "filename": filename,
    }
    if form not in ("no type", "bare"):
        attachment["content_type"] = _CONTENT_TYPES[filename.rpartition(".")[2]]
    if form not in ("no size", "bare"):
        attachment["size"] = {"text size": str(size), "null size": None}.get(form, size)
    return attachment
