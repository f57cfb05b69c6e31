"""Where a signing secret is stored: in the file from which the settings are read."""

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from dotenv import dotenv_values, set_key

from app.errors import MailroomError
from app.setting_groups.secrets import parse_secrets
from app.settings import ENV_FILE

NAME = "MAILROOM_WEBHOOK_SECRETS"


class NotStoredHereError(MailroomError):
    """The secrets are set where no file can be changed; the message says what to do."""


def store_secret(secret: str) -> Path:
    """Add a secret to those that are set, which stay. Returns the file that was changed.

    Raises:
        NotStoredHereError: the setting comes from the environment.
    """
    if os.environ.get(NAME, "").strip():
        raise NotStoredHereError(
            f"{NAME} is set in the environment, which a command cannot change: add the secret "
            "there yourself (--print-secret prints it)"
        )
    in_file = dotenv_values(ENV_FILE) if ENV_FILE.exists() else {}
    named = os.environ.get(f"{NAME}_FILE") or in_file.get(f"{NAME}_FILE")
    if named:
        path = Path(named.strip())
        before = path.read_text(encoding="utf-8-sig") if path.exists() else ""
        _write(path, _with(before, secret) + "\n")
        return path
    if not ENV_FILE.exists():
        _write(ENV_FILE, "")
    owned = ENV_FILE.stat()
    set_key(ENV_FILE, NAME, _with(in_file.get(NAME) or "", secret), quote_mode="never")
    _give_back(ENV_FILE, owned)
    return ENV_FILE


def _with(before: str, secret: str) -> str:
    """The setting with one more secret, labelled by the day."""
    entries = [f"{one.label}:{one.secret}" for one in parse_secrets(before)]
    labels = {one.label for one in parse_secrets(before)}
    day = label = f"{datetime.now(UTC):%Y-%m-%d}"
    number = 2
    while label in labels:
        label, number = f"{day}-{number}", number + 1
    return ",".join([*entries, f"{label}:{secret}"])


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner alone."""
    before = path.stat() if path.exists() else None
    mode = before.st_mode & 0o777 if before else 0o600
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).chmod(mode)
    _give_back(Path(name), before)
    Path(name).replace(path)


def _give_back(path: Path, before: os.stat_result | None) -> None:
    """Let a file belong to whom it did: root may have set up what a service reads."""
    now = path.stat()
    if before and (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
        os.chown(path, before.st_uid, before.st_gid)
