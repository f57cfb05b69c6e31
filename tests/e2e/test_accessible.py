"""Every page of the desk: axe-core finds nothing serious, the console and the policy stay silent,
little is loaded, and a phone has room for it, in light and in dark; and the dark ones, which are
German, say nothing in English."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from babel.messages.pofile import read_po
from playwright.sync_api import Browser, Page
from support import Services, email, enter_page, open_page, signed

from app.i18n.languages import path_of
from app.intake.openapi import WEBHOOK_PATH

Connection = psycopg.Connection[dict[str, Any]]

# What axe-core calls serious or critical keeps somebody from the page.
SERIOUS = ("serious", "critical")
LARGEST_PAGE = 100_000
WIDTHS = (390, 1280)
REFUSED = """
INSERT INTO quarantined_webhooks (id, body, reason, detail, is_signed, remote_address)
VALUES ('019abc12-7f00-7000-8000-0123456789ab', '{"ticket_id": 1}', 'invalid', 'from_email',
    true, '192.0.2.1')
"""
SIGN_IN = "/sign-in"
PAGES = (
    "/",
    "/?span=month",
    "/emails",
    "/emails?q=status:nonsense",
    "/emails/{email}",
    "/quarantine",
    "/quarantine/019abc12-7f00-7000-8000-0123456789ab",
    "/quarantine/new?action=discard&which=all&q=",
    "/quarantine/new?action=retry&which=checked",
    "/suspended",
    "/suspended/new?action=archive&which=all&q=",
    "/bulk",
    "/bulk/new?action=erase&q=",
    "/bulk/{bulk}",
    "/deliveries",
    "/files",
    "/workers",
    "/lint",
    "/people",
    "/account",
    "/account/second-step",
    "/audit",
    "/audit?q=colour:red",
    "/bulk/new?which=all&action=retry&q=status:failed",
    # The last one: nobody is signed in there.
    SIGN_IN,
)


# What a page tells to eyes and ears, folded parts, too; but not what was written by others.
TOLD = """() => {
    const told = [document.title];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode())
        if (!texts.currentNode.parentElement.closest("code, kbd, pre, script, noscript, textarea"))
            told.push(texts.currentNode.textContent);
    for (const name of ["title", "aria-label", "placeholder"])
        for (const one of document.querySelectorAll(`[${name}]`)) told.push(one.getAttribute(name));
    return told.map((text) => text.replace(/\\s+/g, " ").trim()).filter(Boolean);
}"""


class English:
    """The texts of the catalogue that are others in German."""

    def __init__(self) -> None:
        with path_of("de").open("rb") as file:
            messages = [message for message in read_po(file) if message.id]
        pieces = set()
        for message in messages:
            ids = [message.id] if isinstance(message.id, str) else message.id
            german = "\n".join(
                [message.string] if isinstance(message.string, str) else message.string
            )
            pieces |= {
                piece.strip()
                for one in ids
                for piece in re.split(r"<[^>]+>", one)
                if re.search(r"[a-z]{2}", re.sub(r"%\(\w+\)s", "", piece))
                and piece.strip() not in german
            }
        self._whole = re.compile("|".join(f"(?:{self._pattern(piece)})" for piece in pieces))
        self._sentences = [piece for piece in pieces if "%(" not in piece and piece.count(" ") > 2]

    @staticmethod
    def _pattern(piece: str) -> str:
        parts = re.split(r"%\(\w+\)s", piece)
        return ".+".join(re.escape(part.replace("%%", "%")) for part in parts)

    def find(self, told: list[str]) -> list[str]:
        return [
            text
            for text in told
            if self._whole.fullmatch(text) or any(one in text for one in self._sentences)
        ]


@pytest.fixture(scope="module")
def english() -> English:
    return English()


@pytest.fixture(scope="module")
def violations() -> Axe:
    return Axe()


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def addresses(operated: Services, connection: Connection) -> list[str]:
    """The pages, with something on each."""
    answer = httpx.post(operated.url + WEBHOOK_PATH, **signed(email()), timeout=60)
    connection.execute(REFUSED)
    connection.execute(
        "INSERT INTO incoming_emails (processing_status, processing_error, completed_at, subject)"
        " VALUES ('failed', 'the CRM answered 503', now(), 'Wo ist mein Paket?')"
    )
    connection.execute(
        "INSERT INTO workers (name, threads, started_at, seen_at)"
        " VALUES ('mail-1:7', 4, now(), now()), ('mail-2:7', 4, now(), now() - interval '1 minute')"
    )
    connection.execute("INSERT INTO processing_pauses VALUES ('all', now(), 'olga', 'CRM moves')")
    connection.execute(
        "INSERT INTO email_attachments (email, position, url, state, reason, ended_at) VALUES"
        " (gen_random_uuid(), 0, 'https://example.com/1', 'failed', 'gone', now())"
    )
    connection.execute(
        "INSERT INTO email_attachments (email, position, url, filename, state, reason, detail,"
        " ended_at) VALUES (%s, 0, 'https://example.com/1', %s, 'failed', 'unreachable',"
        " 'the name files.example.com is not known', now())",
        [answer.json()["email_id"], "Rechnung_mit_einem_langen_Namen_ohne_jedes_Leerzeichen.pdf"],
    )
    connection.execute(
        "INSERT INTO incoming_emails (processing_status, completed_at, sync_status)"
        " VALUES ('completed', now(), 'failed')"
    )
    begun = connection.execute(
        "INSERT INTO bulk_actions (action, asked_by, total) VALUES ('retry', 'olga', 2)"
        " RETURNING id"
    ).fetchone()
    assert begun is not None
    ids = {"email": answer.json()["email_id"], "bulk": begun["id"]}
    return [address.format(**ids) for address in PAGES]


@pytest.fixture(params=[("light", "en-US"), ("dark", "de-DE")], ids=["light", "dark-german"])
def page(
    browser: Browser, operated: Services, addresses: list[str], request: pytest.FixtureRequest
) -> Iterator[Page]:
    scheme, locale = request.param
    with open_page(browser, operated.url, color_scheme=scheme, locale=locale) as page:
        # An administrator sees every page.
        enter_page(page, operated, "ada")
        yield page


def test_every_page_is_accessible_silent_small_and_fits_a_phone(
    page: Page, addresses: list[str], violations: Axe, english: English
) -> None:
    wrong: list[str] = []
    said: list[str] = []
    sizes: list[int] = []
    page.on("console", lambda line: said.append(f"{line.type}: {line.text}"))
    page.on(
        "response",
        lambda answer: sizes.append(int(answer.headers.get("content-length", "0"))),
    )
    for address in addresses:
        if address == SIGN_IN:
            page.context.clear_cookies()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            said.clear()
            sizes.clear()
            page.goto(address, wait_until="load")
            place = f"{address} at {width}"
            if page.locator("html").get_attribute("lang") != "en":
                wrong += [f"{place}: English: {text}" for text in english.find(page.evaluate(TOLD))]
            wrong += [f"{place}: {line}" for line in said]
            wrong += [
                f"{place}: {found['id']}: {found['nodes'][0]['html'][:200]}"
                for found in violations.run(page).response["violations"]
                if found["impact"] in SERIOUS
            ]
            needed = page.evaluate("document.documentElement.scrollWidth")
            if needed > width:
                wrong.append(f"{place}: needs {needed} px")
            if not 1_000 < sum(sizes) < LARGEST_PAGE:
                wrong.append(f"{place}: {sum(sizes)} bytes")
    assert wrong == []
