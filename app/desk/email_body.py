"""What an email says, as its page shows it: the new words first, the rest to be unfolded."""

import json
from collections.abc import Mapping
from typing import Any

import attrs
import structlog

from app.i18n.texts import gettext as _
from app.models.fit import read_json
from app.text.reader import TextReaderError, read_text

log = structlog.get_logger(__name__)

# Characters. What is longer is not taken apart for a page, and not shown to its end.
LONGEST_READ = 200_000
LONGEST_SHOWN = 100_000
# As `extracted_data` names them, in the order of `Body`.
FOLDED = ("quoted", "signature", "forwarded")


@attrs.frozen
class Body:
    """The parts of a body.

    Attributes:
        is_cut: some of it is longer than a page shows.
        is_whole: it could not be taken apart; `written` is all of it, as it came.
    """

    written: str
    quoted: str = ""
    signature: str = ""
    forwarded: str = ""
    is_cut: bool = False
    is_whole: bool = False

    @property
    def folded(self) -> list[tuple[str, str]]:
        """What is shown when asked for, each with its name."""
        parts = [
            (_("Quoted"), self.quoted),
            (_("Forwarded"), self.forwarded),
            (_("Signature"), self.signature),
        ]
        return [(name, text) for name, text in parts if text]


async def body_of(row: Mapping[str, Any]) -> Body:
    """The body of an email: as its handler took it apart, else as the built-in one would."""
    found = read_json(row["extracted_data"])
    if row["cleaned_body"] and isinstance(found, dict) and isinstance(found.get("quoted"), str):
        return _cut(
            row["cleaned_body"],
            *(str(found.get(name) or "") for name in FOLDED),
        )
    text, html = row["raw_body_text"] or "", row["raw_body_html"] or ""
    if len(text) > LONGEST_READ or (not text.strip() and len(html) > LONGEST_READ):
        return _cut(row["cleaned_body"] or text or html)
    try:
        read = await read_text(
            html=html, text=text, subject=row["subject"], sender=row["from_email"], headers={}
        )
    except TextReaderError as error:
        log.warning("email_text_not_read", email_id=str(row["id"]), reason=str(error))
        return attrs.evolve(_cut(text if text.strip() else html), is_whole=True)
    return _cut(read.cleaned_body, *(read.data[name] for name in FOLDED))


def pretty(value: str | None) -> str:
    """JSON as people read it, cut where it is too long for a page."""
    text = json.dumps(read_json(value), ensure_ascii=False, indent=2)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}\n" + _("[cut here]")


def _cut(written: str, quoted: str = "", signature: str = "", forwarded: str = "") -> Body:
    return Body(
        written=written[:LONGEST_SHOWN],
        quoted=quoted[:LONGEST_SHOWN],
        signature=signature[:LONGEST_SHOWN],
        forwarded=forwarded[:LONGEST_SHOWN],
        is_cut=max(map(len, (written, quoted, signature, forwarded))) > LONGEST_SHOWN,
    )
