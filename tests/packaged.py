"""Mailroom as its users get it: a wheel, built from this checkout, in an environment of its own."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from leftovers import make_folder
from support import PROJECT

TOOLS = Path(sys.executable).parent
UV = str(TOOLS / "uv")
LOCK = PROJECT / "docs" / "deploy" / "requirements.txt"
BUILD_LOCK = LOCK.with_name("build-requirements.txt")


def run(*command: str, cwd: Path, timeout: float = 900, given: str = "", **environment: str) -> str:
    """Run a command to its end, with this as its input. Returns what it printed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    ended = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **environment},
        input=given,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout[-5000:]}{ended.stderr[-5000:]}"
    return ended.stdout


def build() -> tuple[Path, Path]:
    """A wheel and a source distribution; the wheel is built from the latter, once in a run."""
    folder = make_folder() / "distributions"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not [*folder.glob("*.whl")]:
            run(*(UV, "build", "--quiet", "--out-dir", str(folder), str(PROJECT)), cwd=folder)
    (wheel,) = folder.glob("*.whl")
    (source,) = folder.glob("*.tar.gz")
    return wheel, source


def make_environment(folder: Path, python: str = sys.executable) -> Path:
    """An empty virtual environment that works wherever it is moved or mounted. Returns it."""
    environment = folder / "environment"
    run(UV, "venv", "--quiet", "--relocatable", "--python", python, str(environment), cwd=folder)
    return environment


def install(environment: Path, *what: str) -> None:
    """Install packages, with uv's options."""
    python = str(environment / "bin" / "python")
    # Once, or each command would compile all libraries for itself.
    options = ("--quiet", "--compile-bytecode", "--python", python)
    run(UV, "pip", "install", *options, *what, cwd=environment)


def install_locked(environment: Path, wheel: Path) -> None:
    """Install Mailroom with the versions that deployments get."""
    install(environment, "--require-hashes", "--requirement", str(LOCK))
    install(environment, "--no-deps", str(wheel))
