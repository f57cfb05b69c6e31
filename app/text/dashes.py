"""Lines of dashes: rules, and words between dashes such as "-----Original Message-----".

Each pattern has one way to read a line, so that what strangers write takes linear time."""

import re

RULE = re.compile(r"[\s>]*(?:[-_=*~—–─━＿－＝#][ \t]?){3,}\s*")
_DASHES = "-_=*~—–─━"
# A round ends with each blank, so that no star belongs to two repetitions.
_BEFORE = re.compile(rf"(?:\**[\s>])*[{_DASHES}]{{2,}}[ \t]?")
_AFTER_BACKWARDS = re.compile(rf"(?:\**\s)*[{_DASHES}:]{{2,}}[ \t]?")
_WORDS = re.compile(rf"[^{_DASHES}\s][^=*~─━]{{1,78}}")


def words_between_dashes(line: str) -> str | None:
    """The 2 to 79 characters that stand between dashes; None where the line is no such thing."""
    before = _BEFORE.match(line)
    after = _AFTER_BACKWARDS.match(line[::-1]) if before else None
    if before is None or after is None:
        return None
    words = line[before.end() : len(line) - after.end()]
    return words if _WORDS.fullmatch(words) else None
