"""Operators' passwords: hashed beside the event loop, few at once."""

import asyncio
import threading

import pytest
from litestar.exceptions import ServiceUnavailableException
from piccolo.apps.user.tables import BaseUser
from support import wait_until

from app.desk.operators import HASHES_AT_ONCE, MOST_WAITING, Operator, hash_aside


class Hasher:
    """Stands in for Piccolo's hash: counts how many run at once, until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.running = 0
        self.most = 0
        self.threads: set[int] = set()
        self._lock = threading.Lock()

    def __call__(self, password: str, salt: str = "", iterations: int | None = None) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.threads.add(threading.get_ident())
        assert self.let_go.wait(60)
        with self._lock:
            self.running -= 1
        return "hashed"


@pytest.fixture
def hasher(monkeypatch: pytest.MonkeyPatch) -> Hasher:
    hasher = Hasher()
    monkeypatch.setattr(BaseUser, "hash_password", hasher)
    return hasher


async def until_running(hasher: Hasher, count: int) -> None:
    await asyncio.to_thread(wait_until, lambda: hasher.running >= count)


async def test_a_few_are_hashed_at_once_and_the_event_loop_goes_on(hasher: Hasher) -> None:
    tasks = [asyncio.create_task(hash_aside(f"guess {n}")) for n in range(24)]
    # This loop turns although none of them is done.
    await until_running(hasher, HASHES_AT_ONCE)
    assert not any(task.done() for task in tasks)
    hasher.let_go.set()
    await asyncio.gather(*tasks)
    assert hasher.most == HASHES_AT_ONCE
    assert threading.get_ident() not in hasher.threads


async def test_who_would_wait_in_a_long_line_is_told_to_come_again(hasher: Hasher) -> None:
    tasks = [asyncio.create_task(hash_aside("guess")) for _ in range(MOST_WAITING)]
    await until_running(hasher, HASHES_AT_ONCE)
    with pytest.raises(ServiceUnavailableException):
        await hash_aside("guess")
    hasher.let_go.set()
    await asyncio.gather(*tasks)
    assert await hash_aside("guess") == "hashed"


async def test_what_piccolo_hashed_is_understood() -> None:
    hashed = BaseUser.hash_password("a password", "salt", 1_000)
    assert await hash_aside("a password", "salt", 1_000) == hashed
    assert Operator._meta.tablename == BaseUser._meta.tablename
