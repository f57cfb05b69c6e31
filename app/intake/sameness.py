"""Whether an email that a webhook brought and a comment at Zendesk are the same: pure functions.

A trigger's payload names no comment, so its text and its files have to tell. A template may send
the text or its HTML, with entities, another white space, a greeting before or a thread behind it:
letters and digits are compared, and a long text may stand within another. Each file has a token of
its own in its URL, wherever that is shown. In doubt two are two: an email that is kept twice is
better than one that is lost.
"""

import html
import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypeVar

import attrs

# A shorter text than this may stand within many others.
LONG = 24
# Zendesk's clock and ours may differ, and its times have no fractions.
CLOCKS_DIFFER = timedelta(minutes=5)
# As far as Zendesk's own servers agree on the time.
ZENDESK_DIFFERS = timedelta(seconds=10)
# A shorter one is the same email only at an end of it, and if that came so soon.
SHORT_WITHIN = timedelta(minutes=15)
# Zendesk gives up a webhook long before; what is older by more is not taken for its comment where
# another one may be.
SENT_WITHIN = timedelta(minutes=15)
# How long after its comment an email comes that was erased since, and has no text to be known by.
ERASED_WITHIN = timedelta(days=1)

_TAG = re.compile(r"<[^<>]*>")
_UNSEEN = re.compile(r"<(script|style|head)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")

_TOKEN = re.compile(r"/attachments/token/([^/?#]+)")

Likeness: TypeAlias = tuple[bool, int, int, bool]
CERTAIN: Likeness = (False, 0, 0, False)

K = TypeVar("K", bound=Hashable)
Item = TypeVar("Item", bound="Told")


@attrs.frozen
class Files:
    """The tokens of an email's files."""

    listed: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()
    """Those of images within its text, which may be quoted from another one."""

    @classmethod
    def of(cls, entries: Any) -> "Files":
        """By entries as the Intake stores them, or as the API shows attachments."""
        listed: set[str] = set()
        shown: set[str] = set()
        for entry in entries if isinstance(entries, list | tuple) else ():
            if isinstance(entry, Mapping):
                urls = f"{entry.get('content_url')} {entry.get('url')}"
                (shown if entry.get("inline") is True else listed).update(_TOKEN.findall(urls))
        return cls(frozenset(listed), frozenset(shown))

    @property
    def all(self) -> frozenset[str]:
        return self.listed | self.shown


@attrs.frozen
class Told:
    """Something that somebody wrote, and when."""

    id: str
    texts: frozenset[str]
    """Its `essences`; empty where its text is not there any more."""
    at: datetime
    comment_id: str | None = None
    files: "Files" = attrs.field(factory=lambda: Files())
    may_be_early: timedelta = CLOCKS_DIFFER
    """By how much `at` may be before the time of its comment."""

    @property
    def is_signed(self) -> bool:
        """Zendesk signed it, and `at` is when."""
        return self.may_be_early == ZENDESK_DIFFERS


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
    """How well an email fits a comment, the lower the better: where it has a file of it; where it
    has its text, where a template's text is around that, and where that is short, and so less
    certain; where not only one of them has files. Of two texts that stand in it the longer one fits
    better. None: not at all."""
    if email.at < comment.at - email.may_be_early:
        return None
    has_its_file = not email.files.all.isdisjoint(comment.files.all)
    if email.files.listed and comment.files.listed and not has_its_file:
        return None
    is_soon = has_its_file or email.at - comment.at <= SHORT_WITHIN
    if (of_text := _likeness_of_texts(email, comment, is_soon=is_soon)) is None:
        return None
    return not has_its_file, *of_text, bool(email.files.listed) != bool(comment.files.listed)


def _likeness_of_texts(email: "Told", comment: "Told", *, is_soon: bool) -> tuple[int, int] | None:
    if email.texts & comment.texts:
        return 0, 0
    pairs = [(text, whole) for text in comment.texts if text for whole in email.texts]
    if within := [len(text) for text, whole in pairs if len(text) >= LONG and text in whole]:
        return 1, -max(within)
    # Below a header of the template's, or above what it writes at the end.
    at_an_end = [
        len(text) for text, whole in pairs if whole.endswith(text) or whole.startswith(text)
    ]
    return (2, -max(at_an_end)) if at_an_end and is_soon else None


def match(emails: Sequence[Told], comments: Sequence[Told]) -> dict[str, str]:
    """Which comment each email is; each is one at most.

    Those that name their comment are that. Of the others those go together that fit best, and of
    these the nearest in time; none comes before its comment, unless `has_place`. An email that
    tells no files, and may be any of several comments with files, is none of them: whichever it is
    not would be lost.

    Returns:
        Ids of comments by ids of emails.
    """
    by_id = {email.comment_id: email.id for email in emails if email.comment_id is not None}
    matched = {by_id[comment.id]: comment.id for comment in comments if comment.id in by_id}
    fitting = [
        (like, email, comment)
        for email in emails
        if email.comment_id is None
        for comment in comments
        if comment.id not in by_id and (like := likeness(email, comment)) is not None
    ]
    pairs = sorted(
        (like, abs(email.at - comment.at), comment.at, comment.id, email.id)
        for like, email, comment in fitting
    )
    found = _nearest(pairs, matched)
    matched |= {one: found[one] for one in found.keys() - _in_doubt(fitting, found)}
    return matched | _exchanged(emails, comments, matched)


def _exchanged(
    emails: Sequence[Told], comments: Sequence[Told], matched: Mapping[str, str]
) -> dict[str, str]:
    """Comments of emails that were sent before them, as `has_place` says."""
    by_id = {comment.id: comment for comment in comments}
    places = [
        (email, by_id[matched[email.id]])
        for email in emails
        if email.is_signed and matched.get(email.id) in by_id
    ]
    left = sorted(by_id.keys() - matched.values(), key=lambda one: (by_id[one].at, one))
    found: dict[str, str] = {}
    for email in sorted(emails, key=lambda email: (email.at, email.id)):
        if email.id in matched or not email.is_signed:
            continue
        for comment_id in left:
            if has_place(email, by_id[comment_id], places):
                found[email.id] = comment_id
                left.remove(comment_id)
                places.append((email, by_id[comment_id]))
                break
    return found


def has_place(email: Told, comment: Told, places: Iterable[tuple[Told, Told]]) -> bool:
    """Whether an email may stand for a comment that was written after it was sent: an email with
    the same words took the place of its own one before that came.

    Of the same words without files each stands for each, as long as there is an order in which none
    was sent before it was written.

    Args:
        places: emails that Zendesk signed, and the comments whose places they have.
    """

    def is_alike(one: Told) -> bool:
        return not one.files.all and not one.texts.isdisjoint(comment.texts)

    if not is_alike(email) or not is_alike(comment):
        return False
    alike = [(one, other) for one, other in places if is_alike(one) and is_alike(other)]
    sent = sorted([email.at, *(one.at for one, _ in alike)])
    written = sorted([comment.at, *(other.at for _, other in alike)])
    return all(one >= other - ZENDESK_DIFFERS for one, other in zip(sent, written, strict=True))


def _in_doubt(fitting: Sequence[tuple[Likeness, Told, Told]], found: Mapping[str, str]) -> set[str]:
    """Ids of emails without files that fit another comment with files as well as the one that was
    found for them, where no email was found for that other."""
    taken = set(found.values())
    likenesses = {
        (email.id, comment.id): like
        for like, email, comment in fitting
        if comment.files.listed
        and not email.files.listed
        and abs(email.at - comment.at) <= SENT_WITHIN
    }
    return {
        email_id
        for (email_id, comment_id), like in likenesses.items()
        if comment_id not in taken and likenesses.get((email_id, found.get(email_id, ""))) == like
    }


def match_erased(erased: Sequence[datetime], comments: Sequence[Told]) -> set[str]:
    """Ids of the comments that are probably those of erased emails, by the times at which they
    came: each is one at most."""
    pairs = sorted(
        (CERTAIN, abs(at - comment.at), comment.at, comment.id, str(number))
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
    # Where there are none, a thumb up is no thumb down.
    return _NEITHER_LETTER_NOR_DIGIT.sub("", plain) or "".join(plain.split())
