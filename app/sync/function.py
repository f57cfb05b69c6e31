"""The other way than HTTP: a function of the team's own, named by MAILROOM_SYNC.

    async def deliver(event: Event) -> None

With MAILROOM_SYNC_BATCH above 1 it is given a list of events. It may be no async function, too;
then it runs in a thread. That it returns means delivered. What it raises is a failure, and tried
again; `Retry(after=...)` says when, and `PermanentFailure` that no try can help.
"""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from app.errors import MailroomError
from app.handlers.loading import HandlerLoadError, import_function
from app.handlers.seam import PermanentFailure, Retry
from app.models.fit import fit_text
from app.settings import Settings
from app.sync.answers import DELIVERED, LONGEST_ANSWER, Verdict, unreached
from app.sync.event import Event
from app.sync.hanging_threads import AllHungError, HangingThreads
from app.telemetry.metrics import DeliveryFailure

# A thread cannot be ended: so many may hang before nothing is begun any more.
MOST_HUNG = 50

__all__ = ["Event", "FunctionReceiver", "PermanentFailure", "Retry"]


class FunctionLoadError(MailroomError):
    """The function that MAILROOM_SYNC names cannot be used."""


def load_function(path: str) -> Callable[..., Any]:
    """Import the function that delivers.

    Raises:
        FunctionLoadError: there is none, or it takes other arguments than one.
    """
    try:
        function = import_function(path, setting="MAILROOM_SYNC")
        inspect.signature(function).bind(None)
    except HandlerLoadError as error:
        raise FunctionLoadError(str(error)) from error
    except (TypeError, ValueError) as error:
        raise FunctionLoadError(
            f"MAILROOM_SYNC: {path} has to take one argument: `async def deliver(event)`"
        ) from error
    return function


class FunctionReceiver:
    """Delivers by calling a function."""

    def __init__(self, settings: Settings, function: Callable[..., Any]) -> None:
        self._function = function
        self._is_batch = settings.sync_batch > 1
        self._seconds = settings.sync_timeout_seconds
        self._threads: HangingThreads | None = None
        if not inspect.iscoroutinefunction(function):
            self._threads = HangingThreads(settings.sync_concurrency + MOST_HUNG)

    async def deliver(self, events: Sequence[Event]) -> Verdict:
        """Hand events over, with one call."""
        given = list(events) if self._is_batch else events[0]
        try:
            async with asyncio.timeout(self._seconds):
                await self._call(given)
        except PermanentFailure as error:
            return Verdict(
                error=_said(error),
                reason="the function refused it",
                kind=DeliveryFailure.FUNCTION,
                is_final=True,
                told="the function refused it",
            )
        except Retry as error:
            told = "the function asked for a retry"
            return Verdict(
                error=_said(error),
                reason=told,
                kind=DeliveryFailure.FUNCTION,
                pause=error.after,
                told=told,
            )
        except AllHungError as error:
            # It was not called, so this is no try.
            reason = f"{error} of {self._name}"
            return attrs.evolve(unreached(reason), counts=False, told=None)
        except TimeoutError:
            return unreached(f"{self._name} took longer than {self._seconds:g} seconds")
        except asyncio.CancelledError:
            if _is_being_cancelled():
                raise
            return unreached(f"{self._name} was cancelled")
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it raises is a failure
            # SystemExit, too: it would end this thread, and all deliveries with it.
            name = type(error).__name__
            return unreached(f"{name}: {_said(error)}", reason=f"{self._name} raised {name}")
        return DELIVERED

    async def aclose(self) -> None:
        """What runs in a thread runs on."""

    @property
    def _name(self) -> str:
        return getattr(self._function, "__name__", "the function")

    async def _call(self, given: Any) -> None:
        if self._threads is None:
            await self._function(given)
        else:
            await self._threads.call(self._function, given)


def _is_being_cancelled() -> bool:
    """Whether somebody cancels this task: a function may raise the same of its own accord."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _said(error: BaseException) -> str:
    with contextlib.suppress(Exception):
        return fit_text(str(error))[:LONGEST_ANSWER]
    return "it cannot be shown"
