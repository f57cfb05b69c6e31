"""Containers run under any user id: one without a name, a home folder, or an environment."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from support import command_line, need

UID = "54321"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a name")
@pytest.mark.parametrize(
    ("command", "url", "status", "said"),
    [
        (["migrate"], None, 0, "The database is up to date."),
        (["token", "list"], None, 0, ""),
        (["worker", "--help"], None, 0, "--concurrency"),
        (["web", "--help"], None, 0, "Usage"),
        (["demo", "--help"], None, 0, "--count"),
        (["migrate"], "postgresql://127.0.0.1:1/x", 1, f"DATABASE_URL names no user, and .*{UID}"),
        (["doctor"], "embedded", 1, f"a user without a name, such as uid {UID}: add"),
    ],
)
def test_a_command_needs_no_home_and_no_name_or_says_so(
    tmp_path: Path, database_url: str, command: list[str], url: str | None, status: int, said: str
) -> None:
    # What root may read, so that the test can run wherever the project is installed.
    capabilities = "+dac_override,+dac_read_search"
    ended = subprocess.run(
        [
            *(need("setpriv"), f"--reuid={UID}", f"--regid={UID}", "--clear-groups"),
            *(f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"),
            *command_line("mailroom", *command),
        ],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url or database_url},
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
    )
    assert ended.returncode == status, ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert re.search(said, ended.stdout + ended.stderr), ended.stderr
