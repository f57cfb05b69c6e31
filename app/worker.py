"""What `dramatiq app.worker` loads: the broker, the actor `process_email`, and its keeper."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.util import Finalize
from typing import NoReturn, TypeVar
from uuid import UUID

import asyncpg
import dramatiq
import structlog
from dramatiq.asyncio import EventLoopThread, get_event_loop_thread
from dramatiq.broker import Broker
from dramatiq.middleware import CurrentMessage, Middleware
from dramatiq.worker import Worker

from app.chores_of import chores_of
from app.database.engine import DB, running_pool
from app.database.errors import CANNOT_ASK
from app.database.schema_fit import say_whether_the_schema_fits
from app.ending import (
    FORCED_EXIT_STATUS,
    LAST_WORDS_SECONDS,
    Ending,
    Parent,
    exit_at_once,
    only_once,
)
from app.errors import MailroomError
from app.handlers.loading import Handler, load_handler
from app.jobs.archive import ArchiveThread
from app.jobs.broker import make_broker, prepare_patiently
from app.jobs.chores_thread import ChoresThread
from app.jobs.claimed_email import LateColumns
from app.jobs.claimer import Claimer
from app.jobs.delivery import DeliveryThread
from app.jobs.keeper import Keeper
from app.jobs.late_columns import late_columns_of
from app.jobs.leases import HeldClaims
from app.jobs.messages import ACTOR_NAME, ids_in, is_canary, make_canary_message, make_message
from app.jobs.results import record_all
from app.jobs.transitions.ending import HandBack
from app.jobs.watched_broker import WatchedBroker
from app.settings import Settings, get_settings
from app.sync.function import load_function
from app.sync.receiver import check_receiver
from app.telemetry.logs import configure_logging
from app.telemetry.metrics_port import show_metrics
from app.telemetry.tracing import start_tracing, stop_tracing
from app.zendesk.senders import with_senders

log = structlog.get_logger(__name__)

T = TypeVar("T")

# The status of Dramatiq itself for a worker that cannot be loaded. Starting again is no help.
CANNOT_LOAD_EXIT_STATUS = 2
# Messages whose emails are being claimed at once; one comes while others wait for their answers.
CLAIMED_AT_ONCE = 3
STOP_SECONDS = 5.0
# What a stop takes beyond the time of the handlers, before this process is ended by force.
STOP_MARGIN_SECONDS = 8.0
# What runs as a chore has had the time of the handlers, too.
CHORES_STOP_SECONDS = 2.0
CLOSE_SECONDS = 3.0
POLL_SECONDS = 0.05
# A message passes through six threads, and each of them waits so long for a busy one to let it run:
# with Python's own 5 ms that took longer than all else.
SWITCH_SECONDS = 0.0005


class WorkerProcess(Middleware):
    """Opens what the actors of one process need when it boots, and closes it when it stops."""

    def __init__(
        self,
        settings: Settings,
        handler: Handler,
        ending: Ending,
        delivers: Callable[..., object] | None,
    ) -> None:
        self._settings = settings
        self._delivers = delivers
        self._ending = ending
        self._handler = handler
        self._held_claims = HeldClaims()
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._keeper: Keeper | None = None
        self._archive: ArchiveThread | None = None
        self._delivery: DeliveryThread | None = None
        self._chores: ChoresThread | None = None
        self._claimer: Claimer | None = None
        self._finish_by = 0.0

    @property
    def claimer(self) -> Claimer:
        """What claims the emails of this process.

        Raises:
            RuntimeError: the worker has not booted; a programming error.
        """
        if self._claimer is None:
            raise RuntimeError("the worker has not booted")
        return self._claimer

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        try:
            # A message ends when its emails are claimed: no more of them are needed in hand.
            worker.worker_threads = worker.queue_prefetch = CLAIMED_AT_ONCE
            sys.setswitchinterval(SWITCH_SECONDS)
            self._boot(broker)
        except BaseException as error:  # noqa: BLE001 - Dramatiq would go on, half booted
            self._ending.end_within(CLOSE_SECONDS, 1)
            _end(error)

    def _boot(self, broker: Broker) -> None:
        # Until it has work in hand it can end at once.
        stop_when_ready = signal.signal(signal.SIGTERM, exit_at_once)
        # Dramatiq's processes are multiprocessing's, where atexit does not run. After its own
        # connections are closed, the embedded server may stop.
        Finalize(None, DB.release, exitpriority=0)
        start_tracing()
        thread = _event_loop_thread()
        # Handlers may use the engine's pool, and take their time. What is recorded of an email must
        # not wait for a server that is gone without a word, so it has connections of its own.
        _run(DB.start_connection_pool())
        self._pool = _run(_open_pool())
        _run(say_whether_the_schema_fits())
        show_metrics(self._settings)
        prepare_patiently(broker)
        if self._settings.delivers:
            if self._settings.sync_url:
                _run(check_receiver(self._settings))
            self._delivery = DeliveryThread(self._settings, self._delivers, self._give_up)
            self._delivery.start()
        self._claimer = _run(self._make_claimer(self._pool))
        self._archive = ArchiveThread(self._settings)
        self._archive.start()
        self._chores = ChoresThread(chores_of(self._settings))
        self._chores.start()
        queue = self._settings.queue
        self._keeper = Keeper(
            self._settings,
            held_claims=self._held_claims,
            actors_loop=thread.loop,
            actors_thread_id=thread.ident,
            concurrency=self._settings.worker_concurrency,
            ahead=self._claimer.ahead,
            send=lambda email_ids: self._send(broker, email_ids),
            ring=self._archive.ring,
            send_canary=lambda token: broker.enqueue(make_canary_message(queue, token)),
        )
        self._keeper.start()
        if isinstance(broker, WatchedBroker):
            broker.watch(self._give_up)
        self._ending.say_last(lambda: self._hand_back_all(LAST_WORDS_SECONDS / 4))
        signal.signal(signal.SIGTERM, only_once(stop_when_ready))

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self._finish_by = time.monotonic() + self._settings.worker_shutdown_seconds
        # Messages that wait for places end at once.
        _event_loop_thread().loop.call_soon_threadsafe(self.claimer.close)
        if self._chores is not None:
            self._chores.finish_soon()
        if isinstance(broker, WatchedBroker):
            broker.stop_waiting()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        if self._archive is not None:
            self._archive.stop()
        # Dramatiq knows nothing of the handlers that run.
        _run(self.claimer.finish(max(0.0, self._finish_by - time.monotonic())))
        if self._chores is not None:
            left = self._finish_by - time.monotonic()
            self._chores.stop(max(0.0, min(left, CHORES_STOP_SECONDS)))
        if self._delivery is not None:
            # After the last email ended.
            self._delivery.stop()
        if self._keeper is not None:
            self._keeper.stop()
        unfinished = self._held_claims.all()
        try:
            self._hand_back_all(STOP_SECONDS)
        except CANNOT_ASK as error:
            # The leases run out, and other workers take over.
            log.warning("hand_back_failed", error=type(error).__name__)
        # A handler that works in a thread goes on even if it was cancelled, and Python would wait
        # for it.
        status = self._ending.orderly_status
        self._ending.end_within(CLOSE_SECONDS, status)
        if all(held.task.done() for held in unfinished):
            # It takes its time, in which a handler that was handed back may not run on.
            stop_tracing()
        # Others have the unfinished emails by now; and Dramatiq would end with 0.
        if unfinished or status:
            DB.release()
            os._exit(status)

    async def _make_claimer(self, pool: "asyncpg.Pool[asyncpg.Record]") -> Claimer:
        late = LateColumns(late_columns_of(DB.url))
        ring = self._delivery.ring if self._delivery is not None else None
        return Claimer(self._settings, self._handler, pool, self._held_claims, late, ring)

    def _give_up(self) -> None:
        """Stop in order, and within the time of every stop; then this process is started again."""
        self._ending.orderly_status = FORCED_EXIT_STATUS
        os.kill(os.getpid(), signal.SIGTERM)

    def _hand_back_all(self, seconds: float) -> None:
        if self._pool is not None:
            _run(self._hand_back(self._pool, seconds))

    async def _hand_back(self, pool: "asyncpg.Pool[asyncpg.Record]", seconds: float) -> None:
        """Cancel what is in hand, and after some seconds hand back what did not end by that."""
        for held in self._held_claims.all():
            log.info("handing_back", email_id=str(held.claim.email_id))
            self._held_claims.give_up(held)
        try:
            async with asyncio.timeout(seconds):
                while self._held_claims.all():  # noqa: ASYNC110 - filled by other threads, too
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            async with asyncio.timeout(STOP_SECONDS):
                await record_all(pool, [HandBack(held.claim) for held in self._held_claims.all()])
        finally:
            # A handler that still runs may hold a connection: there is no waiting for it.
            pool.terminate()
            running_pool().terminate()

    def _send(self, broker: Broker, email_ids: Sequence[UUID]) -> None:
        broker.enqueue(make_message(self._settings.queue, email_ids))


async def _open_pool() -> "asyncpg.Pool[asyncpg.Record]":
    return await DB.make_pool(max_size=DB.pool_size)


def _end(error: BaseException) -> NoReturn:
    _event_loop_thread().stop()  # type: ignore[no-untyped-call]
    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, MailroomError):
        print(f"mailroom: {error}", file=sys.stderr, flush=True)
    else:
        log.critical("worker_cannot_boot", exc_info=error)
    raise SystemExit(1)


def _event_loop_thread() -> EventLoopThread:
    thread = get_event_loop_thread()
    if thread is None:
        raise RuntimeError("Dramatiq's AsyncIO middleware has to come before this one")
    return thread


def _run(work: Awaitable[T]) -> T:
    return _event_loop_thread().run_coroutine(work)


def _watch_over_the_end(settings: Settings) -> Ending:
    # Dramatiq's master, which started this process; its end is noticed even if it came before.
    ending = Ending(
        settings.worker_shutdown_seconds + STOP_MARGIN_SECONDS,
        parent=Parent.of_this_process(),
        release=DB.release,
    )
    ending.watch()
    return ending


def _load() -> tuple[Broker, WorkerProcess]:
    """Read the settings and the handler.

    Raises:
        MailroomError: one of them cannot be used; the message says why.
    """
    settings = get_settings()
    configure_logging(settings)
    # Before the handler: its import may hang, or leave a thread behind and fail.
    ending = _watch_over_the_end(settings)
    try:
        handler = load_handler(settings.handler, threads=settings.worker_concurrency)
        handler = with_senders(settings, handler, running_pool)
        delivers = load_function(settings.sync) if settings.sync else None
    except MailroomError:
        ending.end_within(CLOSE_SECONDS, CANNOT_LOAD_EXIT_STATUS)
        raise
    process = WorkerProcess(settings, handler, ending, delivers)
    broker = make_broker(settings, DB.url)
    broker.add_middleware(process)
    return broker, process


try:
    broker, worker_process = _load()
except MailroomError as error:
    print(f"mailroom: {error}", file=sys.stderr, flush=True)
    raise SystemExit(CANNOT_LOAD_EXIT_STATUS) from None

dramatiq.set_broker(broker)


@dramatiq.actor(actor_name=ACTOR_NAME, queue_name=get_settings().queue)
async def process_email(email_id: str) -> None:
    """Claim the emails of a message, and begin to process them."""
    message = CurrentMessage.get_current_message()
    if message is not None and is_canary(message):
        await worker_process.claimer.take_canary(UUID(email_id))
        return
    await worker_process.claimer.take(ids_in(message) if message else [UUID(email_id)])
