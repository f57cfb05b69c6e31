"""What is typed into the field of the audit log: words, and qualifiers such as `who:olga`.

Pure: from the text to an `AuditSearch`, or to what is wrong with it in words.
"""

from collections.abc import Mapping

from app.api.search_text import Qualifier, read_span
from app.audit.acts import Act
from app.audit.finding import AuditSearch
from app.desk.typed_search import one_of, read_typed
from app.i18n.texts import N_
from app.models.audit_entry import Door, Result


def read_audit_search(text: str) -> AuditSearch:
    """The search that a text asks for.

    Raises:
        SearchTextError: says what is wrong and what exists.
    """
    words, fields = read_typed(text, AUDIT_QUALIFIERS)
    return AuditSearch(words=words, **fields)


AUDIT_QUALIFIERS: Mapping[str, Qualifier] = {
    "who": Qualifier("who:olga", N_("the user, token or account"), lambda value: {"actor": value}),
    "what": Qualifier("what:email.retry", N_("the act"), one_of("what", "act", Act)),
    "on": Qualifier("on:0192...", N_("the id or name it was done to"), lambda v: {"on": v}),
    "by": Qualifier("by:api", N_("page, admin, api or command"), one_of("by", "door", Door)),
    "result": Qualifier(
        "result:refused", N_("done, begun, nothing or refused"), one_of("result", "result", Result)
    ),
    "at": Qualifier(
        "at:2026-11-01..2026-11-03", N_("days or moments (UTC)"), read_span("at", "since", "until")
    ),
}
