"""The look for processes that a run of tests left behind."""

import os
import subprocess
import sys
from pathlib import Path

import leftovers
import psutil
import pytest

CONFTEST = """
from leftovers import Leftovers, make_folder

make_folder()

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Leftovers(patience_seconds=0.1))
"""
# As a server does that was started with nothing of ours, in a folder of its test.
WITHOUT_ENVIRONMENT = "env={}, cwd=tmp_path"
LEAVE = """
import subprocess
def test_that_leaves_a_process(tmp_path):
    subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True, {options})
"""
WAIT = """
    import signal
    print("ready", flush=True)
    signal.pause()
"""
END = """
import subprocess
def test_that_leaves_nothing():
    subprocess.Popen(["/bin/sleep", "1000"]).kill()
"""


def start(folder: Path, source: str, *options: str) -> "subprocess.Popen[str]":
    """Run one test as another checkout would."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(source)
    environment = {name: value for name, value in os.environ.items() if name != leftovers.MARK}
    environment["PYTHONPATH"] = str(Path(leftovers.__file__).parent)
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "xdist.plugin", *options, "test_it.py"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("options", "processes"), [("", "2"), (WITHOUT_ENVIRONMENT, "0")])
def test_a_process_that_is_left_fails_the_run_and_is_named_and_ended(
    tmp_path: Path, options: str, processes: str
) -> None:
    with subprocess.Popen(["/bin/sleep", "1000"], env={}) as of_another_run:
        try:
            running = start(tmp_path, LEAVE.format(options=options), "-n", processes)
            said, _ = running.communicate()
            assert running.returncode == pytest.ExitCode.TESTS_FAILED, said
            assert "1 passed" in said
            (told,) = [line for line in said.splitlines() if "/bin/sleep 1000" in line]
            assert not psutil.pid_exists(int(told.partition(":")[0]))
            assert of_another_run.poll() is None
        finally:
            of_another_run.kill()


def test_a_run_that_is_ended_leaves_nothing_either(tmp_path: Path) -> None:
    running = start(tmp_path, LEAVE.format(options="") + WAIT, "-s")
    assert running.stdout is not None
    while not running.stdout.readline().endswith("ready\n"):
        assert running.poll() is None
    running.terminate()
    said, _ = running.communicate()
    assert running.returncode == pytest.ExitCode.INTERRUPTED, said
    (told,) = [line for line in said.splitlines() if "/bin/sleep 1000" in line]
    assert not psutil.pid_exists(int(told.partition(":")[0]))


def test_a_run_that_leaves_nothing_succeeds(tmp_path: Path) -> None:
    running = start(tmp_path, END, "-n", "0")
    said, _ = running.communicate()
    assert running.returncode == pytest.ExitCode.OK, said
    assert "left behind" not in said
