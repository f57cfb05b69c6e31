"""Zendesk's API over HTTP, against the fake account: limits, refusals, odd answers."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPMethod
from typing import Any

import pytest
from structlog.testing import capture_logs
from support import make_settings
from zendesk.account import AUTHORIZATION, Account
from zendesk.answers import Answer
from zendesk.server import FakeApi, running_api

from app.zendesk.client import ZendeskClient
from app.zendesk.errors import (
    ZendeskAwayError,
    ZendeskBusyError,
    ZendeskError,
    ZendeskMovedError,
    ZendeskNotFoundError,
    ZendeskRefusedError,
    ZendeskShapeError,
    ZendeskTokenError,
)
from app.zendesk.tickets import export_tickets, list_audits, list_comments
from app.zendesk.webhooks import list_attempts, list_invocations, list_webhooks


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with running_api(Account()) as api:
        yield api


@pytest.fixture
async def client(api: FakeApi) -> AsyncIterator[ZendeskClient]:
    made = ZendeskClient(make_settings(**api.settings))
    yield made
    await made.close()


async def test_a_list_is_read_page_by_page(api: FakeApi, client: ZendeskClient) -> None:
    ticket, _ = api.account.mail("erika@example.com", "first")
    for number in range(149):
        api.account.mail("erika@example.com", str(number), ticket=ticket)
    first = await list_comments(client, ticket.id)
    second = await list_comments(client, ticket.id, first.page.after)
    found = [comment.body for comment in first.page.items + second.page.items]
    assert found == [*(str(number) for number in reversed(range(149))), "first"]
    assert (len(first.page.items), second.page.after) == (100, None)
    author = first.page.items[0].author_id
    assert author is not None
    assert (first.users[author].email, first.users[author].role) == (
        "erika@example.com",
        "end-user",
    )
    assert first.page.items[0].via.sender["address"] == "erika@example.com"
    assert [audit.via.channel for audit in (await list_audits(client, ticket.id)).items] == (
        ["email"] * 100
    )
    assert {asked.headers["authorization"] for asked in api.asked} == {AUTHORIZATION}


async def test_items_of_an_odd_shape_are_put_aside_raw(api: FakeApi, client: ZendeskClient) -> None:
    good = {"id": "A", "status": "terminated", "latest_completed_at": "2026-11-26T10:00:00Z"}
    odd: list[Any] = [{"id": "B", "status": 7}, None, [], {**good, "latest_completed_at": "soon"}]
    content = {"invocations": [*odd, good], "meta": {"has_more": True, "after_cursor": 5}}
    api.answers.append(Answer(200, content))
    page = await list_invocations(client, "W")
    assert [item.id for item in page.items] == ["A"]
    assert page.odd == odd
    assert page.after is None


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (Answer(404, {"error": "RecordNotFound"}), ZendeskNotFoundError, "404"),
        (Answer(403, {"error": "Forbidden"}), ZendeskError, "administrator"),
        (Answer(400, {"error": "InvalidCursor"}), ZendeskRefusedError, "InvalidCursor"),
        (Answer(422, {"errors": ["a@b.c is wrong"]}), ZendeskRefusedError, "422$"),
        (Answer(302, None, {"location": "https://example.com/"}), ZendeskMovedError, "moved"),
        (Answer(500, {}), ZendeskAwayError, "500"),
        (Answer(429, {}, {"retry-after": "7"}), ZendeskBusyError, "7 seconds"),
        (Answer(200, []), ZendeskShapeError, "no list of webhooks"),
        (Answer(200, {"webhooks": {}}), ZendeskShapeError, "no list of webhooks"),
    ],
)
async def test_each_cause_is_named(
    api: FakeApi, client: ZendeskClient, answer: Answer, error: type[Exception], said: str
) -> None:
    api.answers.append(answer)
    with pytest.raises(error, match=said):
        await list_webhooks(client)
    assert len(api.asked) == 1


async def test_a_wrong_token_is_shown_once_and_not_in_a_storm(api: FakeApi) -> None:
    settings = make_settings(**{**api.settings, "zendesk_token": "wrong"})
    with capture_logs() as logs:
        clients = [ZendeskClient(settings) for _ in range(3)]
        results = await asyncio.gather(
            *(list_webhooks(client) for client in clients * 10), return_exceptions=True
        )
        for client in clients:
            await client.close()
    assert {type(result) for result in results} == {ZendeskTokenError}
    assert all("MAILROOM_ZENDESK_TOKEN" in str(result) for result in results)
    # Those that were on their way when the first answer came.
    assert len(api.asked) <= 12
    assert [entry["event"] for entry in logs] == ["zendesk_token_refused"]


async def test_what_is_away_is_asked_again_and_a_change_is_not(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.zendesk.client.FIRST_RETRY_SECONDS", 0.01)
    waits: list[float] = []

    async def on_wait(seconds: float, reason: str) -> None:
        waits.append(seconds)

    client = ZendeskClient(make_settings(**api.settings), tries=3, on_wait=on_wait)
    api.answers.extend([Answer(502), Answer(502)])
    assert (await list_webhooks(client)).items == []
    assert waits == [0.01, 0.02]
    api.answers.append(Answer(502))
    with pytest.raises(ZendeskAwayError):
        await client.ask(HTTPMethod.POST, "/api/v2/webhooks", content={"webhook": {}})
    assert api.asked[-1].content == {"webhook": {}}
    await client.close()


async def test_a_short_limit_is_waited_for(api: FakeApi) -> None:
    waits: list[tuple[float, str]] = []

    async def on_wait(seconds: float, reason: str) -> None:
        waits.append((seconds, reason))

    client = ZendeskClient(make_settings(**api.settings), on_wait=on_wait)
    api.answers.append(Answer(429, {}, {"retry-after": "0.1"}))
    assert (await list_webhooks(client)).items == []
    assert [seconds for seconds, _ in waits] == [0.1]
    await client.close()


async def test_exports_keep_below_their_own_limit(api: FakeApi) -> None:
    client = ZendeskClient(make_settings(**api.settings, zendesk_exports_per_minute=3))
    for _ in range(3):
        exported = await export_tickets(client, start=api.account.started_at)
        assert exported.is_end
    with pytest.raises(ZendeskBusyError):
        await export_tickets(client, after=exported.page.after)
    assert len(api.asked) == 3
    await client.close()


async def test_an_attempt_holds_what_was_sent(api: FakeApi, client: ZendeskClient) -> None:
    content = {
        "attempts": [
            {
                "id": "W",
                "invocation_id": "I",
                "status": "terminated",
                "status_code": 403,
                "request": {
                    "headers": [{"key": "X-Zendesk-Webhook-Signature", "value": "s"}],
                    "payload": "{}",
                },
                "completed_at": "2026-11-26T10:00:00Z",
            },
            {
                "id": "W",
                "invocation_id": "I",
                "status": "throttled",
                "completed_at": "2026-11-26T09:59:00Z",
            },
        ]
    }
    api.answers.append(Answer(200, content))
    sent, held_back = (await list_attempts(client, "W", "I")).items
    assert sent.request is not None
    assert sent.request.payload == "{}"
    assert sent.headers == {"x-zendesk-webhook-signature": "s"}
    assert held_back.request is None
