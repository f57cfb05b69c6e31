"""The folder of the embedded server's data: how it is made, and which version made it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from app.database.embedded.programs import MAJOR_VERSION, EmbeddedPostgresError, last_lines, run


def check_version(data: Path) -> None:
    """Refuse data that another major version made.

    Raises:
        EmbeddedPostgresError: these are no data of ours; the message says what to do.
    """
    try:
        version = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise EmbeddedPostgresError(
            f"{data} holds no PostgreSQL data: move it away, and a new one is made"
        ) from None
    if version != MAJOR_VERSION:
        raise EmbeddedPostgresError(
            f"{data} was made by PostgreSQL {version}, and this Mailroom brings version "
            f"{MAJOR_VERSION}: move the data over with pg_dump of version {version}, or move "
            "the folder away to start with an empty database"
        )


def make_data(
    home: Path, data: Path, binaries: Path, uid: int, gid: int, options: dict[str, Any]
) -> None:
    """Make an empty cluster at `data`, whole or not at all.

    Raises:
        EmbeddedPostgresError: initdb failed; the message tells what it said.
    """
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as a user without a name, such as uid {uid}: add that "
            "user to /etc/passwd, or set DATABASE_URL"
        ) from None
    folder = Path(tempfile.mkdtemp(dir=home, prefix="postgres.new-"))
    try:
        os.chown(folder, uid, gid)
        command = [
            str(binaries / "initdb"),
            f"--pgdata={folder}",
            "--username=mailroom",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ]
        done = run(command, options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        output, _ = done.communicate()
        if done.returncode != 0:
            raise EmbeddedPostgresError(
                f"The database in {home} could not be made. initdb said: {last_lines(output)}"
            )
        folder.rename(data)
        _sync(home)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
