"""Which hosts are the account's own, and so may see its token and hold its files."""

from typing import Self

import attrs
import httpx2

from app.http.host_names import Origin
from app.outbound.client import Credentials
from app.outbound.rules import origin_of
from app.settings import Settings

# Where Zendesk keeps the files themselves.
CDN = "*.zdusercontent.com"
# Without an account's name every account's files are asked for, and none gets a token.
ANY_ACCOUNT = "*.zendesk.com"


@attrs.frozen
class Account:
    """The Zendesk account of the settings."""

    origin: Origin | None
    """Where its API is; None where no account is named."""
    hosts: frozenset[str]
    """Its own host and those of its brands."""
    _user: str
    _token: str = attrs.field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The account that is set, or what stands for any."""
        is_named = bool(settings.zendesk_subdomain or settings.zendesk_url)
        origin = Origin.parse(settings.zendesk_address) if is_named else None
        own = {origin.host} if origin else {ANY_ACCOUNT}
        return cls(
            origin,
            frozenset(own | set(settings.zendesk_hosts)),
            f"{settings.zendesk_email}/token",
            settings.zendesk_token,
        )

    @property
    def has_token(self) -> bool:
        """Whether there is one to show."""
        return bool(self._token)

    def owns(self, url: httpx2.URL) -> bool:
        """Whether a URL belongs to the account, or to any where none is named."""
        host = origin_of(url).host
        is_any = ANY_ACCOUNT in self.hosts and host.endswith(ANY_ACCOUNT.removeprefix("*"))
        return host in self.hosts or is_any

    def credentials(self, url: httpx2.URL, *paths: str) -> Credentials | None:
        """The token for a URL of the account, good for paths that begin so; None where it must not
        be shown."""
        if not self._token or self.origin is None or not self.owns(url):
            return None
        origin = origin_of(url)
        if origin != self.origin and origin.scheme != "https":
            return None
        return Credentials.basic(origin, self._user, self._token, paths)
