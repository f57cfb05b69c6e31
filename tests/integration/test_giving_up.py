"""A worker process whose event loop is blocked ends, whatever it still finds there."""

import asyncio
from collections.abc import Iterator
from typing import Any, NoReturn

import asyncpg
import pytest
from support import make_settings

from app.jobs import keeper as keeper_module
from app.jobs.keeper import BLOCKED_EXIT_STATUS, Keeper
from app.jobs.leases import HeldClaims


class Exited(BaseException):
    """In the place of the end of this process."""


@pytest.fixture
def loop_of_actors() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("ran", [True, False])
async def test_it_ends_though_the_last_late_handler_has_just_ended(
    pool: "asyncpg.Pool[asyncpg.Record]",
    loop_of_actors: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    ran: bool,
) -> None:
    async def freeze(*_: Any) -> bool:
        return ran

    def exit_with(status: int) -> NoReturn:
        raise Exited(status)

    monkeypatch.setattr(keeper_module, "freeze", freeze)
    monkeypatch.setattr(keeper_module.os, "_exit", exit_with)
    keeper = Keeper(
        make_settings(),
        held_claims=HeldClaims(),
        actors_loop=loop_of_actors,
        actors_thread_id=None,
        concurrency=1,
        ahead=lambda: 0,
        send=lambda _: None,
        ring=lambda: None,
        send_canary=lambda _: None,
    )
    with pytest.raises(Exited, match=str(BLOCKED_EXIT_STATUS)):
        await keeper._give_up(pool)
