"""A page is told in the language of its reader, and nothing else is."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import httpx
import pytest
from support import Services, create_operators, enter

GERMAN = {"Accept-Language": "de-AT,de;q=0.9,en;q=0.8"}


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


@pytest.fixture
def client(web: Services) -> Iterator[httpx.Client]:
    create_operators(web)
    with httpx.Client(base_url=web.url, timeout=120) as client:
        enter(client, web)
        yield client


def language_of(answer: httpx.Response) -> str:
    return answer.text.partition('<html lang="')[2].partition('"')[0]


def test_a_page_is_told_in_the_language_that_the_browser_asks_for(client: httpx.Client) -> None:
    page = client.get("/emails", headers=GERMAN)
    assert language_of(page) == "de"
    assert "Keine E-Mail passt dazu." in page.text
    assert set(page.headers["vary"].split(", ")) == {"Accept-Language", "Cookie"}
    page = client.get("/emails", headers={"Accept-Language": "fr"})
    assert language_of(page) == "en"
    assert "No email is like that." in page.text
    client.cookies.clear()
    page = client.get("/sign-in", headers=GERMAN)
    assert language_of(page) == "de"
    assert ">Anmelden</button>" in page.text


def test_a_reader_chooses_a_language_and_leaves_it_to_the_browser_again(
    client: httpx.Client,
) -> None:
    def choose(language: str) -> httpx.Response:
        token = client.get("/account").text.partition('name="token" value="')[2].partition('"')[0]
        return client.post("/account/language", data={"token": token, "language": language})

    assert choose("de").headers["location"] == "/account"
    assert language_of(client.get("/account")) == "de"
    assert language_of(client.get("/", headers={"Accept-Language": "en"})) == "de"
    assert choose("en").status_code == 303
    assert language_of(client.get("/", headers=GERMAN)) == "en"
    assert choose("xx").status_code == 400
    assert choose("").status_code == 303
    assert language_of(client.get("/", headers=GERMAN)) == "de"
    assert language_of(client.get("/")) == "en"
    client.cookies.set("language", "../de")
    assert language_of(client.get("/")) == "en"


def test_what_is_refused_on_a_page_is_told_in_its_language(client: httpx.Client) -> None:
    nothing = f"/emails/{UUID(int=1)}"
    assert "gibt keine E-Mail" in client.get(nothing, headers=GERMAN).json()["detail"]
    assert "there is no email" in client.get(nothing).json()["detail"]
    refused = client.post("/people", data={"token": "0"}, headers=GERMAN).json()
    assert refused["detail"].startswith("das Formular gehört nicht zu dieser Sitzung")
    for method, path, told in (
        ("GET", "/emails?after=x", "after, before: das ist keine Stelle"),
        ("GET", "/?span=never", "span: diesen Wert kann es hier nicht geben"),
        ("GET", "/sign-in/oidc", "MAILROOM_OIDC_ISSUER ist nicht gesetzt"),
    ):
        assert client.request(method, path, headers=GERMAN).json()["detail"].startswith(told), path
    wrong = client.get("/emails", params={"q": "sync-error:--"}, headers=GERMAN).text
    assert "--: enthält weder Buchstaben noch Ziffern" in wrong
    role = client.get("/people", headers=GERMAN).json()["detail"]
    assert role.startswith("dazu braucht es die Rolle Administrator, und Ihre ist Operator")


def test_programs_are_answered_in_english(web: Services) -> None:
    for path in ("/api/v1/jobs?status=nonsense", "/health/ready", "/nowhere"):
        for headers in ({}, {"Authorization": "Bearer token"}):
            told = [
                httpx.get(web.url + path, headers={**headers, **language}, timeout=60).text
                for language in ({}, GERMAN)
            ]
            assert told[0] == told[1]


def test_those_who_read_at_the_same_time_get_each_their_own(client: httpx.Client) -> None:
    def read(language: str) -> str:
        return language_of(client.get("/", headers={"Accept-Language": language}))

    asked = ["de", "en"] * 20
    with ThreadPoolExecutor(8) as readers:
        assert list(readers.map(read, asked)) == asked
