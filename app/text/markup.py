"""How mail clients mark, in their HTML, what is quoted, forwarded or a signature.

Each entry was seen in what the client named writes. Outlook on the web puts `x_` before the names
of what it quotes, Hotmail put `ecx`, Yahoo `yiv` and digits."""

import re
from typing import NamedTuple

from app.text.lines import Mark

_PREFIX = re.compile(r"^(?:x_|ecx|yiv\d+|ydp[0-9a-f]+|mcnt)+")

# Within it stand an attribution and a quote; what stands beside them was written in between.
_BOXES = frozenset(
    {
        *("gmail_quote", "gmail_quote_container"),
        *(
            "yahoo_quoted",
            "yqt",
            "protonmail_quote",
            "tutanota_quote",
            "zmail_extra",
            "zmail_quote",
        ),
        *("olk_src_body_section", "ms-outlook-mobile-reference-message", "sh-reply", "aolreplydiv"),
        *("mail-editor-reference-message-container", "mail_android_quote", "outlook_quote"),
        *("replyforwardcontainer", "reply_content", "skype_quote", "elided-text", "fm_quote"),
        *(
            "xm_mail_oringinal_describe",
            "qqmail_quote",
            "edo-original-message",
            "readdle-message-quote",
        ),
    }
)
_CITES = frozenset(
    {
        *("gmail_quote", "protonmail_quote", "tutanota_quote", "zmail_quote", "cite", "replyquote"),
        *(
            "spark_quote",
            "iosymail",
            "mori",
            "wordsection-quote",
            "reply_quote",
            "mailquote",
            "clean_bq",
        ),
    }
)
_ATTRIBUTIONS = frozenset(
    {
        *(
            "gmail_attr",
            "moz-cite-prefix",
            "moz-email-headers-table",
            "aolmail_attr",
            "qt-attribution",
        ),
        *("protonmail_quote_header", "spark_quote_header", "attribution", "reply_header"),
    }
)
_EARLIER = frozenset(
    {
        *(
            "divrplyfwdmsg",
            "stopspelling",
            "zwchr",
            "outlookmessageheader",
            "replyheader",
            "lnxreply",
        ),
        *(
            "divtagdefaultwrapper-reply",
            "replysplit",
            "mailoriginal",
            "origmsgheader",
            "isforwardcontent",
        ),
    }
)
_FORWARDED = frozenset({"moz-forward-container", "gmail_forward"})
_SIGNATURES = frozenset(
    {
        *(
            "gmail_signature",
            "gmail_signature_prefix",
            "moz-signature",
            "signature",
            "email-signature",
        ),
        *("ms-outlook-mobile-signature", "applemailsignature", "applemailsignatureatstart"),
        *("protonmail_signature_block", "tutanota_signature", "yahoo-signature", "zmail_signature"),
        *(
            "_rc_sig",
            "mail-signature",
            "emailsignature",
            "elementtoproof-signature",
            "sig",
            "cm_signature",
        ),
        *("divsignature", "signaturecontainer", "bloop_sign", "edo-signature", "spark_signature"),
    }
)
# Outlook draws this line above the header of an earlier email; the colours are its versions'.
_OUTLOOK_RULE = re.compile(
    r"border(?:-top)?(?:-color)?:[^;]{0,80}(?:#?e1e1e1|#?b5c4df|rgb\((?:225, ?225, ?225"
    r"|181, ?196, ?223|229, ?229, ?229)\))"
)
_QUOTE_BORDER = re.compile(r"border-left(?:-width|-style)?:[^;]{0,80}(?:solid|[1-9][0-9.]*p[xt])")


class Meaning(NamedTuple):
    """What the markup of one element says: a mark for its lines, a quote, or a box of them."""

    mark: Mark = Mark.NONE
    is_quote: bool = False
    is_box: bool = False
    is_bare_quote: bool = False


NO_MEANING = Meaning()


def meaning_of(tag: str, names: list[str], attributes: dict[str, str]) -> Meaning:
    """What an element means.

    Args:
        names: its classes and its id, in lower case.
        attributes: all of them; names in lower case.
    """
    known = {_PREFIX.sub("", name) for name in names}
    if tag == "blockquote":
        style = attributes.get("style", "").lower()
        is_cite = (
            attributes.get("type", "").lower() == "cite"
            or "cite" in attributes
            or not known.isdisjoint(_CITES)
            or _QUOTE_BORDER.search(style) is not None
        )
        return Meaning(is_quote=is_cite, is_bare_quote=not is_cite)
    if not known.isdisjoint(_SIGNATURES) or _says_signature(attributes):
        return Meaning(Mark.SIGNATURE)
    if not known.isdisjoint(_EARLIER):
        return Meaning(Mark.EARLIER)
    if not known.isdisjoint(_ATTRIBUTIONS):
        return Meaning(Mark.ATTRIBUTION)
    if not known.isdisjoint(_FORWARDED):
        return Meaning(Mark.FORWARDED, is_box=True)
    if tag == "div" and attributes.get("name", "").lower() == "quote":
        # GMX and web.de: header and text, all of it quoted.
        return Meaning(is_quote=True)
    if not known.isdisjoint(_BOXES):
        return Meaning(is_box=True)
    style = attributes.get("style", "")
    if style and tag in ("div", "p", "td", "table") and _OUTLOOK_RULE.search(style.lower()):
        return Meaning(Mark.PERHAPS_EARLIER)
    return NO_MEANING


def _says_signature(attributes: dict[str, str]) -> bool:
    return (
        "signature" in attributes.get("data-smartmail", "")
        or attributes.get("data-signatureblock") == "true"
        or "data-signature" in attributes
        or attributes.get("name", "").lower()
        in ("messagesignaturesection", "x_messagesignaturesection")
    )
