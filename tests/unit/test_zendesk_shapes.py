"""The fake Zendesk answers in the shapes of the real one, as they are described in
`tests/data/zendesk_shapes.json`: each field with the JSON types that were seen in it.

A field whose name ends with `?` was not seen in every answer.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from zendesk.account import AUTHORIZATION, Account, attachment
from zendesk.answers import Asked, parse_query
from zendesk.delivery import Delivery, Faults
from zendesk.server import FakeApi

SHAPES = json.loads((Path(__file__).parents[1] / "data/zendesk_shapes.json").read_text())


def differences(value: Any, shape: Any, path: str) -> Iterator[str]:
    """Where a value is not of a shape."""
    if isinstance(shape, str):
        if shape != "any" and kind(value) not in shape.split("|"):
            yield f"{path} is {kind(value)}, not {shape}"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{path} is no list"
            return
        for number, item in enumerate(value):
            yield from differences(item, shape[0], f"{path}[{number}]")
    elif not isinstance(value, dict):
        yield f"{path} is no object"
    else:
        known = {name.removesuffix("?"): of for name, of in shape.items()}
        for name in value.keys() - known.keys():
            yield f"{path}.{name} was never seen"
        for name, of in known.items():
            if name in value:
                yield from differences(value[name], of, f"{path}.{name}")
            elif name in shape:
                yield f"{path}.{name} is missing"


def kind(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float", str: "str", dict: "object", list: "list"}
    return names.get(type(value), "null")


@pytest.fixture
async def api() -> FakeApi:
    """An account in which there is one of everything."""
    account = Account()

    async def receive(body: bytes, headers: dict[str, str]) -> int | None:
        return 200

    webhook = account.add_webhook("https://example.com/api/v1/zendesk/webhook")
    delivery = Delivery(account, webhook, receive)
    await delivery.mail(
        "erika@example.com", "Hallo", attachments=[attachment(account, "rechnung.pdf", 12_345)]
    )
    delivery.faults = Faults(throttle=1.0)
    await delivery.mail("kim@example.com", "Hello")
    account.add_comment(account.tickets[1], account.add_user("a@b.c", role="agent"), "Hi")
    for ticket in account.tickets.values():
        ticket.changed_at = account.started_at.replace(year=2025)
    return FakeApi(account)


def ask(api: FakeApi, path: str) -> Any:
    path, _, query = path.partition("?")
    headers = {"authorization": AUTHORIZATION}
    answer = api.respond(Asked("GET", path, parse_query(query), headers))
    assert answer.status == 200, answer
    return json.loads(json.dumps(answer.content))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("incremental_tickets", "/api/v2/incremental/tickets/cursor.json?start_time=0"),
        ("ticket", "/api/v2/tickets/1.json"),
        ("comments", "/api/v2/tickets/1/comments.json?page[size]=1"),
        ("comments", "/api/v2/tickets/2/comments.json?include=users"),
        ("audits", "/api/v2/tickets/1/audits.json"),
        ("user", "/api/v2/users/{user}.json"),
        ("webhooks", "/api/v2/webhooks"),
        ("webhook", "/api/v2/webhooks/{webhook}"),
        ("invocations", "/api/v2/webhooks/{webhook}/invocations?page[size]=1"),
        ("attempts", "/api/v2/webhooks/{webhook}/invocations/{invocation}/attempts"),
        ("attempts", "/api/v2/webhooks/{webhook}/invocations/{throttled}/attempts"),
        ("signing_secret", "/api/v2/webhooks/{webhook}/signing_secret"),
    ],
)
async def test_the_fake_answers_in_the_shapes_of_zendesk(
    api: FakeApi, name: str, path: str
) -> None:
    (webhook,) = api.account.webhooks.values()
    sent, throttled = webhook.invocations
    answered = ask(
        api,
        path.format(
            user=next(iter(api.account.users)),
            webhook=webhook.id,
            invocation=sent.id,
            throttled=throttled.id,
        ),
    )
    assert list(differences(answered, SHAPES[name], name)) == []


async def test_errors_have_the_shape_of_zendesk(api: FakeApi) -> None:
    headers = {"authorization": AUTHORIZATION}
    answer = api.respond(Asked("GET", "/api/v2/tickets/99.json", {}, headers))
    assert answer.status == 404
    assert list(differences(answer.content, SHAPES["error"], "error")) == []


def test_another_shape_is_noticed() -> None:
    shape = {"id": "int", "name?": "str|null", "list": [{"a": "bool"}]}
    assert list(differences({"id": 1, "list": [{"a": True}]}, shape, "x")) == []
    wrong = {"id": "1", "more": 1, "list": [{"a": None}]}
    assert len(list(differences(wrong, shape, "x"))) == 3
