"""Who wrote an email that came as an event: Zendesk's API is asked before the handler runs.

The API is a server of the test's own, whose answers have the shape of Zendesk's.
"""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import asyncpg
import one_email
import pytest
from support import SECRET, make_settings

from app.handlers.loading import as_handler
from app.intake.intake import Intake
from app.intake.signature import sign
from app.jobs.claimer import Claimer
from app.jobs.leases import HeldClaims
from app.jobs.story import tell_story
from app.models.incoming_email import IncomingEmail
from app.settings import Settings, SettingsError
from app.telemetry.request_id import uuid7
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskError
from app.zendesk.senders import sender_id, with_senders
from app.zendesk.users import ROLES, own_role

Pool = asyncpg.Pool

KIM = "5870"


def user(**fields: Any) -> dict[str, Any]:
    """As `GET /api/v2/users/{id}.json` answers."""
    return {
        "user": {
            "id": int(KIM),
            "url": f"https://example.zendesk.com/api/v2/users/{KIM}.json",
            "name": "Kim Example",
            "email": "kim@example.org",
            "role": "end-user",
            "active": True,
            "phone": None,
            "user_fields": {},
            **fields,
        }
    }


class FakeZendesk(ThreadingHTTPServer):
    """Answers each request by the next of `answers`, the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.answers: list[tuple[int, dict[str, str], Any]] = [(200, {}, user())]
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("authorization")))
        answers = server.answers
        status, headers, content = answers.pop(0) if len(answers) > 1 else answers[0]
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json; charset=utf-8",
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve() -> Iterator[FakeZendesk]:
    with FakeZendesk() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def zendesk() -> Iterator[FakeZendesk]:
    yield from serve()


@pytest.fixture
def elsewhere() -> Iterator[FakeZendesk]:
    yield from serve()


async def store(pool: "Pool[asyncpg.Record]", *, number: int = 1) -> UUID:
    """An answer by mail, as it comes in an event."""
    body = json.dumps(
        {
            "account_id": 1,
            "id": f"event-{number}",
            "type": "zen:event-type:ticket.comment_added",
            "detail": {"id": "7", "via": {"channel": "mail"}, "requester_id": "1"},
            "event": {"comment": {"id": number, "body": "x", "author": {"id": KIM}}},
        }
    ).encode()
    timestamp = datetime.now(UTC).isoformat()
    intake = Intake(make_settings(), pool)
    admission = await intake.admit(
        body,
        email_id=uuid7(),
        signature=sign(SECRET, timestamp, body),
        timestamp=timestamp,
        invocation_id=None,
    )
    await intake.close()
    assert admission.email_id is not None
    return admission.email_id


class Worker:
    """Processes emails with a handler that notes the senders it sees."""

    def __init__(self, pool: "Pool[asyncpg.Record]", settings: Settings) -> None:
        self.seen: list[tuple[str, str | None]] = []
        handler = as_handler(self._handle, threads=1)
        handler = with_senders(settings, handler, lambda: pool)
        self._claimer = Claimer(settings, handler, pool, HeldClaims(), one_email.late_columns())
        self._pool = pool
        self._settings = settings

    async def _handle(self, email: IncomingEmail) -> None:
        self.seen.append((email.from_email, email.from_name))

    async def process(self, email_id: UUID) -> tuple[dict[str, Any], str]:
        """Returns the row and the story."""
        await one_email.process(self._claimer, email_id)
        row = await self._pool.fetchrow("SELECT * FROM incoming_emails WHERE id = $1", email_id)
        story = await tell_story(self._pool, email_id, self._settings)
        assert story is not None
        assert row is not None
        return dict(row), "\n".join(event.what for event in story.events)


@pytest.fixture
def worker(pool: "Pool[asyncpg.Record]", zendesk: FakeZendesk) -> Callable[..., Worker]:
    def make(**settings: Any) -> Worker:
        values = {
            "zendesk_url": zendesk.url,
            "zendesk_email": "agent@example.com",
            "zendesk_token": "t0ken",
            **settings,
        }
        return Worker(pool, make_settings(**values))

    return make


async def test_the_sender_is_known_before_the_handler_runs(
    pool: "Pool[asyncpg.Record]", zendesk: FakeZendesk, worker: Callable[..., Worker]
) -> None:
    email_ids = [await store(pool, number=number) for number in (1, 2, 3)]
    running = worker()
    for email_id in email_ids:
        row, story = await running.process(email_id)
        assert row["processing_status"] == "completed"
        assert (row["from_email"], row["from_name"]) == ("kim@example.org", "Kim Example")
        assert "its sender was looked up" in story
    assert running.seen == [("kim@example.org", "Kim Example")] * 3
    # One answer serves for all of them.
    token = base64.b64encode(b"agent@example.com/token:t0ken").decode()
    assert zendesk.asked == [(f"/api/v2/users/{KIM}.json", f"Basic {token}")]


async def test_without_a_token_the_row_says_so_and_is_processed(
    pool: "Pool[asyncpg.Record]", zendesk: FakeZendesk, worker: Callable[..., Worker]
) -> None:
    row, story = await worker(zendesk_token="").process(await store(pool))
    assert (row["processing_status"], row["from_email"]) == ("completed", "")
    assert "MAILROOM_ZENDESK_TOKEN" in story
    assert zendesk.asked == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {}, {"error": "RecordNotFound", "description": "Not found"}), "no address"),
        ((200, {}, user(email=None)), "no address"),
        ((200, {}, {"users": []}), "no address"),
        ((200, {}, []), "no address"),
        ((401, {}, {"error": "Couldn't authenticate you"}), "MAILROOM_ZENDESK_TOKEN"),
    ],
)
async def test_what_asking_again_cannot_mend_fails_nothing(
    pool: "Pool[asyncpg.Record]",
    zendesk: FakeZendesk,
    worker: Callable[..., Worker],
    answer: tuple[int, dict[str, str], Any],
    said: str,
) -> None:
    zendesk.answers = [answer]
    row, story = await worker().process(await store(pool))
    assert (row["processing_status"], row["from_email"]) == ("completed", "")
    assert said in story


async def test_the_limit_of_requests_is_heeded(
    pool: "Pool[asyncpg.Record]", zendesk: FakeZendesk, worker: Callable[..., Worker]
) -> None:
    zendesk.answers = [
        (429, {"Retry-After": "93"}, {"error": "TooManyRequests"}),
        (200, {}, user()),
    ]
    first, second = [await store(pool, number=number) for number in (1, 2)]
    running = worker()
    for email_id in (first, second):
        row, story = await running.process(email_id)
        assert row["processing_status"] == "queued"
        assert "asks to wait" in story
        wait = row["next_attempt_at"] - row["updated_at"]
        assert 0 < wait.total_seconds() <= 93
    # The second one did not ask.
    assert len(zendesk.asked) == 1
    assert running.seen == []


async def test_a_short_wait_is_waited_for(
    pool: "Pool[asyncpg.Record]", zendesk: FakeZendesk, worker: Callable[..., Worker]
) -> None:
    zendesk.answers = [(429, {"Retry-After": "0.2"}, {}), (200, {}, user())]
    row, _ = await worker().process(await store(pool))
    assert (row["processing_status"], row["from_email"]) == ("completed", "kim@example.org")
    assert row["retry_count"] == 0


async def test_where_zendesk_stays_away_the_email_is_processed_in_the_end(
    pool: "Pool[asyncpg.Record]", zendesk: FakeZendesk, worker: Callable[..., Worker]
) -> None:
    zendesk.answers = [(503, {}, {})]
    email_id = await store(pool)
    running = worker(max_retries=1)
    row, _ = await running.process(email_id)
    assert row["processing_status"] == "queued"
    await pool.execute("UPDATE incoming_emails SET next_attempt_at = NULL")
    row, story = await running.process(email_id)
    assert (row["processing_status"], row["from_email"]) == ("completed", "")
    assert "answers 503" in story


async def test_the_token_follows_no_redirect(
    pool: "Pool[asyncpg.Record]",
    zendesk: FakeZendesk,
    elsewhere: FakeZendesk,
    worker: Callable[..., Worker],
) -> None:
    zendesk.answers = [(302, {"Location": f"{elsewhere.url}/api/v2/users/{KIM}.json"}, {})]
    row, story = await worker().process(await store(pool))
    assert row["processing_status"] == "completed"
    assert elsewhere.asked == []
    assert "answers 302" in story
    assert "t0ken" not in story


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {}, user(role="admin")), "admin"),
        ((401, {}, {"error": "Couldn't authenticate you"}), "answers 401: see MAILROOM_ZENDESK"),
        # As whoever shows no token is answered.
        ((200, {}, user(id=None, name="Anonymous user")), "see MAILROOM_ZENDESK_EMAIL, MAILROOM"),
        ((200, {}, user()), "is no agent: let MAILROOM_ZENDESK_EMAIL name one"),
        ((404, {}, {}), "see MAILROOM_ZENDESK_EMAIL, MAILROOM_ZENDESK_TOKEN and the address"),
        ((503, {}, {}), "answers 503"),
    ],
)
async def test_whose_the_token_is(
    zendesk: FakeZendesk, answer: tuple[int, dict[str, str], Any], said: str
) -> None:
    zendesk.answers = [answer]
    client = ZendeskClient(
        make_settings(
            zendesk_url=zendesk.url, zendesk_email="agent@example.com", zendesk_token="t0ken"
        )
    )
    if said in ROLES:
        assert await own_role(client) == said
    else:
        with pytest.raises(ZendeskError, match=said):
            await own_role(client)
    await client.close()
    assert [path for path, _ in zendesk.asked] == ["/api/v2/users/me.json"]


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        ({"event": {"comment": {"author": {"id": 5}}}, "detail": {"requester_id": "1"}}, "5"),
        ({"event": {}, "detail": {"requester_id": "1"}}, "1"),
        ('{"detail": {"requester_id": 1}}', "1"),
        ({"detail": {"requester_id": True}}, None),
        ({"detail": []}, None),
        ("not json", None),
        (None, None),
    ],
)
def test_the_writer_of_an_event(payload: object, found: str | None) -> None:
    assert sender_id(payload) == found


@pytest.mark.parametrize(
    "wrong",
    [
        {"zendesk_subdomain": "evil.example.org/"},
        {"zendesk_url": "http://example.zendesk.com"},
        {"zendesk_url": "https://user:pw@example.zendesk.com"},
        {"zendesk_url": "https://example.zendesk.com/api?x=1"},
        {"zendesk_token": "t", "zendesk_email": "a@example.org"},
        {"zendesk_token": "t", "zendesk_subdomain": "example"},
    ],
)
def test_where_a_token_would_go_astray_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises((SettingsError, ValueError), match="MAILROOM_ZENDESK"):
        make_settings(**wrong)
