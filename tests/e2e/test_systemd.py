"""The units of docs/deploy/systemd, on paper and under a systemd of their own."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
import slow_handler
from packaged import build, install_locked, make_environment, run
from servers import Server, make_folder_of_servers
from support import (
    PASSWORD,
    PRODUCTION,
    PROJECT,
    SECRET,
    email,
    free_port,
    is_success,
    need,
    signed,
    wait_until,
)

pytestmark = pytest.mark.long

UNITS = PROJECT / "docs" / "deploy" / "systemd"
WEB, WORKER = "mailroom-web", "mailroom-worker@1"
# Tenths of what `systemd-analyze security` calls exposure: below it says "OK".
MOST_EXPOSED = 20
# Theirs is the only one that a user without a home may run.
SYSTEM_PYTHON = "/usr/bin/python3"
# Names of one environment, as an upgrade makes two.
OLDER, NEWER = "1.0.0", "1.0.1"
POWER_OFF = signal.SIGRTMIN + 4


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.service")))
def test_a_unit_has_no_right_that_it_does_not_need(unit: str) -> None:
    systemd_analyze = need("systemd-analyze")
    run(
        *(
            systemd_analyze,
            "security",
            "--offline=true",
            f"--threshold={MOST_EXPOSED}",
            f"./{unit}",
        ),
        cwd=UNITS,
    )


class Machine:
    """A systemd that was booted, with the programs of this machine and nothing else of it but its
    network.

    Args:
        folder: for all that it writes.
        folders: of this machine, that are to be seen in it, by where.
    """

    def __init__(self, folder: Path, folders: dict[str, Path]) -> None:
        self.log_path = folder / "boot.log"
        root = folder / "root"
        for name in ("usr", "etc/systemd/system", "var", "tmp", "root", "proc", "sys", "dev"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        # With one it is not the first boot, in which all units that are there would be enabled.
        (root / "etc" / "machine-id").write_text(uuid4().hex)
        for name in ("os-release", "passwd", "group"):
            shutil.copy(f"/etc/{name}", root / "etc" / name)
        (folder / "upper").mkdir()
        with self.log_path.open("wb") as log:
            self._nspawn = subprocess.Popen(
                [
                    *(need("systemd-nspawn"), f"--directory={root}", f"--machine=m{uuid4().hex}"),
                    *("--boot", "--register=no", "--keep-unit", "--link-journal=no"),
                    f"--overlay=/usr:{folder / 'upper'}:/usr",
                    *(f"--bind={there}:{where}" for where, there in folders.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._is_up, lambda: self.log_path.read_text(errors="replace"))

    def _is_up(self) -> bool:
        assert self._nspawn.poll() is None, self.log_path.read_text(errors="replace")
        asked = self._start("systemctl is-active multi-user.target", "")
        return asked.stdout.strip() == "active"

    def _leader(self) -> str:
        pid = self._nspawn.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()

    def _start(self, script: str, given: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["nsenter", "--target", self._leader() or "0", "--all", "bash", "-ec", script],
            input=given,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def run(self, script: str, given: str = "") -> str:
        """Run a script of the shell as its superuser. Returns what it printed."""
        done = self._start(script, given)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run(f"systemctl show --property={name} --value {shlex.quote(unit)}").strip()

    def journal(self, unit: str) -> str:
        return self.run(f"journalctl --quiet --output=cat --unit={shlex.quote(unit)}")

    def end(self) -> None:
        if leader := self._leader():
            os.kill(int(leader), POWER_OFF)
        try:
            self._nspawn.wait(100)
        finally:
            self._nspawn.kill()
            self._nspawn.wait()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(make_folder_of_servers() / "data")
    made.make()
    yield made
    made.stop("immediate")


@pytest.fixture
def handlers(short_folder: Path) -> Path:
    """A folder with the handler that waits, which may go on."""
    folder = short_folder / "handlers"
    folder.mkdir()
    shutil.copy(slow_handler.__file__, folder)
    (folder / "go").touch()
    return folder


@pytest.fixture
def machine(short_folder: Path, handlers: Path) -> Iterator[Machine]:
    need("systemd-nspawn")
    if os.geteuid() != 0:
        pytest.skip("only root can boot a systemd")
    version = run(SYSTEM_PYTHON, "-c", "import sys; print(sys.version_info >= (3, 11))", cwd=UNITS)
    if version.strip() != "True":
        pytest.skip(f"{SYSTEM_PYTHON} is older than Python 3.11")
    environment = make_environment(short_folder, SYSTEM_PYTHON)
    install_locked(environment, build()[0])
    for folder in (short_folder, environment, handlers):
        folder.chmod(0o755)
    booted = Machine(
        short_folder,
        {
            **{f"/opt/mailroom-{version}": environment for version in (OLDER, NEWER)},
            "/src/docs": PROJECT / "docs",
            "/handlers": handlers,
        },
    )
    booted.run(f"ln -sfn mailroom-{OLDER} /opt/mailroom")
    yield booted
    booted.end()


def documented() -> list[str]:
    """The commands of docs/deployment.md: those that install the units, the others, and those of an
    upgrade."""
    text = (PROJECT / "docs" / "deployment.md").read_text()
    _, _, section = text.partition("## On a machine with systemd")
    parts = section.partition("\n## ")[0].split("\n\n")
    return [textwrap.dedent(part) for part in parts if part.startswith("    ")]


INSTALL, COMMANDS, UPGRADE = documented()


def test_under_systemd_they_start_come_back_and_stop_with_everything_done(
    machine: Machine, server: Server, handlers: Path
) -> None:
    port = free_port()
    settings = {
        **PRODUCTION,
        "DATABASE_URL": server.url(),
        "MAILROOM_WEBHOOK_SECRETS": SECRET,
        "MAILROOM_PORT": str(port),
        "MAILROOM_HANDLER": "slow_handler:handle",
        "PYTHONPATH": "/handlers",
    }
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    machine.run(f"cd /src\n{INSTALL}", given=lines)
    assert machine.show("mailroom-migrate", "Result") == "success"

    url = f"http://127.0.0.1:{port}"
    with psycopg.connect(server.url(), autocommit=True) as connection:

        def deliver() -> str:
            wait_until(lambda: is_success(f"{url}/health/ready"), lambda: machine.journal(WEB))
            answer = httpx.post(f"{url}/api/v1/zendesk/webhook", **signed(email()))
            assert answer.status_code == 200, answer.text
            return str(answer.json()["email_id"])

        def wait_for(email_id: str, status: str) -> None:
            asked = "SELECT 1 FROM incoming_emails WHERE id = %s AND processing_status = %s"
            wait_until(
                lambda: connection.execute(asked, [email_id, status]).fetchone(),
                lambda: machine.journal(WORKER),
            )

        wait_for(deliver(), "completed")
        assert_commands_find_the_database(machine, connection)
        pids = {unit: machine.show(unit, "MainPID") for unit in (WEB, WORKER)}
        for unit, pid in pids.items():
            assert_has_few_rights(machine, pid)
            assert all(json.loads(line)["event"] for line in logged(machine, unit))
            machine.run(f"kill -KILL {pid}")
        for unit, pid in pids.items():
            wait_until(lambda unit=unit: machine.show(unit, "NRestarts") != "0")
            assert machine.show(unit, "MainPID") != pid
        wait_for(deliver(), "completed")

        assert versions_of(machine) == {OLDER}
        machine.run("ln -sfn mailroom-none /opt/mailroom")
        # What runs needs the link no longer.
        wait_for(deliver(), "completed")
        machine.run(UPGRADE.replace("VERSION", NEWER))
        assert versions_of(machine) == {NEWER}
        wait_for(deliver(), "completed")

        (handlers / "go").unlink()
        in_hand = deliver()
        wait_for(in_hand, "processing")
        machine.run(f"systemctl stop --no-block {WORKER}")
        wait_until(lambda: machine.show(WORKER, "ActiveState") == "deactivating")
        (handlers / "go").touch()
        machine.run(f"systemctl stop {WORKER} {WEB}")
        wait_for(in_hand, "completed")
    for unit in (WEB, WORKER):
        assert machine.show(unit, "ActiveState") == "inactive", machine.journal(unit)
        assert machine.show(unit, "Result") == "success"


def assert_commands_find_the_database(machine: Machine, connection: psycopg.Connection) -> None:
    programs = machine.run("dirname $(find /opt/mailroom/ -path '*/bin/pg_dump')").split()[0]
    machine.run(f"ln --symbolic {programs}/pg_dump /usr/local/bin/")
    typed = COMMANDS.replace("NAME", "anna").replace("ADDRESS", "anna@example.com")
    machine.run(typed, given=f"{PASSWORD}\n")
    query = "SELECT username, superuser FROM piccolo_user"
    assert connection.execute(query).fetchall() == [("anna", True)]
    assert machine.run("head --bytes 5 /root/mailroom.dump") == "PGDMP"

    # What is typed arrives as it is, and so does what becomes of it.
    words = "'$HOME' '${HOME}' '$$' '%n' 'a  b' ''"
    assert machine.run(f"mailroom-run printf '<%s>' {words}") == "<$HOME><${HOME}><$$><%n><a  b><>"
    assert machine.run("mailroom-run bash -c 'exit 3' || echo $?") == "3\n"
    assert "/dev/pts/" in machine.run("script --quiet --command 'mailroom-run tty' /dev/null")


def versions_of(machine: Machine) -> set[str]:
    """From which environments the units' processes were started, and theirs."""
    found = set()
    for unit in (WEB, WORKER):
        pid = machine.show(unit, "MainPID")
        children = machine.run(f"cat /proc/{pid}/task/{pid}/children").split()
        for one in (pid, *children):
            command = machine.run(f"tr '\\0' ' ' < /proc/{one}/cmdline")
            (version,) = re.findall(r"^/opt/mailroom-([\d.]+)/bin/", command) or [command]
            found.add(version)
    return found


def logged(machine: Machine, unit: str) -> list[str]:
    """What a unit's processes have logged; what systemd says of it is no JSON."""
    lines = machine.run(f"journalctl --quiet --output=cat --unit={unit} _TRANSPORT=stdout")
    assert lines
    return lines.splitlines()


def assert_has_few_rights(machine: Machine, pid: str) -> None:
    status = dict(
        re.findall(r"^(\w+):\s*(.*)$", machine.run(f"cat /proc/{pid}/status"), re.MULTILINE)
    )
    mailroom = machine.run("id --user mailroom").strip()
    assert set(status["Uid"].split()) == {mailroom}
    assert int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    inside = f"nsenter --target {pid} --mount touch"
    machine.run(f"{inside} /var/lib/mailroom/one")
    assert "Read-only" in machine.run(f"{inside} /opt/one /etc/one 2>&1 || true")
