"""A look that is shared by all who ask."""

import asyncio

import pytest

from app.api.look import Look


class Thing:
    """What is looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.may_end = asyncio.Event()
        self.fails = False

    async def look(self) -> int:
        self.looks += 1
        await self.may_end.wait()
        if self.fails:
            raise OSError("away")
        return self.looks


async def test_all_who_ask_meanwhile_share_one_look() -> None:
    thing = Thing()
    look = Look(thing.look, rest_seconds=lambda cost: 60.0)
    asking = [asyncio.create_task(look.see()) for _ in range(10)]
    await asyncio.sleep(0)
    thing.may_end.set()
    assert await asyncio.gather(*asking) == [1] * 10
    assert await look.see() == 1


async def test_without_a_rest_each_asks_anew_and_a_failure_is_told() -> None:
    thing = Thing()
    thing.may_end.set()
    look = Look(thing.look, rest_seconds=lambda cost: 0.0)
    assert await look.see() == 1
    thing.fails = True
    with pytest.raises(OSError, match="away"):
        await look.see()
    thing.fails = False
    assert await look.see() == 3


async def test_a_failure_is_remembered_too() -> None:
    thing = Thing()
    thing.may_end.set()
    thing.fails = True
    look = Look(thing.look, rest_seconds=lambda cost: 60.0)
    for _ in range(3):
        with pytest.raises(OSError, match="away"):
            await look.see()
    assert thing.looks == 1


async def test_who_has_no_patience_sees_what_was_seen_before() -> None:
    thing = Thing()
    look = Look(thing.look, rest_seconds=lambda cost: 0.0, patience_seconds=0.0, at_first=0)
    assert await look.see() == 0
    assert await look.see() == 0
    assert thing.looks == 1
    await look.close()


async def test_none_may_serve_before_anything_was_seen() -> None:
    thing = Thing()
    look = Look[int | None](
        thing.look, rest_seconds=lambda cost: 60.0, patience_seconds=0.0, at_first=None
    )
    assert await look.see() is None
    thing.may_end.set()
    await look.close()


async def test_whoever_gives_up_does_not_end_the_look_of_the_others() -> None:
    thing = Thing()
    look = Look(thing.look, rest_seconds=lambda cost: 60.0)
    one, other = (asyncio.create_task(look.see()) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    thing.may_end.set()
    assert await other == 1
