"""What the tests' fork server starts is a process like another."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fork_server import Forked, can_fork
from support import FORK_SERVER, PROJECT, wait_until

POOL_SIZE = 7
SCRIPT = """
import json, os, sys, my_module
kept = sorted(n for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}"))
print(json.dumps({
    "name": __name__, "arguments": sys.argv, "folder": os.getcwd(), "variable": os.environ["OWN"],
    "home": os.environ.get("HOME"), "input": sys.stdin.read(), "leads": os.getsid(0) == os.getpid(),
    "files": kept, "modules": sorted(sys.modules),
}))
print("in vain", file=sys.stderr)
sys.exit(3)
"""

READ_SETTINGS = """
import os
from app.settings import get_settings
print(get_settings.cache_info().currsize, end=" ")
os.environ.update(MAILROOM_PORT="4711", MAILROOM_HOME=os.getcwd())
print(get_settings().port)
"""

# How scripts end. What these print is written when Python ends, if at all.
ENDS = {
    "end": "print('said')",
    "none": "import sys; print('said'); sys.exit()",
    "number": "import sys; print('said'); sys.exit(258)",
    "text": "import sys; print('said'); sys.exit('why not')",
    "exception": "print('said'); raise ValueError('why not')",
    "nested": "print('said'); raise asyncio.CancelledError('why not')",
    "interrupt": "print('said'); raise KeyboardInterrupt('why not')",
    "atexit": "import atexit; atexit.register(print, 'at the end')",
    "thread": "import threading; threading.Timer(0.2, print, ['of a thread']).start()",
    "full": "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('said')",
    "closed": "import sys; sys.stdout.close()",
    "at once": "import os; print('said'); os._exit(7)",
}


def start(folder: Path, source: str, *arguments: str) -> Forked:
    folder.mkdir()
    script = folder / "script"
    script.write_text(source)
    (folder / "my_module.py").touch()
    with contextlib.ExitStack() as files:
        given = files.enter_context((folder / "given").open("w+b"))
        given.write(b"given")
        given.seek(0)
        return FORK_SERVER.start(
            [str(script), *arguments],
            cwd=folder,
            env={"OWN": "own", "PYTHONPATH": str(folder)},
            files=(
                given,
                files.enter_context((folder / "out").open("wb")),
                files.enter_context((folder / "err").open("wb")),
            ),
        )


def test_it_has_arguments_environment_folder_session_files_and_status_of_its_own(
    tmp_path: Path,
) -> None:
    # While another one runs, whose files are not its own.
    other = start(tmp_path / "other", "import time; time.sleep(1000)")
    folder = tmp_path / "own"
    process = start(folder, SCRIPT, "one", "two")
    assert process.wait(60) == process.poll() == process.returncode == 3
    assert (folder / "err").read_text() == "in vain\n"
    told = json.loads((folder / "out").read_text())
    modules = told.pop("modules")
    assert told == {
        "name": "__main__",
        "arguments": [str(folder / "script"), "one", "two"],
        "folder": str(folder),
        "variable": "own",
        "home": None,
        "input": "given",
        "leads": True,
        "files": ["0", "1", "2"],
    }
    ready = {"litestar", "dramatiq", "app.settings", "app.text.email_text", "app.models.api_token"}
    assert ready <= set(modules)
    # These read the settings when they are imported, so each process has to do so itself.
    reading = {"app.main", "app.telemetry.tracing", "app.worker"}
    assert not {*reading, "piccolo_conf"} & set(modules)
    assert other.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        other.wait(0.01)
    os.killpg(other.pid, signal.SIGTERM)
    assert other.wait(60) == -signal.SIGTERM
    other.kill()


def test_signals_reach_it_as_they_reach_another(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    process = start(folder, "import time; print('ready', flush=True); time.sleep(1000)")
    wait_until(lambda: (folder / "out").read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT
    assert "KeyboardInterrupt" in (folder / "err").read_text()


@pytest.mark.parametrize("end", ENDS)
def test_it_ends_as_another(tmp_path: Path, end: str) -> None:
    source = f"import asyncio; {ENDS[end]}"
    folder = tmp_path / "own"
    process = start(folder, source)
    other = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert (process.wait(60), (folder / "out").read_text()) == (other.returncode, other.stdout)
    said = (folder / "err").read_text().splitlines()
    assert said[-1:] == other.stderr.splitlines()[-1:]


def test_settings_are_read_after_the_fork(tmp_path: Path) -> None:
    process = start(tmp_path / "own", READ_SETTINGS)
    assert process.wait(60) == 0, (tmp_path / "own" / "err").read_text()
    assert (tmp_path / "own" / "out").read_text() == "0 4711\n"


def test_tables_are_of_the_database_that_a_process_is_told(tmp_path: Path) -> None:
    source = f"""
import os
os.environ.update(DATABASE_URL="postgresql://127.0.0.1/own", MAILROOM_HOME=os.getcwd())
os.environ.update(MAILROOM_DATABASE_POOL_SIZE="{POOL_SIZE}")
from app.database.engine import DB, MailroomEngine
from app.models.api_token import ApiToken
assert ApiToken._meta.db is DB
print(type(DB) is MailroomEngine, DB.url, type(DB) is MailroomEngine, DB.pool_size, DB.pool)
"""
    process = start(tmp_path / "own", source)
    assert process.wait(60) == 0, (tmp_path / "own" / "err").read_text()
    told = (tmp_path / "own" / "out").read_text()
    assert told == f"False postgresql://127.0.0.1/own True {POOL_SIZE} None\n"


def test_an_engine_that_cannot_be_made_says_why_each_time(tmp_path: Path) -> None:
    source = """
import os
os.environ.update(DATABASE_URL="mysql://127.0.0.1/own", MAILROOM_HOME=os.getcwd())
from app.database.engine import DB
from app.settings import SettingsError
for _ in range(2):
    try:
        print(DB.url)
    except SettingsError as error:
        print("DATABASE_URL" in str(error))
"""
    process = start(tmp_path / "own", source)
    assert process.wait(60) == 0, (tmp_path / "own" / "err").read_text()
    assert (tmp_path / "own" / "out").read_text() == "True\nTrue\n"


def test_what_has_to_be_known_before_the_fork_is_not_forked(tmp_path: Path) -> None:
    path = f"/elsewhere{os.pathsep}{PROJECT}"
    assert can_fork({**os.environ, "PYTHONPATH": path, "MAILROOM_PORT": "1"})
    assert not can_fork({**os.environ, "PYTHONUTF8": "0"})
    assert not can_fork({**os.environ, "OTEL_PROPAGATORS": "none"})
    # Another version.
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    assert not can_fork({**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"})


def test_it_leads_a_group_as_soon_as_anybody_hears_of_it(tmp_path: Path) -> None:
    process = start(tmp_path / "own", "import time; time.sleep(1000)")
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
