"""Storms, restarts and floods, over each broker. The long forms:

    pytest -n 0 tests/faults -k 'storm and not standby' --storm-minutes 30 --storm-rate 250
    pytest -n 0 tests/faults -k backlog --backlog 50000

In the long form the broker is away for a minute once.
`--storm-seed` takes the seed that a storm printed: the same faults strike in the same order.
"""

import random
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from statistics import median

import pytest
from storm import STORM_LEASE_SECONDS, Load, raging, summary

from app.drill.load import UnexpectedAnswerError

SHORT_SECONDS = 20.0
BROKERS = 3
# A web process holds at most half of it for what waits; Python keeps some of what it had.
MOST_MEMORY_GROWTH = 96 * 1024 * 1024
# While one Dispatcher sends its batch, another may fill the broker with the emails after it.
MOST_OUT_OF_ORDER = 1_000
USUALLY_OUT_OF_ORDER = 100
# Handlers, and not the processor, say how fast a backlog is worked off: else a process that stands
# still for a moment lets the more others pass, the faster those are.
BACKLOG_HANDLER_SECONDS = 0.2


@pytest.mark.timeout(7200)
def test_every_promise_holds_after_a_storm(
    storm_folder: Path,
    broker_url: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    rage_for(storm_folder, broker_url, request, record_property)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("broker_url", ["postgresql"], indirect=True)
def test_every_promise_holds_though_a_standby_takes_over_from_the_database(
    short_folder: Path,
    broker_url: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    rage_for(short_folder, broker_url, request, record_property, with_standby=True)


def rage_for(
    folder: Path,
    broker_url: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    *,
    with_standby: bool = False,
) -> None:
    """Let all faults strike for as long as this run is told, then check what is promised."""
    options = request.config.option
    seed = options.storm_seed or secrets.randbits(32)
    seconds = options.storm_minutes * 60 / BROKERS if options.storm_minutes else SHORT_SECONDS
    rate = options.storm_rate
    lease = STORM_LEASE_SECONDS
    with raging(
        *(folder, broker_url, seed, rate, lease),
        with_files=True,
        with_delivery=True,
        with_standby=with_standby,
    ) as storm:
        broker = broker_url.partition(":")[0] or "postgresql"
        name = f"storm over {broker}{', with a standby' if with_standby else ''}"
        record_property(name, f"seed {seed}")
        storm.strike(seconds, is_long=options.storm_minutes is not None)
        storm.wait_until_quiet()
        states = storm.check()
        record_property(name, summary(storm, seed, states))


# Of the brokers one that can be slow by itself.
@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_no_two_handlers_of_an_email_run_at_once_though_each_outlasts_its_lease(
    storm_folder: Path, broker_url: str, record_property: Callable[[str, object], None]
) -> None:
    """Whatever strikes, with retries that fall due all the time."""
    lease = 4.0
    with raging(storm_folder, broker_url, 5, 1, lease, handler_seconds=1.5 * lease) as storm:
        storm.load.start()
        chance = random.Random(5)
        for fault in (
            storm.keep_database_away,
            storm.slow_down_broker,
            storm.let_strangers_in,
            storm.pause_worker,
            storm.kill_worker_process,
            storm.end_connections,
        ):
            storm.load.wait_for(len(storm.load.accepted) + 4)
            storm.wait_for_handlers(3)
            fault(chance)
        storm.load.stop()
        storm.wait_until_quiet()
        states = storm.check()
        runs = storm.count_ticking_runs()
        record_property("long handlers", f"{states}, {runs} runs")
        # Some ran more than once.
        assert runs > len(storm.load.accepted)
        assert storm.count_overlaps() == 0


@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_a_worker_that_alone_loses_the_database_lets_go_before_another_takes_over(
    storm_folder: Path, broker_url: str
) -> None:
    """Its handlers would run on for long. There are few emails, so the other one has places."""
    lease = STORM_LEASE_SECONDS
    with raging(storm_folder, broker_url, 6, 0.2, lease, handler_seconds=60 * lease) as storm:
        # It might take all that come, since whoever sends the messages looks for them first.
        storm.stop_workers(["worker0"])
        storm.load.start()
        storm.cut_worker_off(random.Random(6))
        assert storm.count_overlaps() == 0
        storm.calm_down()
        storm.load.stop()


def test_a_rolling_restart_under_load_loses_nothing(storm_folder: Path, broker_url: str) -> None:
    with raging(storm_folder, broker_url, seed=2, per_second=80) as storm:
        storm.load.start()
        # With no fault at first.
        storm.load.wait_for(200)
        for name in ("web0", "worker0", "web1", "worker1"):
            storm.restart(name)
        storm.load.wait_for(len(storm.load.accepted) + 100)
        storm.load.stop()
        storm.wait_until_quiet()
        assert {answer for answer in storm.load.answers if isinstance(answer, int)} <= {200, 503}
        assert storm.check() == {"completed": len(storm.load.accepted)}
        # Handlers were given the time to finish, so each email is handled exactly once.
        assert storm.count_runs() == {1: len(storm.load.accepted)}


@pytest.mark.timeout(3600)
def test_a_backlog_is_taken_within_bounds_and_drains_in_order_of_receipt(
    storm_folder: Path,
    broker_url: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    backlog = request.config.option.backlog
    rage = raging(
        *(storm_folder, broker_url),
        seed=3,
        per_second=float("inf"),
        longest_seconds=BACKLOG_HANDLER_SECONDS,
    )
    with rage as storm:
        storm.stop_workers()
        storm.load.start()
        storm.load.wait_for(50)
        before = storm.web_memory()
        storm.load.wait_for(backlog)
        storm.load.stop()
        growth = storm.web_memory() - before
        assert growth < MOST_MEMORY_GROWTH
        storm.start_workers()
        storm.wait_until_quiet()
        assert storm.check() == {"completed": len(storm.load.accepted)}
        place = {email_id: n for n, email_id in enumerate(storm.order_of_receipt())}
        shifts = [
            abs(place[email_id] - n) for n, email_id in enumerate(storm.order_of_processing())
        ]
        record_property(
            f"backlog over {broker_url.partition(':')[0] or 'postgresql'}",
            f"{len(place)} emails; web grew by {growth} bytes; out of order by {median(shifts)}"
            f" (median), {max(shifts)} (most)",
        )
        assert max(shifts) <= MOST_OUT_OF_ORDER
        assert median(shifts) <= USUALLY_OUT_OF_ORDER


class ErrorServer(BaseHTTPRequestHandler):
    """Answers 500 to whatever is posted."""

    def do_POST(self) -> None:
        self.send_error(500)


def test_the_load_raises_what_no_answer_may_be() -> None:
    with HTTPServer(("127.0.0.1", 0), ErrorServer) as server:
        threading.Thread(target=server.serve_forever).start()
        load = Load([server.server_port], per_second=100, chance=random.Random(1))
        load.start()
        with pytest.raises(UnexpectedAnswerError, match="500"):
            load.wait_for(1)
        with pytest.raises(UnexpectedAnswerError, match="500"):
            load.stop()
        server.shutdown()


def test_the_check_finds_that_nothing_was_accepted_and_what_is_stored_twice(
    storm_folder: Path,
) -> None:
    with raging(storm_folder, "", seed=4, per_second=20) as storm:
        with pytest.raises(AssertionError, match="nothing was accepted"):
            storm.check()
        storm.load.start()
        storm.load.wait_for(1)
        storm.load.stop()
        storm.wait_until_quiet()
        storm.check()
        email_id = next(iter(storm.load.accepted))
        del storm.load.accepted[email_id]
        with pytest.raises(AssertionError, match="stored twice"):
            storm.check()
