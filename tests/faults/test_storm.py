"""Storms over each broker. The long form:

    pytest tests/faults --storm-minutes 30

`--storm-seed` takes the seed that a storm printed: the same faults strike in the same order.
"""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from storm import raging, summary

SHORT_SECONDS = 20.0
BROKERS = 3


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short, because the path of the server's socket may not be long.
    made = Path(tempfile.mkdtemp(prefix="st-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.timeout(7200)
def test_every_promise_holds_after_a_storm(
    folder: Path,
    broker_url: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = request.config.option
    seed = options.storm_seed or secrets.randbits(32)
    seconds = options.storm_minutes * 60 / BROKERS if options.storm_minutes else SHORT_SECONDS
    with raging(folder, broker_url, seed, options.storm_rate) as storm:
        with capsys.disabled():
            print(f"\nstorm over {broker_url.partition(':')[0] or 'postgresql'}, seed {seed}")
        storm.strike(seconds)
        storm.wait_until_quiet()
        states = storm.check()
        with capsys.disabled():
            print(summary(storm, seed, states))


def test_with_no_fault_each_email_is_handled_exactly_once(folder: Path, broker_url: str) -> None:
    with raging(folder, broker_url, seed=1, per_second=100) as storm:
        storm.load.start()
        storm.load.wait_for(200)
        storm.load.stop()
        storm.wait_until_quiet()
        states = storm.check()
        assert states == {"completed": len(storm.load.accepted)}
        assert storm.count_runs() == {1: len(storm.load.accepted)}
