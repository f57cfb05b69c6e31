"""How many passwords may be tried from one network, how often one may go to the OpenID Connect
provider from there, and how many codes may be tried for one user, counted for all web processes
together."""

from contextvars import ContextVar
from datetime import timedelta
from ipaddress import IPv6Address, ip_address, ip_network

from litestar.exceptions import HTTPException
from litestar.types import Scope

from app.database.engine import running_pool
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.jobs.transitions.common import Database
from app.models.login_attempts import LoginAttempts

MOST_ATTEMPTS = 20
# Three of a million are right at a time: who has the password guesses for months, and each try is
# in the audit log.
MOST_CODES = 5
# Each way there is a row, and may ask the provider for its documents.
MOST_WAYS = 60
TOO_MANY_PASSWORDS = N_("too many passwords were tried from this address: wait %(num)s seconds")
TOO_MANY_CODES = N_("too many codes were tried for this user: wait %(num)s seconds")
TOO_MANY_WAYS = N_("too many sign-ins were begun from this address: wait %(num)s seconds")
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
    """So many sign-ins were tried from a network, or codes for a user, that one has to wait."""

    status_code = 429

    def __init__(self, message: str, rest: timedelta) -> None:
        seconds = max(int(rest.total_seconds()), 1)
        super().__init__(_(message, num=seconds), headers={"Retry-After": str(seconds)})


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
    await _count(network.get(), MOST_ATTEMPTS, TOO_MANY_PASSWORDS)


async def count_code(user_id: int) -> None:
    """Count that a code is tried for a user, from wherever.

    Raises:
        TooManyAttemptsError: it must not be.
    """
    await _count(f"user {user_id}", MOST_CODES, TOO_MANY_CODES)


async def count_way() -> None:
    """Count that somebody goes to the provider, or comes back without having gone.

    Raises:
        TooManyAttemptsError: they must not.
    """
    await _count(f"oidc {network.get()}"[:LONGEST_NAME], MOST_WAYS, TOO_MANY_WAYS)


async def _count(key: str, most: int, message: str) -> None:
    row = await running_pool().fetchrow(COUNT, key, SPAN, most)
    if row is not None and row["attempts"] > most:
        raise TooManyAttemptsError(message, row["rest"])


async def forget_old_attempts(database: Database) -> None:
    """Delete what counts no longer."""
    await database.execute(FORGET, SPAN)
