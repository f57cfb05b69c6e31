"""`mailroom up` starts its database again beside all else that it does."""

import threading

import pytest
from support import wait_until

from app.cli import up
from app.cli.up import _DatabaseStarter
from app.database.engine import DB


class SlowServer:
    """Takes its time to start."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_start = threading.Semaphore(0)

    def acquire(self) -> None:
        self.asked += 1
        self.may_start.acquire()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_a_database_that_starts_slowly_holds_nothing_up_and_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = SlowServer()
    monkeypatch.setattr(DB, "embedded", server)
    starter = _DatabaseStarter()
    for _ in range(3):
        starter.see_to()
    wait_until(lambda: server.asked)
    assert server.asked == 1
    server.may_start.release()
    wait_until(lambda: up.THREAD not in threads())
    starter.see_to()
    wait_until(lambda: server.asked == 2)
    server.may_start.release()
    wait_until(lambda: up.THREAD not in threads())
