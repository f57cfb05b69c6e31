"""What docs/delivery.md shows works as it stands there, and so does the example that writes to
another database."""

import asyncio
import json
import re
import threading
from http.server import HTTPServer
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from databases import Databases
from fake_receiver import SECRET
from support import PROJECT, make_settings
from test_deliverer import LONG_AGO, Pool, working

from app.sync import transitions
from app.sync.event import BODIES, DATA
from app.sync.function import FunctionLoadError, load_function
from examples import deliver_to_database

TEXT = (PROJECT / "docs" / "delivery.md").read_text()


async def test_the_receiver_of_the_docs_takes_deliveries_and_refuses_what_is_not_signed(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 25
    module: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(source.replace("whsec_...", SECRET), "receiver.py", "exec"), module)  # noqa: S102
    module["Receiver"].log_message = lambda *_: None
    server = HTTPServer(("127.0.0.1", 0), module["Receiver"])
    threading.Thread(target=server.serve_forever).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    try:
        async with working(pool, url) as world:
            [email_id] = await world.add(subject="Wo bleibt mein Paket?")
            await world.deliverer.run_once()
            assert await world.states() == {"synced": 1}
            assert f"email.completed {email_id} Wo bleibt" in capsys.readouterr().out
            await world.add()
        other = "whsec_" + "R" * 44
        async with working(pool, url, sync_secrets=other) as world:
            await world.deliverer.run_once()
            assert await world.states() == {"synced": 1, "pending": 1}
            [row] = await pool.fetch("SELECT * FROM incoming_emails WHERE sync_retry_count = 1")
            assert "answered 401" in row["sync_error"]
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


async def test_the_body_of_the_docs_has_the_fields_that_are_sent(pool: Pool) -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    got: list[dict[str, Any]] = []

    async def take(event: Any) -> None:
        got.append(event.plain())

    async with working(pool, function=take) as world:
        [email_id] = await world.add(subject="x")
        await pool.execute(
            "INSERT INTO email_attachments (email, position, url, state)"
            " VALUES ($1, 0, 'x', 'kept')",
            email_id,
        )
        await world.deliverer.run_once()
    documented = json.loads(shown)
    assert got[0].keys() == documented.keys()
    assert got[0]["data"].keys() == documented["data"].keys()
    files = [body["data"]["attachments"][0].keys() for body in (got[0], documented)]
    assert files[0] == files[1]
    assert all(f"`{name}`" in TEXT for name in (*BODIES, DATA))


async def test_the_example_keeps_the_last_result_of_each_email_in_another_database(
    pool: Pool, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = databases.create()
    monkeypatch.setenv("CASES_DATABASE_URL", url)
    function = load_function("examples.deliver_to_database:deliver")
    async with working(pool, function=function, sync_batch=100) as world:
        ids = await world.add(3, zendesk_ticket_id="1", extracted_data='{"order": 7}')
        assert await world.deliverer.run_once() == 1
        other = await asyncpg.connect(url)
        count = "SELECT count(*), max(version), max((data ->> 'order')::int) FROM finished_emails"
        assert tuple(await other.fetchrow(count)) == (3, 1, 7)
        # A newer result takes the place of the older one, which then changes nothing more.
        again = "UPDATE incoming_emails SET sync_status = 'pending', sync_version = $1,"
        again += " sync_next_attempt_at = $2 WHERE id = $3"
        for version in (3, 2):
            await pool.execute(again, version, LONG_AGO, ids[0])
            await world.deliverer.run_once()
        assert tuple(await other.fetchrow(count)) == (3, 3, 7)
        await transitions.tell_erased(pool, ids[:1])
        await world.deliverer.run_once()
        assert (await other.fetchrow(count))[0] == 2
        await other.close()
        await deliver_to_database._POOLS.pop(url).close()
    databases.drop(url)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nonsense", "MAILROOM_SYNC is 'nonsense'"),
        ("no.such.module:function", "MAILROOM_SYNC: the module no.such.module fails to import"),
        ("json:no_such_function", "MAILROOM_SYNC: the module json has no no_such_function"),
        ("os:getcwd", "MAILROOM_SYNC: os:getcwd has to take one argument"),
    ],
)
def test_a_function_that_cannot_deliver_is_refused_with_the_mend(path: str, said: str) -> None:
    with pytest.raises(FunctionLoadError, match=re.escape(said)):
        load_function(path)


WHOLE = {"sync_url": "https://crm.example.com/in", "sync_secrets": SECRET}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sync_url": "http://crm.example.com/in"}, "http://crm.example.com:80"),
        ({"sync_url": "https://user:password@crm.example.com/"}, "holds a user or a password"),
        ({"sync_url": "https://crm.example.com/#x"}, "behind `#`"),
        ({"sync_url": "crm.example.com"}, "MAILROOM_SYNC_URL"),
        ({"sync_url": "https://"}, "such as https://"),
        ({"sync_url": "https://crm.example.com:99999/"}, "MAILROOM_SYNC_URL is not a URL"),
        ({"sync_url": "ftp://crm.example.com/"}, "MAILROOM_SYNC_URL"),
        ({"sync_secrets": ""}, "MAILROOM_SYNC_SECRETS is missing"),
        ({"sync_secrets": "whsec_c2hvcnQ="}, "secret 1 has to be `whsec_` and 24 to 64 bytes"),
        ({"sync_secrets": f"{SECRET},plain-text-of-24-characters"}, "secret 2 has to be"),
        ({"sync": "package.module:function"}, "not both"),
        ({"sync_retry_seconds": "0,five"}, "1 to 100 pauses in seconds"),
        ({"sync_retry_seconds": "-1"}, "1 to 100 pauses in seconds"),
        ({"sync_retry_seconds": "inf"}, "1 to 100 pauses in seconds"),
        ({"public_url": "mailroom.example.com"}, "MAILROOM_PUBLIC_URL"),
    ],
)
def test_settings_of_delivery_that_cannot_work_are_refused_with_the_mend(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        make_settings(**{**WHOLE, **values})
    assert "password@" not in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_receiver_without_encryption_is_let_in_where_it_is_near_or_named() -> None:
    near = {**WHOLE, "sync_url": "http://127.0.0.1:9000/"}
    assert make_settings(**near).sync_url
    production = {"env": "production", "database_url": "postgresql://u@h/d"}
    production |= {"api_token": "t" * 32}
    with pytest.raises(ValueError, match="MAILROOM_SYNC_URL has to begin with https://"):
        make_settings(**near, **production)
    named = "http://crm.internal:8080"
    assert make_settings(
        **{**WHOLE, "sync_url": f"{named}/in?x={uuid4()}"}, outbound_internal_hosts=named
    ).sync_url
    assert make_settings(**WHOLE, sync_retry_seconds="0, 1.5").sync_retry_seconds == (0.0, 1.5)
