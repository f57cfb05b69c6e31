"""Sentences that were written in English into rows, or are told to programs, as pages tell them in
the language that is spoken. What anybody else wrote, a handler say, is told as it is.

Each is listed as a message, whose values are found by it; it may stand beside others, parted by
colons, semicolons or commas.
"""

import functools
import re

from app.i18n.languages import ENGLISH, spoken
from app.i18n.texts import N_, gettext

# More is no sentence of ours, and takes its time.
LONGEST = 600
_PARTED_BY = ("; ", ": ", ", ")
_VALUE = re.compile(r"%\((\w+)\)s")

OF_EMAILS = (
    N_("retried by %(who)s"),
    N_("completed by %(who)s: %(why)s"),
    N_("discarded by %(who)s: %(why)s"),
    N_("progress: %(text)s"),
    N_("its worker vanished"),
    N_("its worker vanished while processing it (times: %(times)s)"),
    N_("the handler did not finish within %(seconds)s seconds"),
    N_("the handler was cancelled"),
    N_("its message was lost"),
    N_("handed back untried: its worker stopped"),
    N_("handed back untried: its worker had no place for it"),
    N_("handed back: its worker could not reach the database to extend its lease"),
    N_("its sender was looked up at Zendesk"),
    N_("its webhook came after all"),
)
OF_DELIVERIES = (
    N_("the worker that delivered it vanished"),
    N_("the receiver answered %(status)s"),
    N_("the receiver could not be reached"),
    N_("to be delivered again: a file of it was removed"),
)
OF_REFUSALS = (
    N_("is missing: it has to be sent with a value"),
    N_("is blank: it has to be sent with a value"),
    N_("has to be a string, not %(kind)s"),
    N_("has to be a string or a number, not %(kind)s"),
    N_("a boolean"),
    N_("a number"),
    N_("a list"),
    N_("an object"),
    N_("a string"),
    N_(
        "the body is not JSON (%(error)s): look for unescaped quotes or a stray comma in the "
        "webhook's template"
    ),
    N_("the body is not %(charset)s (byte %(byte)s): send it as UTF-8 JSON"),
    N_("the body is blank: see that the webhook's template is not"),
    N_("the body has to be a JSON object such as %(example)s"),
    N_("the body has to be JSON: set the webhook's request format to JSON in Zendesk"),
    N_("the body must not be compressed: send it without Content-Encoding"),
    N_("the body is larger than %(most)s bytes (MAILROOM_MAX_BODY_BYTES)"),
    N_(
        "Mailroom fails to store this email, as its log tells: send the webhook again, or retry it "
        "out of the quarantine when that is mended"
    ),
    N_(
        "the database refuses this email, as the log tells: send the webhook again, or retry it "
        "out of the quarantine when that is mended"
    ),
    N_(
        "the headers X-Zendesk-Webhook-Signature and X-Zendesk-Webhook-Signature-Timestamp are "
        "needed: switch on signing for this webhook in Zendesk"
    ),
    N_(
        "the signature fits none of the active secrets: compare MAILROOM_WEBHOOK_SECRETS with the "
        "signing secret shown in Zendesk's Admin Center; if they are the same, a proxy in between "
        "changed the body, which has to arrive byte for byte"
    ),
    N_(
        "the signature's timestamp is %(seconds)s seconds away from the server's clock, %(most)s "
        "are allowed (MAILROOM_SIGNATURE_MAX_AGE_SECONDS)"
    ),
    N_(
        "X-Zendesk-Webhook-Signature is not base64: send base64(HMAC-SHA256(secret, timestamp + "
        "body))"
    ),
    N_(
        "X-Zendesk-Webhook-Signature-Timestamp is not an ISO 8601 time such as 2026-11-23T14:05:09Z"
    ),
    N_("it comes from an address that is none of Zendesk's published ones (MAILROOM_ZENDESK_IPS)"),
)
OF_MENDING = (
    N_("%(broken)s. It is not mended: %(why)s"),
    N_(
        "the field %(field)s comes twice, with two values: a text that is not escaped may look "
        "like fields of the payload (MAILROOM_WEBHOOK_FIELDS tells which they are)"
    ),
    N_("some backslashes escape something, and some texts are not escaped"),
    N_("beside quotes that are not escaped stand backslashes before letters"),
    N_("some backslashes of a text escape something and some do not"),
    N_("the fields of no known template are all there"),
    N_("it can be read in more than one way"),
    N_("%(field)s seems to begin in many places"),
    N_("in %(field)s seems to begin another field"),
    N_("the server is stopping: send the webhook again"),
    N_("too many emails wait for the database: send the webhook again"),
)
OF_FILES = (
    N_("deleted at Zendesk"),
    N_("Zendesk's scan found malware in it"),
    N_("Zendesk has not scanned it yet"),
    N_("clamd found %(what)s"),
    N_("clamd did not check it in time"),
    N_("clamd did not check it (%(error)s)"),
    N_("clamd does not answer: see MAILROOM_CLAMD"),
    N_("it cannot be written down here (%(error)s)"),
    N_(
        "MAILROOM_ATTACHMENT_STORE: %(scheme)s:// cannot be opened (%(error)s): see the folder's "
        "rights, or the environment variables of the bucket's provider"
    ),
    N_("the store has no such content"),
    N_("the store cannot %(what)s (%(error)s)"),
    N_("the store gives back other bytes than were written to it"),
    N_("the store's disk is nearly full (%(bytes)s bytes are free)"),
    N_("the name %(host)s is not known"),
    N_("the URL is longer than %(most)s characters"),
    N_("the URL does not begin with https:// and a host"),
    N_("the URL has no host that could exist"),
    N_("the URL holds a user or a password"),
    N_("this is no URL"),
    N_("it sends on more than %(most)s times"),
    N_("it took longer than %(seconds)s seconds"),
    N_("%(host)s sends fewer than %(bytes)s bytes a second"),
    N_("%(host)s sends it compressed, unasked"),
    N_("%(host)s may not be called at port %(port)s"),
    N_("%(host)s may be called by https alone"),
    N_("%(host)s may not be called"),
    N_("%(host)s must not be called: its address is %(kind)s"),
    N_("%(host)s's API refuses the token"),
    N_("%(host)s's API answered what is no list of comments"),
    N_("%(host)s's API answered %(status)s"),
)
OF_ZENDESK = (
    N_("Zendesk's API is not asked: %(why)s"),
    N_("Zendesk's API does not answer: %(why)s"),
    N_("Zendesk's API answers 404: it knows nothing of that"),
    N_(
        "Zendesk's API answers 403: the agent of MAILROOM_ZENDESK_EMAIL may not do this; an "
        "administrator's token is needed"
    ),
    N_("Zendesk's API answers no JSON: see MAILROOM_ZENDESK_URL"),
    N_("Zendesk's API answers no list of %(what)s: see MAILROOM_ZENDESK_URL"),
    N_("Zendesk's API answers an odd suspended ticket"),
    N_("Zendesk's list of suspended tickets does not get on"),
    N_("Zendesk's API answers %(status)s"),
)
OF_ALARMS = (
    N_("no email came yet"),
    N_("the last email came %(time)s ago"),
    N_("no email came for %(time)s, in which %(number)s usually come"),
    N_("Zendesk has no new ticket by email either: a quiet day"),
    N_("what is usual is known after %(weeks)s weeks with email"),
    N_("so few come that a silence would tell nothing for weeks"),
    N_("a silence would be unusual from %(time)s on (%(zone)s)"),
    N_("Zendesk has no webhook that leads to Mailroom"),
    N_("make it anew with `mailroom zendesk setup`, or name it in MAILROOM_ZENDESK_WEBHOOK_ID"),
    N_("the webhook is inactive at Zendesk"),
    N_("activate it in Zendesk's Admin Center, or with `mailroom zendesk setup`"),
    N_("no active trigger at Zendesk calls the webhook"),
    N_("Zendesk holds its calls of the webhook back (throttled, or its circuit broke)"),
    N_("see that Mailroom answers at its public address: `mailroom doctor --url`"),
    N_("Zendesk's calls are answered 401: the webhook's secret is another one by now"),
    N_("set MAILROOM_WEBHOOK_SECRETS anew, then run `mailroom quarantine retry --all`"),
    N_("Zendesk calls the webhook in vain"),
    N_("see its activity in Zendesk's Admin Center, and `mailroom doctor --url`"),
    N_("webhooks came whose signature is wrong, so the webhook's secret may be another one by now"),
    N_("compare it with MAILROOM_WEBHOOK_SECRETS; then run `mailroom quarantine retry --all`"),
    N_("Zendesk has new tickets by email, and did not call the webhook"),
    N_("see the conditions of its trigger in Zendesk's Admin Center"),
    N_("Mailroom does not know why"),
    N_("see at Zendesk that the webhook and its trigger are active"),
    N_("the quarantine has no room for suspended mail, which Zendesk deletes after 14 days"),
    N_(
        "discard what is not needed with `mailroom quarantine discard`, or raise "
        "MAILROOM_QUARANTINE_MAX_ROWS and MAILROOM_QUARANTINE_MAX_BYTES"
    ),
    N_("Zendesk deletes %(mails)s suspended mails on %(day)s"),
    N_(
        "see `mailroom suspended list`, or the page /suspended: recover or archive what is no "
        "spam, or set MAILROOM_SUSPENDED_ARCHIVE"
    ),
)
OF_CANARIES = (
    N_("the webhook does not answer at %(url)s (%(error)s)"),
    N_(
        "see that `mailroom web` runs, and that MAILROOM_CANARY_URL leads to it; "
        "`mailroom doctor --url` tries the way"
    ),
    N_("emails are accepted, and not queued within %(seconds)s seconds"),
    N_("see that `mailroom worker` runs, and how many emails wait (`mailroom doctor`)"),
    N_("emails are accepted and queued, and no worker takes them within %(seconds)s seconds"),
    N_("see that `mailroom worker` runs, that the broker does, and that handlers end in time"),
    N_(
        "emails are accepted and queued, and workers do not complete them within %(seconds)s "
        "seconds"
    ),
    N_("see the log of `mailroom worker`, and `mailroom doctor`"),
    N_(
        "the webhook at %(url)s answers 401: it does not know the first secret of "
        "MAILROOM_WEBHOOK_SECRETS"
    ),
    N_("let all processes have the same secrets, and restart those that have others"),
    N_("the webhook at %(url)s answers %(status)s, so emails are not accepted"),
    N_("see the log of `mailroom web`, and `mailroom doctor`"),
    N_("somebody else than Mailroom answers at %(url)s"),
    N_("let MAILROOM_CANARY_URL, or MAILROOM_PUBLIC_URL, lead to Mailroom"),
    N_("a canary was accepted by another Mailroom, or by an older version of it"),
    N_("let MAILROOM_CANARY_URL, or MAILROOM_PUBLIC_URL, lead to this one"),
    N_("another canary took the place of this one"),
    N_("see that all processes have the same MAILROOM_CANARY_SECONDS"),
)
OF_CHORES = (
    N_("%(number)s messages about alarms sent"),
    N_("a canary was completed %(seconds)s s after it was sent"),
    N_("a canary was accepted, and goes no further: processing is paused"),
    N_("emails stored before %(day)s are still to be indexed"),
    N_("%(number)s emails indexed"),
    N_("%(number)s half-written files removed from the store"),
    N_("%(number)s erasures were brought to their ends"),
    N_("%(number)s emails looked at so far"),
    N_("%(number)s emails looked at"),
    N_("%(number)s ranges of addresses"),
    N_("waits until %(time)s UTC: %(reason)s"),
    N_("ended between"),
    N_("at the %(what)s now"),
    # Those that others end with come after them.
    N_("texts of completed emails"),
    N_("texts of failed emails"),
    N_("completed emails"),
    N_("failed emails"),
    N_("files of emails"),
    N_("entries of histories"),
    N_("events that the receiver has"),
    N_("entries of the audit log"),
    N_("bulk actions"),
    N_("%(number)s texts of completed emails"),
    N_("%(number)s texts of failed emails"),
    N_("%(number)s completed emails"),
    N_("%(number)s failed emails"),
    N_("%(number)s files of emails"),
    N_("%(number)s entries of histories"),
    N_("%(number)s events that the receiver has"),
    N_("%(number)s entries of the audit log"),
    N_("%(number)s bulk actions"),
    N_("removed: nothing"),
    N_("removed: %(what)s"),
    N_("%(number)s are suspended"),
    N_("%(number)s recovered"),
    N_("%(number)s which Zendesk could not recover"),
    N_("%(number)s archived"),
    N_("%(number)s that the quarantine has no room for"),
    N_("%(number)s without an id, left out"),
)


def as_told(text: str) -> str:
    """A stored text in the language that is spoken, as far as it is ours."""
    if spoken() == ENGLISH or len(text) > LONGEST:
        return text
    for pattern, message in _patterns():
        if found := pattern.fullmatch(text):
            return gettext(
                message, **{name: as_told(one) for name, one in found.groupdict().items()}
            )
    for mark in _PARTED_BY:
        first, parted, rest = text.partition(mark)
        if parted:
            return as_told(first) + mark + as_told(rest)
    return text


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    # What stands around another sentence comes first, and what begins with any value last.
    messages = (
        *(*OF_MENDING, *OF_EMAILS, *OF_DELIVERIES, *OF_REFUSALS, *OF_ALARMS, *OF_CANARIES),
        *(*OF_CHORES, *OF_ZENDESK, *OF_FILES),
    )
    return [(_pattern(message), message) for message in messages]


def _pattern(message: str) -> re.Pattern[str]:
    first, *others = _VALUE.split(message)
    rest = "".join(
        f"(?P<{name}>.+?){re.escape(text)}"
        for name, text in zip(others[::2], others[1::2], strict=True)
    )
    return re.compile(re.escape(first) + rest, re.DOTALL)
