"""A webhook that only asks how webhooks arrive: `mailroom doctor --url` sends it through the proxy.

It is signed like an email's, is answered with what the web process saw of it, and stores nothing.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response

from app.intake.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, verify
from app.settings import get_settings

PROBE_HEADER = "x-mailroom-probe"


def answer_probe(request: Request[Any, Any, Any], body: bytes) -> Response[bytes]:
    """What this process saw of a signed probe.

    Raises:
        SignatureRefusedError: whoever asks does not know a secret.
    """
    settings = get_settings()
    verify(
        signature=request.headers.get(SIGNATURE_HEADER),
        timestamp=request.headers.get(TIMESTAMP_HEADER),
        body=body,
        secrets=settings.webhook_secrets,
        max_age_seconds=settings.signature_max_age_seconds,
        now=datetime.now(UTC),
    )
    seen = {
        "probe": True,
        "scheme": request.scope["scheme"],
        "host": request.headers.get("host", ""),
        "client": request.client.host if request.client else "",
        "bytes": len(body),
    }
    return Response(msgspec.json.encode(seen), media_type="application/json")
