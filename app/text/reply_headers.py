"""Where an earlier email begins: a line such as "On ... wrote:", a block of "From: ... Sent: ...",
or a separator such as "-----Original Message-----", in the languages of `reply_words`.

Every look at a place costs a bounded number of short lines, so that all looks together are linear
in the size of the email."""

import re
from enum import Enum

import attrs

from app.text import reply_words as words
from app.text.dashes import RULE, words_between_dashes
from app.text.lines import Line, Mark

LONGEST_HEADER_LINE = 500
MOST_ATTRIBUTION_LINES = 4
MOST_BLOCK_LINES = 16
MOST_LABEL = 32


class Label(Enum):
    """What a line above an earlier email names."""

    FROM = "from"
    SENT = "sent"
    TO = "to"
    SUBJECT = "subject"
    OTHER = "other"


class Kind(Enum):
    """What begins at a header."""

    REPLY = "reply"
    FORWARD = "forward"


@attrs.frozen
class Header:
    """The lines above an earlier email.

    Attributes:
        start, end: its lines, `end` not among them.
        is_certain: it stands for an earlier email even if no mark of quoting follows.
        lead: words of the reply that stand on its first line.
    """

    start: int
    end: int
    kind: Kind
    is_certain: bool = True
    lead: str = ""


def _listed(text: str) -> list[str]:
    return [word for word in text.split("|") if word]


# The first meaning of a word counts: `Re` in a block is a subject, `De` a sender.
_LABELS = {
    word: label
    for label, text in reversed(
        [
            (Label.FROM, words.FROM_LABELS),
            (Label.SENT, words.SENT_LABELS),
            (Label.TO, words.TO_LABELS),
            (Label.SUBJECT, words.SUBJECT_LABELS),
            (Label.OTHER, words.OTHER_LABELS),
        ]
    )
    for word in _listed(text)
}
_WROTE = re.compile(
    rf"(?:(?<!\w)(?:{words.WROTE})(?!\w)|写道|寫道|のメール|님이 작성|書きました)", re.IGNORECASE
)
_LAST_WORDS = tuple(sorted({re.sub(r"\\", "", word).split()[-1] for word in _listed(words.WROTE)}))
_ORIGINAL = frozenset(_listed(words.ORIGINAL_WORDS))
_FORWARDED = tuple(_listed(words.FORWARDED_WORDS))
_FORWARD_SUBJECT = re.compile(rf"\s*(?:{words.FORWARD_SUBJECTS})\s?[:：]", re.IGNORECASE)

_ADDRESS = re.compile(r"[^\s@<>()\[\]\"]@[^\W_]")
_ADDRESS_IN_BRACKETS = re.compile(r"[<(\[]\s?(?:mailto:)?[^\s@<>()\[\]]{1,80}@[^\s@<>()]{2,80}")
_DATE = re.compile(
    r"\d{1,4}\s?[./-]\s?\d{1,2}\s?[./-]\s?\d{2,4}|\d{1,2}\s?[:.h]\s?\d{2}(?!\d)|(?<!\d)(?:19|20)\d\d(?!\d)"
    r"|\d{1,2}\s?[月년日]|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\w*, \w{3,9} \d{1,2}"
)
# "On Tue, 3", "Le lun. 15", "2017-11", "pe 20.": up to three words, then a number.
_STARTS_WITH_DATE = re.compile(r"[^\w<]*(?:[^\W\d]{1,14}[.,׳]?,?[\s\u00a0]+){0,3}\(?\d")
_GLUED = re.compile(r"(?<![A-Z])(?:On|Am|Le|El|Il|Op|Em) (?:[^\W\d]{2,10}[.,]?,? ){0,2}\d{1,4}")
_INNER_LABEL = re.compile(r"(?<=\s)\*?([^\W\d][\w ]{0,20}?)\s?\*?[:：]\*?\s")
_SOME_LABEL = re.compile(r"[*_\s]*[^\W\d][^:：\n]{0,40}[:：]")
_CLOCK = re.compile(r"\d{1,2}\s?[:.h]\s?\d{2}(?![\d.])|\d{1,2}\s?[時时시]")
# What Zendesk and its like put above what they send.
_REPLY_ABOVE = re.compile(
    r"[\s>]*(?:##-.{3,150}-##|(?:[-=_*][-=_*\s]*)?(?:please )?(?:type|write|reply|respond)\b"
    r".{0,30}\babove this line.{0,60})\s*",
    re.IGNORECASE,
)
_TIME = re.compile(r"\d{1,2}[:.h]\d{2}|\d{4}|\d{1,2}\s?[時时시]")


def header_at(lines: list[Line], index: int, *, subject: str = "") -> Header | None:
    """The header that begins at a line, or none.

    Args:
        subject: of the email; it tells whether a block of labels stands above a forwarded email.
    """
    line = lines[index]
    if line.mark not in (Mark.NONE, Mark.SIGNATURE):
        header = _marked(lines, index, subject)
        if header is not None:
            return header
    text = line.text
    if len(text) > LONGEST_HEADER_LINE or not text or text.isspace():
        return None
    return (
        _separator(lines, index, subject)
        or _block(lines, index, subject)
        or _attribution(lines, index)
    )


def _marked(lines: list[Line], index: int, subject: str) -> Header | None:
    mark = lines[index].mark
    if mark is Mark.ATTRIBUTION and lines[index].text:
        end = index
        while end < len(lines) and end - index < 8 and lines[end].mark is mark:
            end += 1
        is_forward = any(_is_forward(line.text) for line in lines[index:end])
        return Header(index, end, Kind.FORWARD if is_forward else Kind.REPLY)
    if mark is Mark.FORWARDED:
        return Header(index, index + 1, Kind.FORWARD)
    if mark is Mark.PERHAPS_EARLIER:
        following = [line for line in lines[index : index + 12] if not line.is_blank][:5]
        if sum(_SOME_LABEL.match(line.text[:80]) is not None for line in following) < 2:
            return None
    elif mark is not Mark.EARLIER:
        return None
    for start in range(index, min(index + 4, len(lines))):
        block = _block(lines, start, subject)
        if block is not None:
            return attrs.evolve(block, start=index)
    return Header(index, index + 1, _kind_by(subject))


def _kind_by(subject: str) -> Kind:
    return Kind.FORWARD if _FORWARD_SUBJECT.match(subject) else Kind.REPLY


def _is_forward(text: str) -> bool:
    return text.strip(" -_=*~—–─━>:：").casefold().startswith(_FORWARDED)


def _separator(lines: list[Line], index: int, subject: str) -> Header | None:
    text = lines[index].text
    between = words_between_dashes(text) if len(text) < 200 else None
    if len(text) < 200 and _REPLY_ABOVE.fullmatch(text):
        return Header(index, index + 1, Kind.REPLY)
    said = (text if between is None else between).strip(" *:：\t").casefold()
    if len(said) > 90:
        return None
    if said.startswith(_FORWARDED) and (
        between is not None or text.rstrip(" *").endswith((":", "："))
    ):
        return Header(index, index + 1, Kind.FORWARD)
    if between is None:
        return None
    if said in _ORIGINAL or any(said.startswith(f"{word} ") for word in _ORIGINAL):
        following = _block(lines, _next_words(lines, index + 1), subject)
        return Header(index, following.end if following else index + 1, _kind_by(subject))
    if _WROTE.search(said):
        return Header(index, index + 1, Kind.REPLY)
    return None


def _next_words(lines: list[Line], index: int) -> int:
    while index < len(lines) - 1 and lines[index].is_blank:
        index += 1
    return min(index, len(lines) - 1)


def label_of(text: str) -> tuple[Label, str] | None:
    """The label that a line begins with, and what stands after it."""
    head = text[: MOST_LABEL + 16].lstrip(" \t*_|\u00a0\u200e\u200f>")
    for colon in (":", "："):
        word, found, _ = head.partition(colon)
        if found:
            label = _LABELS.get(word.strip(" \t*_\u00a0").casefold())
            if label is not None:
                return label, text[text.index(colon) + 1 :].strip(" \t*_\u00a0")
    return None


def _block(lines: list[Line], index: int, subject: str) -> Header | None:
    first = label_of(lines[index].text)
    if first is None or first[0] is Label.OTHER:
        return None
    depth = lines[index].depth
    found: dict[Label, str] = {}
    end = position = index
    unlabelled = 0
    while position < min(len(lines), index + MOST_BLOCK_LINES):
        line = lines[position]
        labelled = label_of(line.text) if len(line.text) <= 4 * LONGEST_HEADER_LINE else None
        if line.depth != depth:
            break
        if labelled is not None:
            label, value = labelled
            if label in found and label is not Label.OTHER:
                break
            found[label] = value
            _inner_labels(value, found)
            unlabelled = 0
            end = position + 1
        else:
            unlabelled += 1
            if unlabelled > 2 or (line.is_blank and len(found) >= 4):
                break
        position += 1
    if not _is_block(found):
        return None
    return Header(_back_over_rules(lines, index), end, _kind_by(subject))


def _inner_labels(value: str, found: dict[Label, str]) -> None:
    for match in _INNER_LABEL.finditer(value[:LONGEST_HEADER_LINE]):
        label = _LABELS.get(match[1].strip().casefold())
        if label is not None:
            found.setdefault(label, value[match.end() :])


def _is_block(found: dict[Label, str]) -> bool:
    kinds = found.keys() - {Label.OTHER}
    has_address = any(_ADDRESS.search(value[:200]) for value in found.values())
    has_time = _TIME.search(found.get(Label.SENT, "")[:120]) is not None
    if len(kinds) >= 3:
        return (Label.FROM in kinds or {Label.SENT, Label.TO} <= kinds) and (
            has_address or has_time or Label.SUBJECT in kinds
        )
    if kinds == {Label.FROM, Label.SENT}:
        return has_time and (has_address or len(found[Label.FROM]) > 0)
    return kinds == {Label.SENT, Label.TO} and has_time and has_address


def _back_over_rules(lines: list[Line], index: int) -> int:
    """Where the header begins, with the rule or the separator that stands above it."""
    above = index - 1
    while above >= 0 and index - above < 4 and lines[above].is_blank:
        above -= 1
    if above >= 0 and (
        RULE.fullmatch(lines[above].text)
        or lines[above].text.strip(" *:：-_").casefold() in _ORIGINAL
    ):
        return above
    return index


def _attribution(lines: list[Line], index: int) -> Header | None:
    """A line that introduces a quote, perhaps broken over several lines, that begins here."""
    first = lines[index]
    text = ""
    found: Header | None = None
    for count, line in enumerate(lines[index : index + MOST_ATTRIBUTION_LINES + 2]):
        is_stray = line.depth == 1 and first.depth == 0 and _is_verb_alone(line.text)
        if len(line.text) > LONGEST_HEADER_LINE or (line.depth != first.depth and not is_stray):
            break
        if line.is_blank:
            # Some clients break before an address, and leave a blank line there.
            after = lines[_next_words(lines, index + count)].text
            if count != 1 or not after.startswith("<") or not _may_begin(text):
                break
            continue
        if count and label_of(line.text):
            break
        text = f"{text} {line.text.strip()}" if text else line.text.strip()
        if len(text) > LONGEST_HEADER_LINE:
            break
        if _may_end(line.text):
            found = _read_attribution(lines, index, index + count + 1, text) or found
            if found is not None and found.is_certain:
                break
        if not (count or _may_begin(text)) or (
            count >= MOST_ATTRIBUTION_LINES - 1 and not _ADDRESS.search(text)
        ):
            break
    return found


def _may_begin(text: str) -> bool:
    return _STARTS_WITH_DATE.match(text[:80]) is not None


def _may_end(text: str) -> bool:
    end = text.rstrip(" \t-–—*_\u00a0\u200e\u200f\u202c").lower()
    return end.endswith((":", "：", ">", *_LAST_WORDS))


def _is_verb_alone(text: str) -> bool:
    said = text.strip(" \u00a0*>")
    return len(said) < 40 and (
        said in (":", "：") or _WROTE.fullmatch(said.rstrip(" :：")) is not None
    )


def _read_attribution(lines: list[Line], index: int, end: int, text: str) -> Header | None:
    begins = _may_begin(text)
    has_address = _ADDRESS.search(text) is not None
    has_date = _DATE.search(text) is not None
    has_verb = (has_address or has_date) and _WROTE.search(text) is not None
    ends_in_colon = text.rstrip(" \t*_\u00a0-–—\u200e\u200f\u202c").endswith((":", "："))
    if has_verb and has_date and (begins or has_address):
        # "On 5 May your colleague wrote:" may as well go on in a sentence.
        is_certain = (
            _ADDRESS_IN_BRACKETS.search(text) is not None
            or (begins and (has_address or _CLOCK.search(text) is not None))
            or (begins and len(text.split()) <= 8 and (not index or lines[index - 1].is_blank))
        )
    elif ends_in_colon and (
        (has_date and _ADDRESS_IN_BRACKETS.search(text)) or _is_first_of_box(lines, index)
    ):
        is_certain = True
    elif (
        (has_verb and has_address)
        or (
            # "Quoting Kim <kim@example.org>:"
            ends_in_colon and _ADDRESS_IN_BRACKETS.search(text)
        )
        or (begins and has_date and text.endswith(">") and _ADDRESS_IN_BRACKETS.search(text))
    ):
        is_certain = False
    else:
        return None
    lead = ""
    if not begins:
        glued = _GLUED.search(text, 1)
        if glued is not None and end == index + 1:
            lead = lines[index].text[: lines[index].text.find(glued[0])].rstrip(" \t-–—")
    while end < len(lines) and (
        _is_verb_alone(lines[end].text) or _ADDRESS_ALONE.fullmatch(lines[end].text[:200])
    ):
        end += 1
    return Header(index, end, Kind.REPLY, is_certain, lead)


def _is_first_of_box(lines: list[Line], index: int) -> bool:
    """Whether a line is the first in the element that holds an earlier email."""
    box = lines[index].box
    return box > 0 and (index == 0 or lines[index - 1].box != box)


_ADDRESS_ALONE = re.compile(r"\s*[<(\[][^\s@]{1,80}@[^\s@]{2,80}[>)\]]:?\s*")
