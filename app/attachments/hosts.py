"""Which hosts are the account's own, by their names alone; no client is needed to tell."""

from app.http.host_names import Origin
from app.settings import Settings

# Where Zendesk keeps the files themselves.
CDN = "*.zdusercontent.com"
# Without an account's name every account's files are asked for, and none gets a token.
ANY_ACCOUNT = "*.zendesk.com"


def account_origin(settings: Settings) -> Origin | None:
    """Where the account's API is; None where no account is named."""
    is_named = settings.zendesk_subdomain or settings.zendesk_url
    return Origin.parse(settings.zendesk_address) if is_named else None


def own_hosts(settings: Settings) -> frozenset[str]:
    """The account's host and those of its brands, or what stands for any account."""
    origin = account_origin(settings)
    return frozenset({origin.host if origin else ANY_ACCOUNT, *settings.zendesk_hosts})


def is_own(host: str, hosts: frozenset[str]) -> bool:
    """Whether a host's name is among those of `own_hosts`."""
    is_any = ANY_ACCOUNT in hosts and host.endswith(ANY_ACCOUNT.removeprefix("*"))
    return host in hosts or is_any
