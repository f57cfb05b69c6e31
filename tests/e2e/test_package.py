"""What is installed: all that belongs to it is there, and every command works."""

import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import httpx
import pytest
from packaged import (
    BUILD_LOCK,
    LOCK,
    UV,
    build,
    install_locked,
    make_environment,
    run,
)
from support import PROJECT, SECRET, free_port, is_success, wait_until

pytestmark = pytest.mark.long

SHOW_HELP = """
from click.testing import CliRunner
from app.cli.main import COMMANDS, main
for name in COMMANDS:
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0, name
print("all")
"""
EMAIL = '{"ticket_id": "1", "from_email": "erika@example.com", "subject": "Hallo"}'


@pytest.fixture(scope="session")
def distributions() -> tuple[Path, Path]:
    return build()


def test_all_that_git_has_is_in_the_source_distribution(
    distributions: tuple[Path, Path],
) -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("an unpacked archive does not tell what git has")
    tracked = run("git", "ls-files", cwd=PROJECT).splitlines()
    with tarfile.open(distributions[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    there = {name for name in tracked if (PROJECT / name).exists()}
    assert there - names == set()


def test_every_command_works_where_only_the_wheel_is(
    distributions: tuple[Path, Path], short_folder: Path, database_url: str
) -> None:
    environment = make_environment(short_folder)
    install_locked(environment, distributions[0])
    empty = short_folder / "empty"
    empty.mkdir()
    port = str(free_port())
    settings = {
        "PATH": f"{environment / 'bin'}:/usr/bin:/bin",
        "DATABASE_URL": database_url,
        "MAILROOM_HOME": str(empty / "home"),
        "MAILROOM_PORT": port,
        "MAILROOM_WEBHOOK_SECRETS": SECRET,
    }

    def mailroom(*arguments: str) -> str:
        return run(str(environment / "bin" / "mailroom"), *arguments, cwd=empty, **settings)

    (empty / "email.json").write_text(EMAIL)
    assert "up to date" in mailroom("migrate")
    run("piccolo", "migrations", "check", cwd=empty, **settings)
    assert "/api/v1/jobs" in run(
        *("litestar", "--app", "app.main:create_app", "routes"), cwd=empty, **settings
    )
    with (empty / "log").open("wb") as log:
        processes = [
            subprocess.Popen(
                [str(environment / "bin" / command[0]), *command[1:]],
                cwd=empty,
                env=settings,
                stdout=log,
                stderr=log,
            )
            for command in (["mailroom", "web"], ["dramatiq", "app.worker", "--processes", "1"])
        ]
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_success(f"{url}/health/ready"), (empty / "log").read_text)
        # Pages with templates, styles and the admin's files; some lead to the sign-in.
        for path in (
            "/",
            "/schema",
            "/schema/openapi.json",
            "/overview/files/overview.css",
            "/admin/",
        ):
            answer = httpx.get(url + path, follow_redirects=True)
            assert answer.status_code == 200, path
        german = httpx.get(f"{url}/sign-in", headers={"Accept-Language": "de"})
        assert ">Anmelden</button>" in german.text
        sent = mailroom("send", "email.json")
        found = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", sent)
        assert found, sent
        wait_until(lambda: "completed" in mailroom("show", found[0]), (empty / "log").read_text)
        assert found[0] in mailroom("receipt", found[0])
        assert mailroom("handler", "run", "email.json")
        assert mailroom("lint", "email.json")
        assert mailroom("token", "create", "crm").startswith("mailroom_")
        assert "crm" in mailroom("token", "list")
        for command in (["stuck"], ["quarantine", "list"]):
            mailroom(*command)
        python = str(environment / "bin" / "python")
        assert run(python, "-c", SHOW_HELP, cwd=empty, **settings) == "all\n"
    finally:
        for process in processes:
            process.terminate()
        statuses = [process.wait(120) for process in processes]
    assert statuses == [0, 0]
    assert_it_needs_no_server(environment, empty)
    share = environment / "share" / "mailroom"
    for name in ("grafana-dashboard.json", "prometheus-rules.yml"):
        assert (share / name).read_bytes() == (PROJECT / "docs" / name).read_bytes()
    for folder, copy in (("examples", "examples"), ("docs/deploy", "deploy")):
        for file in run("git", "ls-files", folder, cwd=PROJECT).splitlines():
            assert (share / copy / Path(file).relative_to(folder)).exists(), file


def assert_it_needs_no_server(environment: Path, folder: Path) -> None:
    """Without a DATABASE_URL the two commands of the README bring their own."""
    mailroom = ("env", "--unset=DATABASE_URL", str(environment / "bin" / "mailroom"))
    port = str(free_port())
    settings = {
        "PATH": f"{environment / 'bin'}:/usr/bin:/bin",
        "MAILROOM_HOME": str(folder / "own"),
        "MAILROOM_PORT": port,
    }
    told = run(*mailroom, "demo", cwd=folder, **settings)
    assert re.search(r"completed +│ 25 ", told), told
    with (folder / "up").open("wb") as log:
        up = subprocess.Popen([*mailroom, "up"], cwd=folder, env=settings, stdout=log, stderr=log)
    try:
        wait_until(
            lambda: is_success(f"http://127.0.0.1:{port}/health/ready"), (folder / "up").read_text
        )
        sent = run(*mailroom, "send", "email.json", cwd=folder, **settings)
        (email_id,) = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", sent)
        wait_until(
            lambda: "completed" in run(*mailroom, "show", email_id, cwd=folder, **settings),
            (folder / "up").read_text,
        )
    finally:
        up.terminate()
        status = up.wait(120)
    assert status == 0, (folder / "up").read_text()
    assert not (folder / "own" / "postgres" / "postmaster.pid").exists()


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        (LOCK, ("pyproject.toml", "--extra", "otel")),
        (BUILD_LOCK, ("-",)),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_a_lock_has_what_the_project_asks_for(
    lock: Path, wanted: tuple[str, ...], tmp_path: Path
) -> None:
    """As after the command that makes it, which docs/deployment.md names; no newer versions."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    made = tmp_path / lock.name
    shutil.copy(lock, made)
    run(
        *(UV, "pip", "compile", *wanted, "--universal", "--python-version", "3.11"),
        *("--generate-hashes", "--no-header", "--no-annotate", "--quiet"),
        *("--output-file", str(made)),
        cwd=PROJECT,
        given="\n".join(project["build-system"]["requires"]),
    )
    pinned = re.compile(r"^([a-z0-9-]+)==\S+", re.MULTILINE)
    assert pinned.findall(made.read_text()) == pinned.findall(lock.read_text())
