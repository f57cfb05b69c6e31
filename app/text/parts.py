"""An email taken apart: what its writer wrote, what is quoted or forwarded, and the signature."""

import re
from collections.abc import Iterable

import attrs

from app.text.dashes import RULE
from app.text.lines import Line
from app.text.reply_headers import Header, Kind, header_at
from app.text.signatures import split_signature

# Lines looked at for headers; a reply has its first one within hundreds.
MOST_LINES = 4_000
# A quote that is answered is kept whole up to this many lines, else its last paragraph.
MOST_KEPT_LINES = 12
# A line at least this long, when quoted, was broken by the client that quoted it.
WRAPPED_LENGTH = 55

_LINK = re.compile(r"https?://|www\.")
_IS_LINK = re.compile(r"\s*+[(<\[]?(?:https?://|www\.)\S*+\s*+(?:>\s*+)?")


@attrs.define
class Parts:
    """The parts of an email, each in the order of the email.

    Attributes:
        confidence: how sure it is that the parts are right, from 0 to 1.
    """

    written: list[Line] = attrs.field(factory=list)
    quoted: list[Line] = attrs.field(factory=list)
    signature: list[Line] = attrs.field(factory=list)
    forwarded: list[Line] = attrs.field(factory=list)
    confidence: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Nothing was taken away from what was written."""
        return not (self.quoted or self.signature or self.forwarded)


def take_apart(lines: list[Line], *, subject: str = "") -> Parts:
    """Tell what was written in an email from what was quoted, forwarded or signed.

    If nothing else is left, what was forwarded, quoted or signed counts as written.
    """
    parts = Parts()
    header = _first_header(lines, subject)
    if header is None:
        _without_header(lines, parts)
    else:
        _with_header(lines, header, subject, parts)
    parts.written = trimmed(parts.written)
    if not parts.written:
        _take_back(lines, parts)
    return parts


def _take_back(lines: list[Line], parts: Parts) -> None:
    """Rather too much than nothing: all that is there."""
    parts.written = trimmed(lines)
    parts.confidence = 0.9 if parts.forwarded else 0.3


def _first_header(
    lines: list[Line], subject: str, start: int = 0, end: int | None = None
) -> Header | None:
    for index in range(start, min(len(lines) if end is None else end, MOST_LINES)):
        line = lines[index]
        if line.depth == 0 and line.text:
            header = header_at(lines, index, subject=subject)
            if header is not None and (header.is_certain or _is_quote_next(lines, header)):
                return header
    return None


def _is_quote_next(lines: list[Line], header: Header) -> bool:
    first = lines[header.start]
    for line in lines[header.end : header.end + 4]:
        if not line.is_blank:
            return line.depth > first.depth or line.bare > first.bare
    return False


def _with_header(lines: list[Line], header: Header, subject: str, parts: Parts) -> None:
    start = header.start
    while start and (lines[start - 1].is_blank or RULE.fullmatch(lines[start - 1].text)):
        start -= 1
    parts.quoted += lines[start : header.start]
    before = lines[:start]
    if header.lead:
        before = [*before, Line(header.lead)]
    _add_written(parts, before)
    end = _end_of_region(lines, header)
    if header.kind is Kind.FORWARD:
        parts.forwarded = lines[header.start : end]
        _add_written(parts, lines[end:])
        parts.confidence = 0.9
        return
    parts.quoted += lines[header.start : header.end]
    if not _is_quote_next(lines, header):
        parts.quoted += lines[header.end : end]
        _add_tail(parts, lines[end:])
        parts.confidence = 0.9
        return
    bare = lines[header.start].bare if not _has_depth(lines, header) else None
    runs = _runs(lines[header.end :], bare, subject)
    _add_runs(parts, runs, has_header=True)
    parts.confidence = 0.95


def _has_depth(lines: list[Line], header: Header) -> bool:
    return any(line.depth for line in lines[header.end : header.end + 4])


def _end_of_region(lines: list[Line], header: Header) -> int:
    """Where the earlier email ends: with the element that holds it, or with the whole email."""
    first = lines[header.start]
    box = first.box or (lines[header.end].box if header.end < len(lines) else 0)
    if box:
        end = header.end
        for index in range(header.end, len(lines)):
            if lines[index].box == box:
                end = index + 1
        return end
    if first.bare:
        for index in range(header.end, len(lines)):
            if lines[index].bare < first.bare and not lines[index].is_blank:
                return index
    return len(lines)


@attrs.define
class _Run:
    """Lines one after another that are all quoted, or all not."""

    is_quoted: bool
    lines: list[Line] = attrs.field(factory=list)

    @property
    def has_words(self) -> bool:
        return any(not line.is_blank for line in self.lines)


def _runs(lines: list[Line], bare: int | None, subject: str) -> list[_Run]:
    runs: list[_Run] = []
    skipped_to = 0
    for index, line in enumerate(lines):
        is_quoted = line.depth > 0 or (bare is not None and line.bare > bare)
        if not is_quoted and index >= skipped_to and line.text and index < MOST_LINES:
            header = header_at(lines, index, subject=subject)
            if header is not None and _is_quote_next(lines, header):
                skipped_to = header.end
        is_quoted = is_quoted or index < skipped_to
        if not runs or (runs[-1].is_quoted != is_quoted and (is_quoted or not line.is_blank)):
            runs.append(_Run(is_quoted))
        runs[-1].lines.append(line)
    return _without_broken_lines(runs)


def _without_broken_lines(runs: list[_Run]) -> list[_Run]:
    """Join what is one quote but for a long line that its client broke without a mark."""
    joined: list[_Run] = []
    for index, run in enumerate(runs):
        before = joined[-1] if joined else None
        if before is not None and before.is_quoted and not run.is_quoted:
            after = runs[index + 1] if index + 1 < len(runs) else None
            if _is_broken_off(before.lines[-1], run, after):
                before.lines += run.lines
                continue
        if before is not None and before.is_quoted == run.is_quoted:
            before.lines += run.lines
        else:
            joined.append(run)
    return joined


def _is_broken_off(before: Line, run: _Run, after: _Run | None) -> bool:
    if len(run.lines) > 2 or any(line.is_blank for line in run.lines):
        return False
    if before.is_blank:
        return _IS_LINK.fullmatch(run.lines[0].text) is not None
    if after is None:
        return False
    return len(before.text) >= WRAPPED_LENGTH or _ends_in_link(before.text)


def _ends_in_link(text: str) -> bool:
    return not text[-1].isspace() and _LINK.search(text.split()[-1]) is not None


def _without_header(lines: list[Line], parts: Parts) -> None:
    if any(line.depth for line in lines):
        parts.confidence = 0.8
        _add_runs(parts, _runs(lines, None, ""), has_header=False)
    else:
        _add_written(parts, lines)


def _add_runs(parts: Parts, runs: list[_Run], *, has_header: bool) -> None:
    """Sort quotes and answers.

    An answer between quotes keeps the lines it answers. One that stands below the whole quote
    needs none, and neither does a quote that stands below the whole answer. A quote amid a text
    that is no reply was put there by the writer, and stays.
    """
    answers = [index for index, run in enumerate(runs) if not run.is_quoted and run.has_words]
    quotes = [index for index, run in enumerate(runs) if run.is_quoted and run.has_words]
    last_quote = quotes[-1] if quotes else -1
    is_interleaved = any(quotes[0] < index < last_quote for index in answers) if quotes else False
    is_amid = not has_header and bool(quotes) and bool(answers) and answers[0] < quotes[0]
    for index, run in enumerate(runs):
        if run.is_quoted:
            is_answered = index + 1 < len(runs) and (is_interleaved or is_amid)
            if is_answered and any(answer > index for answer in answers[-1:]):
                parts.written += _kept(run.lines)
            parts.quoted += run.lines
        elif index > last_quote and (index or has_header) and quotes:
            _add_tail(parts, run.lines)
        elif 0 < index < last_quote:
            parts.written += run.lines
        else:
            _add_written(parts, run.lines)


def _kept(lines: list[Line]) -> list[Line]:
    lines = [line for line in lines if line.depth]
    if len(lines) <= MOST_KEPT_LINES:
        return lines
    start = len(trimmed(lines))
    while start and not lines[start - 1].is_blank:
        start -= 1
    return lines[max(start, len(lines) - MOST_KEPT_LINES) :]


def _add_tail(parts: Parts, lines: list[Line]) -> None:
    """What stands below a quote: an answer, a signature, or what a list or a gateway adds."""
    words = trimmed(lines)
    if words and _is_footer(words[0]):
        parts.signature += words
    else:
        _add_written(parts, lines)


def _is_footer(line: Line) -> bool:
    text = line.text.strip()
    return text in ("--", "__", "—") or RULE.fullmatch(text) is not None


def _add_written(parts: Parts, lines: list[Line]) -> None:
    written, signature = split_signature(lines)
    # Where something was taken out, a blank line stands for it; an answer goes with its quote.
    last = parts.written[-1] if parts.written else None
    if last and written and not (last.depth or last.is_blank or written[0].is_blank):
        parts.written.append(Line(""))
    parts.written += written
    parts.signature += signature


def trimmed(lines: Iterable[Line]) -> list[Line]:
    """The lines without blank ones at the beginning and the end."""
    kept = list(lines)
    end = len(kept)
    while end and kept[end - 1].is_blank:
        end -= 1
    start = 0
    while start < end and kept[start].is_blank:
        start += 1
    return kept[start:end]
