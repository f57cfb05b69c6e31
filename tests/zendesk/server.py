"""The fake's API as a real HTTP server: who may ask, how often, and which route answers.

A module that adds routes lists them in `ROUTES`; the first that matches answers.
"""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from queue import Queue
from typing import Any

import attrs
import uvicorn
from support import WAIT_SECONDS

from zendesk import ips_api, rules_api, setup_api, suspended_api, tickets_api, webhooks_api
from zendesk.account import AUTHORIZATION, EMAIL, TOKEN, Account
from zendesk.answers import NOT_FOUND, UNAUTHORIZED, Answer, Asked, Route, parse_query
from zendesk.ips_api import IPS

ROUTES: list[Route] = [
    *tickets_api.ROUTES,
    *webhooks_api.ROUTES,
    *rules_api.ROUTES,
    *setup_api.ROUTES,
    *suspended_api.ROUTES,
    *ips_api.ROUTES,
]

WINDOW_SECONDS = 60.0
# As recorded, and for exports as documented; a minute each.
LIMITS = {"api": 700, "webhooks": 100, "webhook tests": 20, "exports": 10}


@attrs.define
class FakeApi:
    """The API of an account at `url`."""

    account: Account
    asked: list[Asked] = attrs.field(factory=list)
    answers: deque[Answer] = attrs.field(factory=deque)
    """What is answered next, in place of the routes' own answers."""
    instead: Callable[[Asked], Answer | None] | None = None
    """What it answers in place of a route; None has the route answer."""
    limits: dict[str, int] = attrs.field(factory=lambda: dict(LIMITS))
    too_many: int = 0
    """Requests that came over a limit."""
    url: str = ""
    _times: dict[str, deque[float]] = attrs.field(factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """What `make_settings` needs so that this is the account."""
        return {"zendesk_url": self.url, "zendesk_email": EMAIL, "zendesk_token": TOKEN}

    @property
    def environment(self) -> dict[str, str]:
        """The same, for a process."""
        return {f"MAILROOM_{name.upper()}": value for name, value in self.settings.items()}

    def unlimited(self) -> None:
        """Let it be asked as often as one likes."""
        self.limits = dict.fromkeys(LIMITS, 10**8)

    def asked_for(self, part: str) -> list[Asked]:
        """The requests with this in their path."""
        return [asked for asked in self.asked if part in asked.path]

    def respond(self, asked: Asked) -> Answer:
        """Answer one request."""
        self.asked.append(asked)
        if self.answers:
            return self.answers.popleft()
        if asked.path != IPS and asked.headers.get("authorization") != AUTHORIZATION:
            return UNAUTHORIZED
        name = _limit_of(asked.path)
        times = self._times.setdefault(name, deque())
        now = time.monotonic()
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        reset = int(times[0] + WINDOW_SECONDS - now) + 1 if times else int(WINDOW_SECONDS)
        if len(times) >= self.limits[name]:
            self.too_many += 1
            wait = {"retry-after": str(reset)}
            return Answer(429, {"error": "TooManyRequests", "description": "slow down"}, wait)
        times.append(now)
        answer = (self.instead and self.instead(asked)) or self._route(asked)
        told = _told(name, self.limits[name], self.limits[name] - len(times), reset)
        return attrs.evolve(answer, headers={**told, **answer.headers})

    def _route(self, asked: Asked) -> Answer:
        path = asked.path.removeprefix("/api/v2").removesuffix(".json")
        for route in ROUTES:
            if route.method == asked.method and (match := route.pattern.fullmatch(path)):
                return route.respond(self.account, attrs.evolve(asked, found=match.groupdict()))
        return NOT_FOUND

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = parse_query(scope["query_string"].decode())
        answer = self.respond(Asked(scope["method"], scope["path"], query, headers, body))
        content = b"" if answer.content is None else json.dumps(answer.content).encode()
        sent = {
            "content-type": "application/json; charset=utf-8",
            "content-length": str(len(content)),
            "date": format_datetime(datetime.now(UTC), usegmt=True),
            **answer.headers,
        }
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(k.encode(), v.encode()) for k, v in sent.items()],
            }
        )
        await send({"type": "http.response.body", "body": content})


def _limit_of(path: str) -> str:
    if path.startswith("/api/v2/webhooks"):
        return "webhook tests" if path.endswith("/webhooks/test") else "webhooks"
    return "exports" if "/incremental/" in path else "api"


def _told(name: str, limit: int, left: int, reset: int) -> dict[str, str]:
    pair = {"x-rate-limit": str(limit), "x-rate-limit-remaining": str(left)}
    if name.startswith("webhook"):
        return pair
    if name == "exports":
        # As recorded: these are the whole API's.
        pair = {"x-rate-limit": "700", "x-rate-limit-remaining": "698"}
        return {
            "ratelimit-limit": "700",
            "ratelimit-remaining": "698",
            "ratelimit-reset": "12",
        } | pair
    return {
        "rate-limit": str(limit),
        "rate-limit-remaining": str(left),
        "rate-limit-reset": str(reset),
        **pair,
    }


@contextlib.asynccontextmanager
async def running_api(account: Account) -> AsyncIterator[FakeApi]:
    """The API answers while the block runs, in its event loop."""
    api = FakeApi(account)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        api.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            api, log_config=None, lifespan="off", timeout_keep_alive=60, date_header=False
        )
        server = uvicorn.Server(config)
        # `serve` would take over the signals of the tests' process.
        serving = asyncio.create_task(server._serve([listening]))
        try:
            while not server.started:
                assert not serving.done(), serving
                await asyncio.sleep(0.005)
            yield api
        finally:
            server.should_exit = server.force_exit = True
            await serving


@contextlib.contextmanager
def api_in_thread(account: Account) -> Iterator[FakeApi]:
    """The same for tests without an event loop of their own, such as those of processes."""
    started: Queue[FakeApi | BaseException] = Queue()
    loop = asyncio.new_event_loop()
    is_over = asyncio.Event()

    async def run() -> None:
        try:
            async with running_api(account) as api:
                started.put(api)
                await is_over.wait()
        except BaseException as error:
            started.put(error)
            raise

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    api = started.get(timeout=WAIT_SECONDS)
    if isinstance(api, BaseException):
        raise api
    try:
        yield api
    finally:
        loop.call_soon_threadsafe(is_over.set)
        thread.join(WAIT_SECONDS)
        loop.close()
