"""The image, once it is built: small, of a user without rights, and it ends as a process should.

`.ci/image` builds it and gives its name with `--image`.
"""

import contextlib
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import slow_handler
from servers import Server, make_folder_of_servers
from support import PRODUCTION, SECRET, email, free_port, need, signed, wait_until

pytestmark = pytest.mark.long

MOST_BYTES = 250_000_000
USER = "10001"
COMPILERS = "cc gcc g++ clang ld as make rustc pip strip"


def podman(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [need("podman"), *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest) -> str:
    name = request.config.getoption("--image")
    if name is None:
        pytest.skip("no image is named by --image: .ci/image builds it and runs these")
    return str(name)


@pytest.fixture(scope="module")
def described(image: str) -> dict[str, Any]:
    (description,) = json.loads(podman("image", "inspect", image).stdout)
    return dict(description)


class Containers:
    """Containers of the image, with as few rights as the examples give them.

    Args:
        handlers: a folder of which they use the handler `slow_handler`.
    """

    def __init__(self, image: str, database_url: str, handlers: Path) -> None:
        self.image = image
        self.port = free_port()
        self.names: list[str] = []
        settings = {
            **PRODUCTION,
            "DATABASE_URL": database_url,
            "MAILROOM_WEBHOOK_SECRETS": SECRET,
            "MAILROOM_HOST": "127.0.0.1",
            "MAILROOM_PORT": str(self.port),
            "MAILROOM_HANDLER": "slow_handler:handle",
            "PYTHONPATH": "/handlers",
        }
        self.options = [
            *("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--network=host"),
            # Checked when a test asks for it; or systemd would have to run.
            "--health-interval=disable",
            *("--security-opt=no-new-privileges", f"--volume={handlers}:/handlers:ro"),
            *(f"--env={name}={value}" for name, value in settings.items()),
        ]

    def run(self, command: str) -> str:
        """Start a command of Mailroom. Returns the container's name."""
        name = podman("run", "--detach", *self.options, self.image, command).stdout.strip()
        self.names.append(name)
        return name

    def log(self, name: str) -> str:
        told = podman("logs", name)
        return told.stdout + told.stderr

    def wait(self, name: str) -> int:
        """Wait for the end of a container. Returns its status."""
        return int(podman("wait", name).stdout)

    def end(self) -> None:
        for name in self.names:
            podman("rm", "--force", "--time=5", "--volumes", name)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(make_folder_of_servers() / "data")
    made.make()
    yield made
    made.stop("immediate")


@pytest.fixture
def containers(image: str, server: Server, tmp_path: Path) -> Iterator[Containers]:
    handlers = tmp_path / "handlers"
    handlers.mkdir()
    shutil.copy(slow_handler.__file__, handlers)
    # They are another user.
    handlers.chmod(0o755)
    started = Containers(image, server.url(), handlers)
    yield started
    started.end()


def test_it_is_small_and_says_how_it_is_run(described: dict[str, Any]) -> None:
    assert described["Size"] < MOST_BYTES
    config = described["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert "/health/live" in str(described.get("Healthcheck") or config.get("Healthcheck"))


def test_nothing_in_it_compiles_or_installs(image: str) -> None:
    found = podman(
        *("run", "--rm", "--network=none", "--entrypoint=sh", image),
        *("-c", f"for name in {COMPILERS}; do command -v $name; done; true"),
    )
    assert found.stdout == ""


def test_no_process_compiles_what_it_loads(image: str) -> None:
    told = podman(
        *("run", "--rm", "--read-only", "--network=none", "--env=DATABASE_URL=postgresql:///none"),
        *("--env=MAILROOM_ENV=development", "--entrypoint=python3", image),
        *("-v", "-c", "import app.main, app.worker"),
    ).stderr
    loaded = re.findall(r"^# code object from '?(/opt/mailroom/.*?)'?$", told, re.MULTILINE)
    assert len(loaded) > 500
    assert [path for path in loaded if not path.endswith(".pyc")] == []


def test_an_email_is_accepted_and_completed_and_each_process_ends_when_it_is_told_to(
    containers: Containers, server: Server, tmp_path: Path
) -> None:
    assert containers.wait(containers.run("migrate")) == 0
    web, worker = containers.run("web"), containers.run("worker")
    wait_until(
        lambda: podman("healthcheck", "run", web, check=False).returncode == 0,
        lambda: containers.log(web),
    )
    for name in (web, worker):
        assert_has_no_rights(name)

    url = f"http://127.0.0.1:{containers.port}"
    accepted = httpx.post(f"{url}/api/v1/zendesk/webhook", **signed(email()))
    assert accepted.status_code == 200, accepted.text
    token = {"Authorization": f"Bearer {PRODUCTION['MAILROOM_API_TOKEN']}"}
    for path in ("/schema", "/schema/openapi.json", "/overview/files/overview.css", "/admin/"):
        assert httpx.get(url + path, headers=token, follow_redirects=True).is_success, path
    german = httpx.get(f"{url}/sign-in", headers={"Accept-Language": "de-AT"})
    assert ">Anmelden</button>" in german.text

    with psycopg.connect(server.url(), autocommit=True) as connection:

        def status() -> str:
            row = connection.execute("SELECT processing_status FROM incoming_emails").fetchone()
            return str(row and row[0])

        wait_until(lambda: status() == "processing", lambda: containers.log(worker))
        podman("kill", "--signal=TERM", worker)
        wait_until(
            lambda: "Stopping worker process" in containers.log(worker),
            lambda: containers.log(worker),
        )
        assert status() == "processing"
        (tmp_path / "handlers" / "go").touch()
        assert containers.wait(worker) == 0, containers.log(worker)
        assert status() == "completed"

        answers = []
        posting = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{url}/api/v1/zendesk/webhook", **signed(email()))
            )
        )
        with contextlib.closing(psycopg.connect(server.url())) as lock:
            lock.execute("LOCK TABLE incoming_emails IN ACCESS EXCLUSIVE MODE")
            posting.start()
            blocked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            wait_until(lambda: connection.execute(blocked).fetchone() is not None)
            podman("kill", "--signal=TERM", web)
            wait_until(lambda: "Shutting down" in containers.log(web), lambda: containers.log(web))
        posting.join()
        assert [answer.status_code for answer in answers] == [200]
        assert containers.wait(web) == 0, containers.log(web)


def assert_has_no_rights(name: str) -> None:
    """The process of a container is the first of its namespace, an ordinary user's, and cannot
    write to what it is made of."""
    pid = podman("inspect", "--format={{.State.Pid}}", name).stdout.strip()
    status = dict(
        re.findall(r"^(\w+):\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    )
    assert set(status["Uid"].split()) == {USER}
    assert int(status["CapEff"], 16) == 0
    assert status["NSpid"].split()[-1] == "1"
    written = podman("exec", name, "touch", "/opt/mailroom/one", check=False)
    assert written.returncode != 0
    assert "Read-only file system" in written.stderr
