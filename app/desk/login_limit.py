"""How many passwords may be tried from one network, counted for all web processes together."""

from contextvars import ContextVar
from datetime import timedelta
from ipaddress import IPv6Address, ip_address, ip_network

from litestar.exceptions import HTTPException
from litestar.types import Scope

from app.database.engine import running_pool
from app.jobs.transitions.common import Database
from app.models.login_attempts import LoginAttempts

MOST_ATTEMPTS = 20
SPAN = timedelta(minutes=5)

# A provider gives a customer a whole network of so many bits.
IPV6_BITS = 64

LONGEST_NAME = LoginAttempts.network.length

# One statement, so that attempts which come at once are counted one by one.
COUNT = """
INSERT INTO login_attempts AS seen (network, began_at, attempts) VALUES ($1, now(), 1)
ON CONFLICT (network) DO UPDATE SET
    began_at = CASE WHEN seen.began_at < now() - $2::interval THEN now() ELSE seen.began_at END,
    attempts = CASE
        WHEN seen.began_at < now() - $2::interval THEN 1
        ELSE LEAST(seen.attempts, $3::int) + 1
    END
RETURNING attempts, began_at + $2::interval - now() AS rest
"""

FORGET = "DELETE FROM login_attempts WHERE began_at < now() - $1::interval"

# Set where a request comes in: what tries a password does not see the request.
network: ContextVar[str] = ContextVar("network", default="")


class TooManyAttemptsError(HTTPException):
    """So many passwords were tried from a network that it has to wait."""

    status_code = 429

    def __init__(self, rest: timedelta) -> None:
        seconds = max(int(rest.total_seconds()), 1)
        super().__init__(
            f"too many passwords were tried from this address: wait {seconds} seconds",
            headers={"Retry-After": str(seconds)},
        )


def network_of(scope: Scope) -> str:
    """What the sender of a request is counted by: its address, of IPv6 the network."""
    client = scope["client"]
    host = client[0] if client else ""
    try:
        address = ip_address(host)
    except ValueError:
        # A proxy that uvicorn trusts may name anything.
        return host[:LONGEST_NAME]
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ip_network((address.packed, IPV6_BITS), strict=False))


async def count_attempt() -> None:
    """Count that a password is tried.

    Raises:
        TooManyAttemptsError: it must not be.
    """
    row = await running_pool().fetchrow(COUNT, network.get(), SPAN, MOST_ATTEMPTS)
    if row is not None and row["attempts"] > MOST_ATTEMPTS:
        raise TooManyAttemptsError(row["rest"])


async def forget_old_attempts(database: Database) -> None:
    """Delete what counts no longer."""
    await database.execute(FORGET, SPAN)
