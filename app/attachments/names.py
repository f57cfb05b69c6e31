"""Names of files as strangers give them, made safe for whoever stores the file or is sent it."""

import re
import unicodedata
from urllib.parse import quote

# What most file systems take, in bytes.
LONGEST_NAME = 200
# Separators of paths, what Windows refuses, and what is no visible character: such as the marks of
# direction by which `exe.pdf` passes for something else.
_NOT_IN_NAMES = re.compile(r'[/\\:*?"<>|]')
_NOT_IN_TOKENS = re.compile(r'[^\x20-\x7e]|["\\%]')
_NOT_SHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")
# https://www.rfc-editor.org/rfc/rfc5987#section-3.2.1
_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"


def safe_name(filename: str | None, position: int) -> str:
    """A name that can be that of a file anywhere.

    Args:
        filename: as the email says; a path is taken for its last part.
        position: for a file without a name that could be used.
    """
    last = re.split(r"[/\\]", filename or "")[-1]
    shown = "".join(
        c for c in last if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )
    name = _NOT_IN_NAMES.sub("_", shown).strip(" .")
    if not name:
        return f"attachment-{position}"
    stem, dot, end = name.rpartition(".")
    room = LONGEST_NAME - len(f"{dot}{end}".encode())
    if dot and room > 0 and len(end) < 20:
        return _cut(stem, room) + dot + end
    return _cut(name, LONGEST_NAME)


def content_disposition(name: str) -> str:
    """The header that has browsers save an answer under a name (RFC 6266, RFC 5987)."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = _NOT_IN_TOKENS.sub("_", plain) or "attachment"
    encoded = quote(name, safe=_ATTRIBUTE_CHARACTERS)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode("utf-8", "ignore")
