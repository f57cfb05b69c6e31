"""The commands that a drill is given, by which it reaches what is not on its machine."""

import os
from pathlib import Path

import psutil
import pytest
from support import wait_until

from app.drill import plan
from app.drill.plan import Reach, Step, StepError, make_plan


def step(command: str) -> Step:
    """The one of a drill that restarts PostgreSQL so."""

    async def burst() -> None: ...

    steps = make_plan(Reach(restart_database=command), None, burst)  # type: ignore[arg-type]
    (found,) = (one for one in steps if one.name == "restart PostgreSQL")
    return found


async def run(command: str) -> None:
    strike = step(command).strike
    assert strike is not None
    await strike()


async def test_a_command_that_never_ends_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "COMMAND_SECONDS", 0.5)
    pids = tmp_path / "pids"
    with pytest.raises(StepError, match=r"did not end within 0.5 seconds and was killed"):
        await run(f"sleep 1000 & echo $! $$ >{pids}; sleep 1000")
    started = {int(pid) for pid in pids.read_text().split()}
    assert len(started) == 2
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in started))


async def test_what_a_command_leaves_behind_in_time_goes_on(tmp_path: Path) -> None:
    """It may have started the server anew."""
    pid = tmp_path / "pid"
    await run(f"sleep 1000 & echo $! >{pid}")
    os.kill(int(pid.read_text()), 9)
    with pytest.raises(StepError, match="ended with 3"):
        await run("exit 3")


def test_the_plan_says_how_long_a_command_may_take() -> None:
    assert step("restart it").does == "runs, for 600 seconds at most: restart it"
