"""A load of signed webhooks, each sent again and again until it is answered 200, as Zendesk would.

The drill and the storms of the fault tests send theirs by it.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from uuid import UUID

import attrs
import httpx2

from app.errors import MailroomError

SENDERS = 12
ANSWER_SECONDS = 15.0
PAUSE_SECONDS = 0.2
LOOK_EVERY_SECONDS = 0.5


class UnexpectedAnswerError(MailroomError):
    """A webhook was answered by something else than Mailroom's 200 or 503."""


class UnansweredError(MailroomError):
    """A webhook was not answered 200 in time."""


@attrs.frozen
class Webhook:
    """One signed request."""

    content: bytes = attrs.field(repr=False)
    headers: dict[str, str] = attrs.field(repr=False)


@attrs.frozen
class Unanswered:
    """One that was given up before its 200; its email may be stored all the same."""

    webhook: Webhook
    reason: str
    """The status of its last try, or why there was none."""


class Load:
    """Posts webhooks from a thread of its own.

    Args:
        urls: of the webhook; one of them is drawn for each try.
        per_second: webhooks in all; infinity: as many as are answered.
        draw: makes the webhooks of one email; they are sent one after the other.
        chance: draws the URLs.
    """

    def __init__(
        self,
        urls: Sequence[str],
        per_second: float,
        draw: Callable[[], Sequence[Webhook]],
        chance: random.Random,
    ) -> None:
        self.accepted: dict[UUID, float] = {}
        """The emails that were answered 200, and when, by the monotonic clock."""
        self.answers: Counter[int | str] = Counter()
        """How often there was which status, or none for which reason."""
        self.sent = 0
        """Webhooks, each counted once."""
        self.unanswered: list[Unanswered] = []
        """What was given up."""
        self.longest_seconds = 0.0
        """From a webhook's first try to its 200."""
        self._urls = urls
        self._pause = SENDERS / per_second
        self._draw = draw
        self._chance = chance
        self._stopping = threading.Event()
        self._given_up = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    async def send_one(self, patience_seconds: float) -> None:
        """Send one email, before all others.

        Raises:
            UnansweredError: it is not answered 200 within that time.
            UnexpectedAnswerError: an answer that none may be.
        """
        try:
            async with asyncio.timeout(patience_seconds), _make_client() as client:
                await self._send_email(client)
        except TimeoutError as error:
            reasons = ", ".join(map(str, self.answers)) or "no answer"
            raise UnansweredError(
                f"a webhook was not answered 200 within {patience_seconds:g} seconds ({reasons}): "
                "see that `mailroom web` runs, and that the URL leads to it"
            ) from error

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def check(self) -> None:
        """Raise what ended it.

        Raises:
            UnexpectedAnswerError: an answer that none may be.
        """
        if self._error is not None:
            raise self._error

    def stop(self, patience_seconds: float | None = None) -> None:
        """Send no further email, and wait until each is answered 200.

        Args:
            patience_seconds: what is not answered by then is given up. None: nothing is.

        Raises:
            UnexpectedAnswerError: an answer that none may be.
        """
        self._stopping.set()
        self._thread.join(patience_seconds)
        self.give_up()
        self.check()

    def give_up(self) -> None:
        """End, whatever was answered."""
        self._given_up.set()
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._send_all())
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            self._error = error

    async def _send_all(self) -> None:
        async with _make_client() as client:
            await asyncio.gather(*(self._send_some(client) for _ in range(SENDERS)))

    async def _send_some(self, client: httpx2.AsyncClient) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            await self._send_email(client)
            ends = began + self._pause
            # Whoever stops it is in another thread.
            while (left := ends - time.monotonic()) > 0 and not self._stopping.is_set():  # noqa: ASYNC110
                await asyncio.sleep(min(LOOK_EVERY_SECONDS, left))

    async def _send_email(self, client: httpx2.AsyncClient) -> None:
        for webhook in self._draw():
            self.sent += 1
            await self._deliver(client, webhook)

    async def _deliver(self, client: httpx2.AsyncClient, webhook: Webhook) -> None:
        began = time.monotonic()
        reason = "not tried"
        while not self._given_up.is_set():
            url = self._chance.choice(self._urls)
            try:
                # The client's own limits are of each part of an answer.
                async with asyncio.timeout(ANSWER_SECONDS):
                    answer = await client.post(
                        url, content=webhook.content, headers=webhook.headers
                    )
            except (httpx2.HTTPError, TimeoutError) as error:
                reason = type(error).__name__
                self.answers[reason] += 1
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self.answers[answer.status_code] += 1
            if answer.status_code == httpx2.codes.OK:
                now = time.monotonic()
                self.longest_seconds = max(self.longest_seconds, now - began)
                # Of several webhooks of one email the first ones are only acknowledged.
                if (email_id := _email_id(answer)) is not None:
                    self.accepted[email_id] = now
                return
            if answer.status_code != httpx2.codes.SERVICE_UNAVAILABLE:
                raise UnexpectedAnswerError(
                    f"a webhook was answered {answer.status_code}, which Zendesk does not repeat: "
                    f"{answer.text}"
                )
            reason = str(answer.status_code)
            await asyncio.sleep(PAUSE_SECONDS)
        self.unanswered.append(Unanswered(webhook, reason))


def _make_client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=ANSWER_SECONDS)


def _email_id(answer: httpx2.Response) -> UUID | None:
    """Which email a webhook made; None where it made none.

    Raises:
        UnexpectedAnswerError: somebody else than Mailroom answers.
    """
    try:
        content = answer.json()
        return None if content["status"] == "acknowledged" else UUID(content["email_id"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnexpectedAnswerError("a webhook was answered 200 by no Mailroom") from error
