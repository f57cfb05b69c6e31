"""A team's own system that gets deliveries in a storm: it fails, hangs, answers 429, drops
connections before and after it has taken something, and is away at times."""

import asyncio
import random
import threading
from collections import Counter, defaultdict
from uuid import UUID

from fake_receiver import Delivery, FakeReceiver, Respond, answer, die, hang

OK = answer(204)
BUSY = answer(429, retry_after="1")


class FlakyReceiver:
    """Takes deliveries in a thread of its own, and writes down in which order it took them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._fake = FakeReceiver()
        self._fake.respond = self._respond
        self.url = self._fake.url
        self.answers: Counter[str] = Counter()
        self.is_away = False
        self.taken: dict[UUID, list[tuple[int, str]]] = defaultdict(list)
        """Of each email the numbers of the results that it took, with the id of each delivery."""
        self.told_erased: dict[UUID, int] = {}
        """Of each email that it was told to erase, how many results it had taken before."""
        self._ids_of: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        """The ids in the bodies of all requests, by the `webhook-id` in the header."""
        self._headers_of: dict[tuple[str, ...], set[str]] = defaultdict(set)
        self._misnamed: list[tuple[str, tuple[str, ...]]] = []
        """Of those that came alone, whose header has another id than their body."""
        self._kinds: list[tuple[str, int, Respond]] = [
            ("500", 3, answer(500, b"no disk")),
            ("502", 2, answer(502)),
            ("429", 2, BUSY),
            ("hung", 1, hang),
            ("died before", 3, die),
        ]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def check(self, finished: dict[UUID, tuple[str, str, int]]) -> None:
        """See that each completed email was taken, its last result last, and that what was taken
        several times bore one id, and each request that came several times one `webhook-id`.

        Args:
            finished: the state, the state of the delivery, and the number of the result, by email.

        Raises:
            AssertionError: that is not so.
        """
        assert not self._misnamed, self._misnamed
        for told in (self._ids_of, self._headers_of):
            several = {one: others for one, others in told.items() if len(others) > 1}
            assert not several, f"not one webhook-id for one request: {several}"
        for email_id, (state, sync_status, version) in finished.items():
            if state != "completed":
                continue
            taken = self.taken.get(email_id)
            assert taken, f"{email_id} was never delivered, and is {sync_status}"
            assert sync_status == "synced", f"{email_id} is {sync_status}"
            assert taken[-1][0] == version, f"{email_id}: {taken}, and its last is {version}"
            ids = defaultdict(set)
            for number, webhook_id in taken:
                ids[number].add(webhook_id)
            assert all(len(of_one) == 1 for of_one in ids.values()), (email_id, taken)
            assert len(set.union(*ids.values())) == len(ids), (email_id, taken)

    def check_erased(self, erased: set[UUID]) -> None:
        """See that of each email that is gone the last that it was told is that, if it had it.

        Raises:
            AssertionError: that is not so.
        """
        for email_id, taken_before in self.told_erased.items():
            assert len(self.taken[email_id]) == taken_before, f"{email_id} came after its erasure"
        untold = {one for one in erased if self.taken.get(one) and one not in self.told_erased}
        assert not untold, f"it was not told that these were erased: {untold}"

    def twice(self) -> int:
        """How many emails it took several times with the same result."""
        return sum(len(set(taken)) < len(taken) for taken in self.taken.values())

    async def _respond(self, delivery: Delivery, writer: asyncio.StreamWriter) -> None:
        # What is taken is all that this has to keep of it.
        self._fake.deliveries.clear()
        self._note_ids(delivery)
        await self._draw(delivery)(delivery, writer)

    def _note_ids(self, delivery: Delivery) -> None:
        ids = tuple(event["id"] for event in delivery.events)
        self._ids_of[delivery.webhook_id].add(ids)
        self._headers_of[ids].add(delivery.webhook_id)
        if isinstance(delivery.json, dict) and ids != (delivery.webhook_id,):
            self._misnamed.append((delivery.webhook_id, ids))

    def _draw(self, delivery: Delivery) -> Respond:
        if self.is_away:
            self.answers["away"] += 1
            return die
        drawn = self._chance.randrange(100)
        for name, share, respond in self._kinds:
            drawn -= share
            if drawn < 0:
                self.answers[name] += 1
                return respond
        for event in delivery.events:
            email_id = UUID(event["data"]["id"])
            if event["type"] == "email.erased":
                self.told_erased.setdefault(email_id, len(self.taken[email_id]))
                continue
            self.taken[email_id].append((event["data"]["version"], event["id"]))
        if drawn < 3:
            self.answers["died after"] += 1
            return die
        self.answers["204"] += 1
        return OK

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._fake.start())
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()
