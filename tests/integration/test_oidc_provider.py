"""What becomes of a provider that changes, is broken or is away: real HTTP, in this process."""

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from oidc_provider import RunningProvider, running_provider
from support import free_port, make_settings

from app.oidc import provider as provider_module
from app.oidc.attempt import Attempt
from app.oidc.errors import ProviderAwayError, RefusedError
from app.oidc.id_token import UnknownKeyError
from app.oidc.provider import Provider

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
BACK = "http://127.0.0.1/sign-in/oidc/back"


@pytest.fixture(scope="module")
def module_provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
def running(module_provider: RunningProvider) -> RunningProvider:
    module_provider.reset()
    return module_provider


def settings_of(running: RunningProvider, **others: Any) -> Any:
    named = running.register(BACK)
    return make_settings(
        **{
            "oidc_issuer": running.issuer,
            "oidc_client_id": named["MAILROOM_OIDC_CLIENT_ID"],
            "oidc_client_secret": named["MAILROOM_OIDC_CLIENT_SECRET"],
            "outbound_open_loopback": True,
            **others,
        }
    )


@pytest.fixture
async def provider(running: RunningProvider) -> AsyncIterator[Provider]:
    made = Provider(settings_of(running))
    yield made
    await made.close()


async def code_of(provider: Provider, attempt: Attempt) -> str:
    """Somebody signs in there. Returns the code that they come back with."""
    async with httpx.AsyncClient() as browser:
        sent = await browser.post(await provider.sign_in_url(attempt), data={"sub": "7"})
    return parse_qs(urlsplit(sent.headers["location"]).query)["code"][0]


async def test_new_keys_are_asked_for_but_not_at_every_token(
    running: RunningProvider, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Attempt.begin(BACK)
    assert (await provider.claims(attempt, await code_of(provider, attempt)))["sub"] == "7"
    running.change_key()
    for _ in range(2):
        with pytest.raises(UnknownKeyError):
            await provider.claims(attempt, await code_of(provider, attempt))
    assert [path for path, _ in running.asked].count("/jwks") == 1
    monkeypatch.setattr(provider_module, "LEAST_PAUSE_SECONDS", 0.0)
    assert (await provider.claims(attempt, await code_of(provider, attempt)))["sub"] == "7"
    assert [path for path, _ in running.asked].count("/jwks") == 2


async def test_a_code_serves_once(provider: Provider) -> None:
    attempt = Attempt.begin(BACK)
    code = await code_of(provider, attempt)
    await provider.claims(attempt, code)
    with pytest.raises(RefusedError, match="invalid_grant"):
        await provider.claims(attempt, code)


async def test_a_wrong_secret_is_named(running: RunningProvider) -> None:
    wrong = Provider(settings_of(running, oidc_client_secret="wrong"))
    attempt = Attempt.begin(BACK)
    try:
        with pytest.raises(ProviderAwayError, match="see MAILROOM_OIDC_CLIENT_ID and"):
            await wrong.claims(attempt, await code_of(wrong, attempt))
    finally:
        await wrong.close()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"issuer": "https://other.example"}, "names another issuer"),
        ({"jwks_uri": None}, "lacks jwks_uri"),
        ({"jwks_uri": "http://10.0.0.1/"}, "10.0.0.1"),
        ({"jwks_uri": "file:///etc/passwd"}, "cannot be asked"),
    ],
)
async def test_a_wrong_document_is_told(
    running: RunningProvider, provider: Provider, document: dict[str, Any], said: str
) -> None:
    running.document.update(document)
    with pytest.raises(ProviderAwayError, match=said):
        await provider.look()


async def test_json_that_is_nested_without_end_is_told(
    running: RunningProvider, provider: Provider
) -> None:
    running.text = "[" * 100_000 + "]" * 100_000
    with pytest.raises(ProviderAwayError, match="something else than JSON"):
        await provider.look()


@pytest.mark.parametrize("methods", [None, 7, "client_secret_basic"])
async def test_ways_to_show_a_secret_that_are_no_list_are_the_usual_one(
    running: RunningProvider, provider: Provider, methods: object
) -> None:
    running.document["token_endpoint_auth_methods_supported"] = methods
    attempt = Attempt.begin(BACK)
    assert (await provider.claims(attempt, await code_of(provider, attempt)))["sub"] == "7"


async def test_a_missing_document_is_told(running: RunningProvider) -> None:
    other = Provider(settings_of(running, oidc_issuer=f"{running.issuer}/nothing"))
    try:
        with pytest.raises(ProviderAwayError, match="answers 404"):
            await other.look()
    finally:
        await other.close()


async def test_whom_outbound_rules_forbid_is_not_asked(running: RunningProvider) -> None:
    forbidden = Provider(settings_of(running, outbound_open_loopback=False))
    away = Provider(settings_of(running, oidc_issuer=f"http://localhost:{free_port()}"))
    running.asked.clear()
    try:
        with pytest.raises(ProviderAwayError, match="localhost may be called by https alone"):
            await forbidden.look()
        with pytest.raises(ProviderAwayError, match="cannot be reached"):
            await away.look()
    finally:
        await forbidden.close()
        await away.close()
    assert running.asked == []
