"""Whether a webhook comes from an address of Zendesk's: a second look beside its signature.

The list is fetched by a chore (`app.zendesk.ip_ranges`) and read here from PostgreSQL. While there
is none, nothing is said of any address. Zendesk may change it at any time, so it is reported by
default and decides only where the settings say so.
"""

import ipaddress
import json
import time
from collections import Counter
from enum import StrEnum
from typing import TypeAlias

import asyncpg
import structlog

from app.intake.refused import RefusedError
from app.models.quarantined_webhook import RefusalReason
from app.settings import Settings
from app.telemetry.logs import is_told
from app.telemetry.metrics import SENDERS, Sender

log = structlog.get_logger(__name__)

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

READ_EVERY_SECONDS = 60.0
REMEMBERED_ADDRESSES = 4_096

READ = "SELECT ranges FROM zendesk_ranges WHERE account = $1"
COUNT = """
UPDATE zendesk_ranges
SET outside = outside + $2, hidden = hidden + $3,
    outside_at = CASE WHEN $2::bigint > 0 THEN now() ELSE outside_at END
WHERE account = $1
"""


COUNTED = {sender: SENDERS.labels(sender) for sender in Sender}


class Mode(StrEnum):
    """What becomes of a webhook from elsewhere."""

    OFF = "off"
    REPORT = "report"
    ENFORCE = "enforce"


class AddressRefusedError(RefusedError):
    """The webhook does not come from an address of Zendesk's."""

    reason = RefusalReason.SIGNATURE
    status = 401


class SenderRanges:
    """What is known of Zendesk's addresses in this process."""

    def __init__(self, settings: Settings, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._mode = Mode(settings.zendesk_ips)
        self._account = settings.zendesk_address
        self._pool = pool
        self._networks: tuple[Network, ...] = ()
        self._judged: dict[str, Sender] = {}
        self._counts: Counter[Sender] = Counter()
        self._told = 0
        self._read_at = -READ_EVERY_SECONDS

    def check(self, host: str) -> Sender:
        """What an address is.

        Raises:
            AddressRefusedError: it is none of Zendesk's, and the settings say that it has to be.
        """
        sender = self._judge(host)
        if sender is Sender.OUTSIDE and self._mode is Mode.ENFORCE:
            self.count(sender)
            raise AddressRefusedError(
                "it comes from an address that is none of Zendesk's published ones "
                "(MAILROOM_ZENDESK_IPS)"
            )
        return sender

    def count(self, sender: Sender) -> None:
        """Note where a webhook came from that Zendesk signed, or that was refused for it."""
        COUNTED[sender].inc()
        if sender in (Sender.OUTSIDE, Sender.HIDDEN):
            self._counts[sender] += 1
        if sender is Sender.OUTSIDE:
            self._told += 1
            if is_told(self._told):
                log.warning("webhook_from_elsewhere", times=self._told, mode=self._mode.value)

    async def run_once(self, *, now: float | None = None) -> None:
        """Read the list anew if it is time, and add to the counts in the table."""
        now = time.monotonic() if now is None else now
        if self._mode is Mode.OFF or now < self._read_at + READ_EVERY_SECONDS:
            return
        self._read_at = now
        ranges = await self._pool.fetchval(READ, self._account)
        networks = _networks(ranges)
        if networks != self._networks:
            self._networks = networks
            self._judged.clear()
        counts, self._counts = self._counts, Counter()
        if counts:
            outside, hidden = counts[Sender.OUTSIDE], counts[Sender.HIDDEN]
            await self._pool.execute(COUNT, self._account, outside, hidden)

    def _judge(self, host: str) -> Sender:
        if not self._networks:
            return Sender.UNKNOWN
        sender = self._judged.get(host)
        if sender is None:
            if len(self._judged) >= REMEMBERED_ADDRESSES:
                self._judged.clear()
            sender = self._judged[host] = judge(host, self._networks)
        return sender


def judge(host: str, networks: tuple[Network, ...]) -> Sender:
    """What an address is. One that is not of the internet is a proxy's, which hides the sender."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return Sender.HIDDEN
    address = getattr(address, "ipv4_mapped", None) or address
    if any(address in network for network in networks):
        return Sender.INSIDE
    return Sender.OUTSIDE if address.is_global else Sender.HIDDEN


def _networks(ranges: str | None) -> tuple[Network, ...]:
    """Those of a stored list; none where it cannot be read, which refuses nothing."""
    try:
        return tuple(ipaddress.ip_network(one) for one in json.loads(ranges or "[]"))
    except (ValueError, TypeError):
        return ()
