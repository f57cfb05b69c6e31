"""What keeps the workers running is small."""

import json
import os
import subprocess
import sys

SAY_LOADED = """
import sys
import app.cli.supervise
print([name for name in ("pydantic", "structlog", "click", "dramatiq") if name in sys.modules])
"""


def test_what_takes_memory_is_not_loaded() -> None:
    said = subprocess.run([sys.executable, "-c", SAY_LOADED], capture_output=True, text=True)
    assert (said.stdout.strip(), said.stderr) == ("[]", "")


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
