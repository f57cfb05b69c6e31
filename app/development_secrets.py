"""Secrets for development, made once and kept in a file that only its owner can read.

Production never comes here: it takes its secrets from the environment alone.
"""

import os
import secrets
import tempfile
from pathlib import Path

import attrs

from app.errors import MailroomError

FILE_NAME = "secrets.env"


class DevelopmentSecretsError(MailroomError):
    """The file of the development secrets cannot be read or made."""


@attrs.frozen
class DevelopmentSecrets:
    """What development needs and nobody should have to think of."""

    webhook_secret: str = attrs.field(repr=False)
    api_token: str = attrs.field(repr=False)
    admin_password: str = attrs.field(repr=False)


def load_or_make_secrets(home: Path) -> DevelopmentSecrets:
    """Read `secrets.env` in `home`, making it first where it is missing.

    Raises:
        DevelopmentSecretsError: the file cannot be written, or somebody damaged it.
    """
    path = home / FILE_NAME
    try:
        if not path.exists():
            _make(path)
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DevelopmentSecretsError(
            f"{path} cannot be used ({error.strerror}): make {home} writable or set MAILROOM_HOME "
            "to a folder of your own"
        ) from error
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    missing = [name for name in _NAMES if not values.get(name)]
    if missing:
        raise DevelopmentSecretsError(
            f"{path} lacks {', '.join(missing)}: delete the file, and a new one is made"
        )
    return DevelopmentSecrets(**{name: values[name] for name in _NAMES})


_NAMES = tuple(field.name for field in attrs.fields(DevelopmentSecrets))


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [
        "# Made by Mailroom for development. Production takes its secrets from the environment."
    ]
    lines += [f"{name}={secrets.token_urlsafe(24)}" for name in _NAMES]
    # A finished file appears under its name in one step, so two processes that start at once
    # both read the one that came first. mkstemp makes it 0600.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".secrets-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        Path(temporary).unlink()
