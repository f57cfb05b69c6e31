"""Zendesk's login page, which comes with status 200 in place of a file that needs a login.

https://support.zendesk.com/hc/en-us/articles/10223024943770 (attachments of end users are private)
"""

import re

import httpx2

from app.attachments.content_type import is_html
from app.outbound.client import Answer

# Bytes in which the form is looked for.
LOOKED_AT_BYTES = 64 * 1024

_LOGIN_PATH = re.compile(
    r"/(access|login|auth|sso|saml|oauth2?|signin|sign_in|adfs)(/|\Z)|/sign_?in\b", re.IGNORECASE
)
_LOGIN_FORM = re.compile(
    rb"""type=["']?password|/access/(?:login|unauthenticated|sso)|authenticity_token|"""
    rb"""/auth/v\d/|SAMLRequest|name=["']?user\[email\]""",
    re.IGNORECASE,
)
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_HTML_NAME = re.compile(r"\.x?html?\Z", re.IGNORECASE)


def leads_to_login(target: httpx2.URL) -> bool:
    """Whether a redirect goes to a page where people log in."""
    is_file = target.path.startswith("/attachments/")
    return not is_file and _LOGIN_PATH.search(target.path) is not None


def is_login_page(head: bytes, answer: Answer, claimed_type: str | None) -> bool:
    """Whether an answer of the account's own host is a page to log in on, and no file.

    A file that Zendesk gives out itself says its name in Content-Disposition; its pages do not.
    """
    if not is_html(head) or "filename" in answer.headers.get("content-disposition", ""):
        return False
    claim = (claimed_type or "").partition(";")[0].strip().lower()
    names_html = claim in _HTML_TYPES or (
        not claim and _HTML_NAME.search(answer.url.params.get("name", "")) is not None
    )
    if claim and not names_html:
        return True
    return _LOGIN_FORM.search(head) is not None
