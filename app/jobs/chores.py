"""Chores: what is done now and then, by one process at a time of all that run.

`app/chores_of.py` lists them. Every worker process looks for those that are due; the row of each in
the table `chores` says who does it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import asyncpg
import attrs

from app.errors import MailroomError

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


class ChoreLostError(MailroomError):
    """Another process may do the chore by now: whoever does it here has to stop at once."""


class ChoreRunningError(MailroomError):
    """A chore that was asked for is being done by another process."""


@attrs.frozen
class ChoreContext:
    """What a chore works with."""

    pool: Pool
    stopping: asyncio.Event
    """Is set when the process ends: a chore ends soon then, and is cancelled else."""

    note: Callable[[str], Awaitable[None]]
    """Says to operators how far it is, in words without personal data.

    Raises:
        ChoreLostError: another process may do the chore by now.
    """


@attrs.frozen
class Chore:
    """Something to be done now and then.

    What it raises is logged and recorded, and it is done again after a pause that grows.
    """

    name: str
    """How operators know it: a word or two, with hyphens."""

    every_seconds: float
    """The pause between its end and its next run."""

    run: Callable[[ChoreContext], Awaitable[str | None]]
    """Returns what was done, for operators, without personal data; None: what was said before
    stays. It may be cancelled at each `await`, and may be killed: what it does is done in
    transactions, each of which leaves all in order."""
