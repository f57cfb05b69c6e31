"""The search of a list that shows one state at a time of what belongs to emails: it is a search for
emails, as at `/emails`, in which that state is always named. So what is done to all that match is a
bulk action on what this very text finds."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from enum import StrEnum
from typing import Generic, TypeVar

import attrs

from app.api.search import Search, SearchError
from app.api.search_text import SearchTextError, read_search
from app.database.engine import running_pool
from app.desk.lists import counted, page_address
from app.desk.operators import Operator
from app.i18n.texts import gettext as _
from app.search.entries import catch_up

# As of the list of emails: every search has an index, this bounds what no statistics foresaw.
LONGEST_SEARCH_SECONDS = 5

State = TypeVar("State", bound=StrEnum)
Found = TypeVar("Found")


@attrs.frozen
class Narrowed:
    """A search that names a state."""

    text: str
    search: Search


def read_narrowed(
    text: str, user: Operator, *, qualifier: str, field: str, shown: Collection[State]
) -> Narrowed:
    """The search that a text asks for, in the first of the states where it names none.

    Args:
        qualifier: by which the state is typed.
        field: of the `Search` that has it.
        shown: the states that the list has.

    Raises:
        SearchTextError: says what is wrong and what exists.
    """
    text = text.strip()
    search = read_search(text)
    user.see_that_it_may_search(search)
    state = getattr(search, field)
    if state is None:
        text = f"{qualifier}:{next(iter(shown))} {text}".strip()
        return Narrowed(text, read_search(text))
    if state not in shown:
        raise SearchTextError(
            _(
                "%(field)s: is one of %(values)s on this page, not %(value)s",
                field=qualifier,
                values=", ".join(shown),
                value=state,
            )
        )
    return Narrowed(text, search)


@attrs.frozen
class Listed(Generic[Found]):
    """What the search of such a list brought."""

    text: str
    """It names a state, if it can be understood."""
    found: list[Found]
    wrong: str | None = None
    """Why nothing was searched."""


async def list_narrowed(
    text: str,
    user: Operator,
    find: Callable[[Search], Awaitable[list[Found]]],
    *,
    qualifier: str,
    field: str,
    shown: Collection[State],
) -> Listed[Found]:
    """What a text finds; see `read_narrowed`.

    Args:
        find: looks by a search that names a state, through `find_narrowed`.
    """
    try:
        narrowed = read_narrowed(text, user, qualifier=qualifier, field=field, shown=shown)
        text = narrowed.text
        return Listed(text, await find(narrowed.search))
    except SearchTextError as error:
        return Listed(text, [], str(error))


def state_chips(
    path: str, qualifier: str, text: str, states: Iterable[tuple[str, StrEnum, int]]
) -> list[tuple[str, str, bool]]:
    """The ways to each state of a list: its name and count, its address, whether it is shown.

    Args:
        text: what is searched.
        states: each with its name, and how many there are in it.
    """
    return [
        (f"{name} ({counted(many)})", page_address(path, q=search), text == search)
        for name, search, many in (
            (name, f"{qualifier}:{state}", many) for name, state, many in states
        )
    ]


async def find_narrowed(
    search: Search, find: Callable[[str, list[object]], Awaitable[list[Found]]]
) -> list[Found]:
    """What a search finds, in bounded time.

    Args:
        find: looks by a condition on emails in SQL, and its parameters.

    Raises:
        SearchTextError: a value that no email has, or it takes too long.
    """
    parameters: list[object] = []
    try:
        condition = search.where(parameters)
        async with asyncio.timeout(LONGEST_SEARCH_SECONDS):
            if search.asks_index() is not None:
                await catch_up(running_pool())
            return await find(condition, parameters)
    except SearchError as wrong:
        raise SearchTextError(str(wrong)) from wrong
    except TimeoutError:
        raise SearchTextError(
            _(
                "it was not searched to its end in %(seconds)s seconds: narrow it down, as by "
                "received:2026-11-01.. or status:failed",
                seconds=LONGEST_SEARCH_SECONDS,
            )
        ) from None
