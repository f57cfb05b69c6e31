"""The checks of `mailroom doctor --url`: through the proxy, as Zendesk and an operator come."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2

from app.cli.addresses import split_address
from app.errors import MailroomError
from app.intake.openapi import WEBHOOK_PATH
from app.intake.probe import PROBE_HEADER
from app.intake.signature import signed_headers
from app.settings import Settings

ANSWER_SECONDS = 12.0


class ProxyError(MailroomError):
    """What is wrong on the way to Mailroom, and how to mend it."""


async def webhook_arrives(settings: Settings, url: str) -> str:
    """A signed webhook, as Zendesk posts it.

    Raises:
        ProxyError: it does not arrive as it was sent.
    """
    seen = await _probe(settings, url, b'{"probe": true}')
    parts = urlsplit(url)
    if seen["scheme"] != parts.scheme:
        raise ProxyError(
            f"webhooks arrive as {seen['scheme']} and not {parts.scheme}: let the proxy send "
            "X-Forwarded-Proto, and let FORWARDED_ALLOW_IPS name the proxy's address (operators "
            "could not sign in)"
        )
    if seen["host"].lower() not in (parts.netloc.lower(), (parts.hostname or "")):
        raise ProxyError(
            f"the proxy changes the Host header to {seen['host']}: let it pass it on "
            "(nginx: proxy_set_header Host $host)"
        )
    return f"a signed webhook arrives, from {seen['client']}, and would be stored"


async def large_webhook_arrives(settings: Settings, url: str) -> str:
    """A webhook as large as MAILROOM_MAX_BODY_BYTES allows.

    Raises:
        ProxyError: the proxy takes smaller ones only.
    """
    await _probe(settings, url, b" " * settings.max_body_bytes)
    return f"a webhook of {settings.max_body_bytes} bytes arrives"


async def pages_answer(settings: Settings, url: str) -> str:
    """The overview and the login, as an operator's browser asks for them.

    Raises:
        ProxyError: they cannot be reached, or lead elsewhere.
    """
    async with httpx2.AsyncClient(timeout=ANSWER_SECONDS) as client:
        page = await client.get(f"{url}/")
        if page.is_redirect:
            target = urljoin(f"{url}/", page.headers["location"])
            if not target.startswith(f"{url}/"):
                raise ProxyError(
                    f"{url}/ leads to {target}, which is outside of it: set MAILROOM_ROOT_PATH to "
                    f"{urlsplit(url).path or 'nothing'}, and see that the proxy passes Host and "
                    "X-Forwarded-Proto on"
                )
            page = await client.get(target)
        if page.status_code != 200:
            raise ProxyError(f"{page.url} answers {page.status_code}: {_said(page)}")
        if "x-content-type-options" not in page.headers:
            raise ProxyError(f"{page.url} is not answered by Mailroom, or its headers are removed")
        await client.get(f"{url}/admin/public/meta/")
        token = client.cookies.get("csrftoken") or ""
        # A login that cannot succeed; what is asked is whether it is looked at.
        login = await client.post(
            f"{url}/admin/public/login/",
            json={"username": "", "password": ""},
            headers={"X-CSRFToken": token, "Origin": _origin(url), "Referer": f"{url}/admin/"},
        )
    if login.status_code == 403:
        raise ProxyError(f"nobody could sign in: {_said(login)}")
    return "the pages of operators answer, and a login is looked at"


def checks(url: str) -> dict[str, Callable[[Settings], Awaitable[str]]]:
    """The checks by name, for Mailroom's address as the world sees it.

    Raises:
        AddressError: it is none.
    """
    base = url.rstrip("/").removesuffix(WEBHOOK_PATH)
    split_address(base)
    return {
        "webhook": lambda settings: _told(webhook_arrives, settings, base),
        "body size": lambda settings: _told(large_webhook_arrives, settings, base),
        "pages": lambda settings: _told(pages_answer, settings, base),
    }


async def _told(
    check: Callable[[Settings, str], Awaitable[str]], settings: Settings, url: str
) -> str:
    try:
        return await check(settings, url)
    except httpx2.HTTPError as error:
        said = f"{type(error).__name__} {error}".strip()
        raise ProxyError(
            f"no answer from {url} ({said}): see that its name, port and certificate are right "
            "and that the proxy runs"
        ) from error


async def _probe(settings: Settings, url: str, body: bytes) -> dict[str, Any]:
    headers = signed_headers(settings.webhook_secrets[0].secret, body)
    async with httpx2.AsyncClient(timeout=ANSWER_SECONDS) as client:
        answer = await client.post(
            f"{url}{WEBHOOK_PATH}", content=body, headers={**headers, PROBE_HEADER: "1"}
        )
    status = answer.status_code
    if answer.is_redirect:
        target = answer.headers.get("location", "")
        raise ProxyError(
            f"the webhook's path is redirected to {target}: Zendesk does not follow, so give it "
            "the address where that leads"
        )
    match status:
        case 200 if _is_probe(answer):
            seen: dict[str, Any] = answer.json()
            return seen
        case 401:
            why = "see that MAILROOM_WEBHOOK_SECRETS is the same there"
            if answer.headers.get("www-authenticate", "").startswith("Basic"):
                why = "the proxy asks for a password: let the webhook's path pass without one"
            mend = f"{_said(answer)}: {why}, and that the proxy changes no body and no header"
        case 404 | 405:
            mend = (
                f"Mailroom is not at this path ({_said(answer)}): set MAILROOM_ROOT_PATH to the "
                "prefix under which the proxy shows it, and see where the proxy leads to"
            )
        case 413:
            mend = (
                f"a body of {len(body)} bytes is too large for the proxy: let it take "
                f"{settings.max_body_bytes} (nginx: client_max_body_size), or lower "
                "MAILROOM_MAX_BODY_BYTES"
            )
        case 502 | 504:
            mend = "the proxy does not reach Mailroom: see that `mailroom web` runs where it leads"
        case 503:
            mend = f"Mailroom, or the proxy for it, cannot take email now ({_said(answer)})"
        case _:
            mend = "this is not Mailroom, or another version of it: see where the proxy leads to"
    raise ProxyError(f"a webhook to {url}{WEBHOOK_PATH} is answered {status}: {mend}")


def _is_probe(answer: httpx2.Response) -> bool:
    try:
        return answer.json().get("probe") is True
    except (ValueError, AttributeError):
        return False


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _said(answer: httpx2.Response) -> str:
    """The detail of a problem, else the beginning of the text, in one line."""
    try:
        said = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        said = answer.text
    return " ".join(str(said).split())[:300]
