"""Whoever does what docs/tutorial.md says, sees what it says."""

import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import PROJECT, WAIT_SECONDS, Services, free_port, wait_until

TEXT = (PROJECT / "docs" / "tutorial.md").read_text()
# What runs until it is ended; all other commands end by themselves.
RUN_ON = ("python -m http.server", "mailroom listen", "mailroom up")
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<kind>\w+)\n(?P<content>.*?)```", re.DOTALL)
FILE = re.compile(r"`([\w/]*\.\w+)`[^`]*:$")


@pytest.fixture
def nothing(short_folder: Path) -> Iterator[Services]:
    """An empty folder, and no setting but that of a port which is free."""
    running = Services("", short_folder)
    running.environment = {"MAILROOM_PORT": str(free_port())}
    yield running
    running.end()


def test_each_file_and_command_of_the_tutorial_does_what_it_says(nothing: Services) -> None:
    text = TEXT.replace("8000", nothing.environment["MAILROOM_PORT"])
    for port in ("8100", "9000"):
        text = text.replace(port, str(free_port()))
    # The same port for the receiver as `mailroom listen` has by itself.
    listens_at = re.search(r"MAILROOM_SYNC_URL=http://127.0.0.1:(\d+)/", text)
    assert listens_at is not None
    text = text.replace("mailroom listen\n", f"mailroom listen --port {listens_at[1]}\n")
    told: list[str] = []
    command = ""
    placeholders: dict[str, str] = {}
    for block in BLOCK.finditer(text):
        content = block["content"]
        for name, value in placeholders.items():
            content = re.sub(rf"\b{name}\b", value, content)
        if named := FILE.search(block["before"]):
            path = nothing.folder / named[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        elif block["kind"] == "text":
            see(nothing, told, content, command)
        elif content.startswith(RUN_ON):
            nothing.start(*shlex.split(content))
        else:
            command = content
            told.append(do(nothing, command))
            if found := re.search(r'"email_id":"([0-9a-f-]+)"', told[-1]):
                placeholders["ID"] = found[1]
            if "token create" in content:
                placeholders["TOKEN"] = told[-1].strip()
    assert len(told) > 5
    assert {*placeholders} == {"ID", "TOKEN"}


def do(services: Services, command: str) -> str:
    """Run a command as it is printed. Returns what it said."""
    if command.startswith("mailroom "):
        ended = services.run(*shlex.split(command))
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ended = subprocess.run(
            ["bash", "-ec", command],
            cwd=services.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
    assert ended.returncode == 0, f"{command}{ended.stdout}{ended.stderr}{services.log()}"
    return ended.stdout


def see(services: Services, told: list[str], lines: str, command: str) -> None:
    """Wait until something has said these lines; three dots stand for anything. A story is asked
    for again until it is told."""

    def is_said(pattern: str) -> object:
        if command.startswith("mailroom show"):
            told.append(do(services, command))
        return re.search(pattern, "\n".join([*told, services.log()]))

    def explain() -> str:
        return "\n".join([lines, *told, services.log()])

    for line in lines.splitlines():
        pattern = ".*".join(map(re.escape, line.split("...")))
        wait_until(functools.partial(is_said, pattern), explain)
