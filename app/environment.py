"""What stands in the environment, made fit for the settings: without white space, with files read,
without what Kubernetes puts there.

Knows no setting by name; what the values mean stands in `app.settings`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from app.errors import MailroomError

# For each service of its namespace Kubernetes sets NAME_PORT=tcp://10.0.0.1:8000 and more, and a
# service may be called `mailroom` or `mailroom-metrics`.
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)

FILE_SUFFIX = "_file"


class UnusableVariableError(MailroomError):
    """A variable cannot be used; the message names it and the mend."""


def cleaned(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """Without white space around the values, without empty ones, without service links."""
    stripped = {name: (value or "").strip() for name, value in variables.items()}
    return {
        name: value
        for name, value in stripped.items()
        if value and not (name.endswith("_port") and SERVICE_LINK.match(value))
    }


def read_files(
    variables: Mapping[str, str | None], elsewhere: Mapping[str, str | None], names: set[str]
) -> dict[str, str | None]:
    """The variables, with the content of a file in place of each `<NAME>_FILE`.

    Args:
        variables: cleaned, by their names in lower case.
        elsewhere: those of another source, which must not name the same setting in the other way.
        names: which settings there are.

    Raises:
        UnusableVariableError: a file cannot be read, or a setting is given twice.
    """
    read = dict(variables)
    for name in names:
        path = variables.get(name + FILE_SUFFIX)
        if path is None:
            continue
        if name in variables or name in elsewhere:
            raise UnusableVariableError(
                f"{name.upper()} and {_file(name)} are both set: keep one of them"
            )
        read[name] = _read(name, Path(path))
    return read


def why_unreadable(error: OSError | UnicodeError) -> str:
    """Why a file of text could not be read, in a few words without what is in it."""
    return str(error.strerror) if isinstance(error, OSError) else "it is not text in UTF-8"


def _read(name: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeError) as error:
        raise UnusableVariableError(
            f"{_file(name)}: {path} cannot be read ({why_unreadable(error)}): see that it exists "
            "and that this user may read it"
        ) from None
    if not text:
        raise UnusableVariableError(f"{_file(name)}: {path} is empty: write the value into it")
    return text


def _file(name: str) -> str:
    return (name + FILE_SUFFIX).upper()
