"""httpx2's transport on our network, and whose certificates it trusts: what every client that calls
out is built on.
"""

import ssl
from pathlib import Path

import httpcore2
import httpx2

from app.outbound.network import CheckedNetwork


class CheckedTransport(httpx2.AsyncHTTPTransport):
    """The library's own transport, on a pool that opens its connections through our network."""

    def __init__(
        self, network: CheckedNetwork, trusted: ssl.SSLContext, *, kept_connections: int = 20
    ) -> None:
        """`kept_connections` stay open for a while for further requests."""
        super().__init__(verify=trusted, trust_env=False)
        # There is no public way to hand a network in. Should this attribute ever be another one,
        # nothing must go out unchecked.
        if type(getattr(self, "_pool", None)) is not httpcore2.AsyncConnectionPool:
            raise RuntimeError("this version of httpx2 has no pool that could be replaced")
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trusted,
            max_connections=None,
            max_keepalive_connections=kept_connections,
            keepalive_expiry=5.0,
            network_backend=network,
        )


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Whom TLS connections trust: the system's authorities, and those of a PEM file."""
    # SSL_CERT_FILE and SSL_CERT_DIR are heeded: they say whom this machine trusts.
    context = httpx2.create_ssl_context()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context
