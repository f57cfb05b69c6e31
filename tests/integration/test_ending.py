"""A process that is told to end does, whatever its threads do: small programs that hang."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support import wait_until

pytestmark = pytest.mark.long

PRELUDE = """
import os, signal, subprocess, sys, threading, time
from app.ending import Ending, Parent

def hang():
    threading.Event().wait()

def said(text):
    print(text, flush=True)

# As Dramatiq's: it only takes note.
signal.signal(signal.SIGTERM, lambda *_: said("heard"))
"""


OF_MULTIPROCESSING = """
import multiprocessing
from app.ending import POLL_SECONDS

def work():
    Ending(0.2, parent=Parent.of_this_process()).watch()
    time.sleep(2 * POLL_SECONDS)
    said(f"{os.getpid()} looked for its parent")
    hang()

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    process = multiprocessing.Process(target=work)
    process.start()
    process.join()
"""


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[str]"]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def start(started: list["subprocess.Popen[str]"], program: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + program],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_main_thread_that_hangs_is_ended(
    started: list["subprocess.Popen[str]"], number: signal.Signals
) -> None:
    process = start(
        started,
        """
signal.signal(signal.SIGHUP, lambda *_: None)
Ending(0.2, parent=None).watch()
said("ready")
while True:
    hang()
""",
    )
    process.send_signal(number)
    wait_until(lambda: process.poll() is not None)
    assert process.returncode == 75


def test_a_thread_that_goes_on_is_not_waited_for(started: list["subprocess.Popen[str]"]) -> None:
    process = start(
        started,
        """
ending = Ending(3600, parent=None)
ending.watch()
threading.Thread(target=hang).start()
ending.end_within(0.2, 0)
said("ready")
""",
    )
    wait_until(lambda: process.poll() is not None)
    assert process.returncode == 0


def test_last_words_are_said_and_bounded(started: list["subprocess.Popen[str]"]) -> None:
    program = """
ending = Ending(0.2, parent=None, release=hang)
ending.say_last({last_words})
ending.watch()
said("ready")
while True:
    hang()
"""
    kept = start(started, program.format(last_words='lambda: said("handed back")'))
    hung = start(started, program.format(last_words="hang"))
    for process in (kept, hung):
        process.terminate()
        wait_until(lambda process=process: process.poll() is not None)  # type: ignore[misc]
    assert (kept.returncode, hung.returncode) == (0, 75)
    assert kept.stdout is not None
    assert "handed back\n" in kept.stdout.read()


def test_who_gave_up_ends_with_a_failure_though_all_was_said(
    started: list["subprocess.Popen[str]"],
) -> None:
    process = start(
        started,
        """
ending = Ending(0.2, parent=None)
ending.say_last(lambda: None)
ending.watch()
ending.orderly_status = 75
said("ready")
while True:
    hang()
""",
    )
    process.terminate()
    wait_until(lambda: process.poll() is not None)
    assert process.returncode == 75


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_ends_with_its_parent_and_not_before_however_it_is_started(
    started: list["subprocess.Popen[str]"], tmp_path: Path, method: str
) -> None:
    # What is spawned reads it again.
    program = tmp_path / "program.py"
    program.write_text(PRELUDE + OF_MULTIPROCESSING)
    parent = subprocess.Popen(
        [sys.executable, str(program), method],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(parent)
    assert parent.stdout is not None
    said = parent.stdout.readline()
    assert said.endswith(" looked for its parent\n")
    child = psutil.Process(int(said.split()[0]))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_process_ends_with_its_parent(started: list["subprocess.Popen[str]"]) -> None:
    parent = start(
        started,
        """
if os.fork() == 0:
    Ending(0.2, parent=Parent(os.getppid(), os.getppid())).watch()
    said("ready")
    while True:
        hang()
hang()
""",
    )
    (child,) = psutil.Process(parent.pid).children()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
