"""On what a run was made: machine, versions, commit."""

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.servers import PROJECT, Servers

SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")


def describe_machine(servers: Servers) -> dict[str, str]:
    """What figures depend on, in words."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    settings = servers.server_settings(*SETTINGS)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processor": f"{_processor()}, {os.cpu_count()} logical",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load when it began (1, 5, 15 minutes)": load,
        "Python": platform.python_version(),
        "PostgreSQL": f"{servers.server_version()}; "
        + ", ".join(f"{name} {value}" for name, value in settings.items()),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of installed packages."""
    found = {}
    for package in sorted(set(packages)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - the user's own git
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"
