"""An older version of Mailroom, out of the repository's history, beside the one that is tested."""

import contextlib
import itertools
import os
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import attrs
import httpx
import pytest
from support import PROJECT, Process, Services, email, free_port, is_success, signed, wait_until

# The last commit before a message asked for many emails at once, and before migrations were online.
OLDEST = "935707b0074e6c296a4cb1ab592ae003ce7ba04c"
# Of a message for many emails an older worker takes the first; the others are sent again.
SOON_LOST = {"MAILROOM_MESSAGE_LOST_SECONDS": "2"}

# It goes on when both versions have emails in hand.
HANDLER = """
import asyncio
from pathlib import Path

import app
import app.jobs.keeper

app.jobs.keeper.RESCUE_EVERY_SECONDS = 0.3

NAME = "older" if Path(app.__file__).parts[-3] == "older" else "newer"
BEGUN = Path("older"), Path("newer")

async def handle(email):
    with Path("runs").open("a") as runs:
        runs.write(f"{email.id} {NAME}\\n")
    Path(NAME).touch()
    while not all(path.exists() for path in BEGUN):
        await asyncio.sleep(0.05)
"""


def released() -> list[str]:
    """The names of the versions that were released, as the repository's tags have them."""
    listed = subprocess.run(
        ["git", "tag", "--list", "v*"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    return listed.stdout.split()


def unpack(version: str, folder: Path) -> Path:
    """Put an older version, a commit or a tag, into a folder. Returns that."""
    command = ["git", "archive", version, "app", "piccolo_conf.py", "piccolo_migrations"]
    archived = subprocess.run(command, cwd=PROJECT, capture_output=True, check=False)
    if archived.returncode:
        missing = f"history missing: git has no commit {version} here"
        # Continuous integration has it, and must not pass without.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archived.stdout, check=True)
    return folder


@attrs.define
class Versions:
    """Processes of both, over one database and one broker."""

    services: Services
    older: Path
    older_port: int = attrs.field(factory=free_port)

    def __attrs_post_init__(self) -> None:
        self.services.write_handler(HANDLER)
        self.services.environment.update(SOON_LOST)

    @property
    def older_url(self) -> str:
        return f"http://127.0.0.1:{self.older_port}"

    @property
    def older_environment(self) -> dict[str, str]:
        path = f"{self.older}{os.pathsep}{self.services.environment['PYTHONPATH']}"
        return {"PYTHONPATH": path, "MAILROOM_PORT": str(self.older_port)}

    def start_older(self) -> None:
        self.services.start("mailroom", "web", **self.older_environment)
        self.services.start_worker(**self.older_environment)
        wait_until(lambda: is_success(f"{self.older_url}/health/live"), self.services.log)

    def start_newer(self) -> list[Process]:
        return [self.services.start_web(), self.services.start_worker()]

    def runs(self) -> dict[str, list[str]]:
        """The ids of the emails that the handlers of each version were given."""
        path = self.services.folder / "runs"
        found = defaultdict(list)
        for line in path.read_text().splitlines() if path.exists() else ():
            email_id, name = line.split()
            found[name].append(email_id)
        return found


@contextlib.contextmanager
def posting(*urls: str, repeats: bool = False) -> Iterator[tuple[list[str], list[httpx.Response]]]:
    """Post webhooks for the time of this block, to the one and the other of some web processes.

    Args:
        repeats: as Zendesk does, what was not taken is sent again, to the next of them.

    Yields:
        where to, which may be changed, and what was answered at last.
    """
    targets, answers, is_over = [*urls], [], threading.Event()

    def deliver(client: httpx.Client) -> None:
        delivery = signed(email())
        for number in itertools.count(len(answers)):
            url = targets[number % len(targets)]
            try:
                answer = client.post(f"{url}/api/v1/zendesk/webhook", **delivery)
            except httpx.TransportError:
                # Of a process that has been stopped.
                if not repeats:
                    raise
                continue
            if answer.status_code != 503 or not repeats:
                answers.append(answer)
                return

    def post() -> None:
        with httpx.Client() as client:
            while not is_over.wait(0.01):
                deliver(client)

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield targets, answers
    finally:
        is_over.set()
        thread.join()
