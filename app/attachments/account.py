"""The Zendesk account of the settings: what is its own, and to whom its token is shown."""

from typing import Self

import attrs
import httpx2

from app.attachments.hosts import account_origin, is_own, own_hosts
from app.http.host_names import Origin
from app.outbound.client import Credentials
from app.outbound.rules import origin_of
from app.settings import Settings


@attrs.frozen
class Account:
    """Its hosts and its token."""

    origin: Origin | None
    """Where its API is; None where no account is named."""
    hosts: frozenset[str]
    """Its own host and those of its brands."""
    _user: str
    _token: str = attrs.field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The account that is set, or what stands for any."""
        return cls(
            account_origin(settings),
            own_hosts(settings),
            f"{settings.zendesk_email}/token",
            settings.zendesk_token,
        )

    @property
    def has_token(self) -> bool:
        """Whether there is one to show."""
        return bool(self._token)

    def owns(self, url: httpx2.URL) -> bool:
        """Whether a URL belongs to the account, or to any where none is named."""
        return is_own(origin_of(url).host, self.hosts)

    def credentials(self, url: httpx2.URL, *paths: str) -> Credentials | None:
        """The token for a URL of the account, good for paths that begin so; None where it must not
        be shown."""
        if not self._token or self.origin is None or not self.owns(url):
            return None
        origin = origin_of(url)
        if origin != self.origin and origin.scheme != "https":
            return None
        return Credentials.basic(origin, self._user, self._token, paths)
