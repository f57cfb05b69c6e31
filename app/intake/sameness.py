"""Whether an email that a webhook brought and a comment at Zendesk are the same: pure functions.

A trigger's payload names no comment, so its text has to tell. A template may send the text or its
HTML, with entities, another white space, a greeting before or a thread behind it: letters and
digits are compared, and a long text may stand within another. In doubt two are two: an email that
is kept twice is better than one that is lost.
"""

import html
import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias, TypeVar

import attrs

# A shorter text than this may stand within many others.
LONG = 24
# Zendesk's clock and ours may differ, and its times have no fractions.
CLOCKS_DIFFER = timedelta(minutes=5)
# A shorter one is the same email only at an end of it, and if that came so soon.
SHORT_WITHIN = timedelta(minutes=15)
# How long after its comment an email comes that was erased since, and has no text to be known by.
ERASED_WITHIN = timedelta(days=1)

_TAG = re.compile(r"<[^<>]*>")
_UNSEEN = re.compile(r"<(script|style|head)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")

Likeness: TypeAlias = tuple[int, int]

K = TypeVar("K", bound=Hashable)
Item = TypeVar("Item", bound="Told")


@attrs.frozen
class Told:
    """Something that somebody wrote, and when."""

    id: str
    texts: frozenset[str]
    """Its `essences`; empty where its text is not there any more."""
    at: datetime
    comment_id: str | None = None


def essences(texts: Iterable[str | None]) -> frozenset[str]:
    """The letters and digits of each text, and of what its tags leave where it has some."""
    found = set()
    for text in texts:
        if text is not None:
            found.add(_essence(text))
            if "<" in text:
                found.add(_essence(_TAG.sub("", _UNSEEN.sub("", text))))
    return frozenset(found or {""})


def likeness(email: "Told", comment: "Told") -> Likeness | None:
    """How well an email fits a comment, the lower the better: where it has its text, where a
    template's text is around that, and where that is short, and so less certain. Of two texts that
    stand in it the longer one fits better. None: not at all."""
    if email.at < comment.at - CLOCKS_DIFFER:
        return None
    if email.texts & comment.texts:
        return 0, 0
    pairs = [(text, whole) for text in comment.texts if text for whole in email.texts]
    if within := [len(text) for text, whole in pairs if len(text) >= LONG and text in whole]:
        return 1, -max(within)
    # Below a header of the template's, or above what it writes at the end.
    at_an_end = [
        len(text) for text, whole in pairs if whole.endswith(text) or whole.startswith(text)
    ]
    if at_an_end and email.at - comment.at <= SHORT_WITHIN:
        return 2, -max(at_an_end)
    return None


def match(emails: Sequence[Told], comments: Sequence[Told]) -> dict[str, str]:
    """Which comment each email is; each is one at most.

    Those that name their comment are that. Of the others those go together that fit best, and of
    these the nearest in time; none comes before its comment.

    Returns:
        Ids of comments by ids of emails.
    """
    by_id = {email.comment_id: email.id for email in emails if email.comment_id is not None}
    matched = {by_id[comment.id]: comment.id for comment in comments if comment.id in by_id}
    pairs = sorted(
        (like, abs(email.at - comment.at), comment.at, comment.id, email.id)
        for email in emails
        if email.comment_id is None
        for comment in comments
        if comment.id not in by_id and (like := likeness(email, comment)) is not None
    )
    return matched | _nearest(pairs, matched)


def match_erased(erased: Sequence[datetime], comments: Sequence[Told]) -> set[str]:
    """Ids of the comments that are probably those of erased emails, by the times at which they
    came: each is one at most."""
    pairs = sorted(
        ((0, 0), abs(at - comment.at), comment.at, comment.id, str(number))
        for number, at in enumerate(erased)
        for comment in comments
        if comment.at - CLOCKS_DIFFER <= at <= comment.at + ERASED_WITHIN
    )
    return set(_nearest(pairs, {}).values())


def _nearest(
    pairs: Sequence[tuple[Likeness, timedelta, datetime, str, str]], matched: dict[str, str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    taken = set(matched.values())
    for *_, comment_id, email_id in pairs:
        if email_id not in found and comment_id not in taken:
            found[email_id] = comment_id
            taken.add(comment_id)
    return found


def _essence(text: str) -> str:
    plain = unicodedata.normalize("NFKC", html.unescape(text)).casefold()
    return _NEITHER_LETTER_NOR_DIGIT.sub("", plain)
