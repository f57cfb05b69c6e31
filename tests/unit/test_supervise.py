"""What keeps the workers running is small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

SAY_LOADED = """
import sys
import app.cli.supervise
print([name for name in ("pydantic", "structlog", "click", "dramatiq") if name in sys.modules])
"""


SUPERVISE_TWO = """
import sys
from app.cli.processes import Part, Supervisor

parts = [Part("steady", ["sleep", "3600"]), Part("other", sys.argv[1:])]
tell = lambda event, **values: print(event, flush=True)
raise SystemExit(Supervisor(parts, stop_seconds=30, tell=tell).run())
"""


def test_what_takes_memory_is_not_loaded() -> None:
    said = subprocess.run([sys.executable, "-c", SAY_LOADED], capture_output=True, text=True)
    assert (said.stdout.strip(), said.stderr) == ("[]", "")


def test_a_part_that_cannot_be_started_again_is_later_and_the_others_go_on(tmp_path: Path) -> None:
    part = tmp_path / "part"
    script = "#!/bin/sh\nrm {part}\nexit 3\n"
    part.write_text(script.format(part=part))
    part.chmod(0o755)
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE_TWO, str(part)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "part_ended\n"
        assert supervisor.stdout.readline() == "part_not_started\n"
        whole = tmp_path / "whole"
        whole.write_text(script.format(part=part))
        whole.chmod(0o755)
        whole.rename(part)
        # It runs again, and has deleted itself again.
        while (said := supervisor.stdout.readline()) != "part_ended\n":
            assert said == "part_not_started\n"
        (steady,) = psutil.Process(supervisor.pid).children()
        assert steady.name() == "sleep"
        supervisor.terminate()
        assert supervisor.wait() == 0
    finally:
        supervisor.kill()
        supervisor.communicate()


def test_it_goes_on_where_the_settings_cannot_be_used_any_longer() -> None:
    part = {"name": "worker", "command": [sys.executable, "-c", "raise SystemExit(3)"]}
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "app.cli.supervise", "1", json.dumps(part)],
        env={**os.environ, "MAILROOM_LEASE_SECONDS": "long"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert supervisor.stderr is not None
        assert "part_ended" in supervisor.stderr.readline()
        supervisor.terminate()
        assert supervisor.wait() == 0
    finally:
        supervisor.kill()
        supervisor.communicate()
