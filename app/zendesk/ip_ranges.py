"""The addresses from which Zendesk calls webhooks: fetched once a day, the last good list kept.

https://developer.zendesk.com/api-reference/ticketing/account-configuration/public_ips/
"""

import ipaddress
import json
from typing import Any

from app.intake.sender_ranges import Mode
from app.jobs.chores import Chore, ChoreContext
from app.settings import Settings
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskShapeError
from app.zendesk.items import as_object

EVERY_SECONDS = 86_400.0
PATH = "/ips"
# A range as wide as this would be no check at all, and is a mistake.
WIDEST = {4: 8, 6: 16}
MOST_RANGES = 1_000

KEEP = """
INSERT INTO zendesk_ranges (account, ranges, fetched_at) VALUES ($1, $2::jsonb, now())
ON CONFLICT (account) DO UPDATE SET ranges = excluded.ranges, fetched_at = excluded.fetched_at
"""


def ranges_chores(settings: Settings) -> list[Chore]:
    """The chore that fetches the list; nothing where no account is named, or none is asked for."""
    is_known = settings.zendesk_subdomain or settings.zendesk_url
    if not is_known or Mode(settings.zendesk_ips) is Mode.OFF:
        return []
    return [Chore("zendesk-ips", EVERY_SECONDS, lambda context: refresh(settings, context))]


async def refresh(settings: Settings, context: ChoreContext) -> str:
    """Fetch the list, and keep it if it is good.

    Raises:
        ZendeskError: it is not to be had, or not good; the one before stays.
    """
    client = ZendeskClient(settings, tries=3)
    try:
        ranges = read_ranges(await client.get(PATH))
    finally:
        await client.close()
    await context.pool.execute(KEEP, settings.zendesk_address, json.dumps(ranges))
    return f"{len(ranges)} ranges of addresses"


def read_ranges(content: Any) -> list[str]:
    """The ranges that calls come from, in an answer of Zendesk's.

    Raises:
        ZendeskShapeError: there are none, or one of them is no range.
    """
    content = as_object(content)
    found = as_object(as_object(content.get("ips", content)).get("egress")).get("all")
    if not isinstance(found, list) or not 0 < len(found) <= MOST_RANGES:
        raise ZendeskShapeError("Zendesk's API answers no list of egress addresses")
    ranges = []
    for one in found:
        try:
            network = ipaddress.ip_network(one)
        except (ValueError, TypeError):
            network = None
        if not isinstance(one, str) or network is None:
            raise ZendeskShapeError("Zendesk's API answers an egress address that is no range")
        if network.prefixlen < WIDEST[network.version]:
            raise ZendeskShapeError("Zendesk's API answers an egress range that is too wide")
        ranges.append(str(network))
    return sorted(set(ranges))
