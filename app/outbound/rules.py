"""Whom a client may call: pure decisions on URLs and addresses, without the network."""

import ipaddress
from collections.abc import Iterable
from typing import Self

import attrs
import httpx2

from app.http.host_names import PORTS, Origin, host_name
from app.outbound.addresses import Address, AddressKind, kind_of
from app.outbound.errors import AddressNotAllowedError, HostNotAllowedError, NotAUrlError
from app.setting_groups.group import LOOPBACK
from app.settings import Settings

# Characters. Longer ones exist, in nobody's template.
LONGEST_URL = 8_192

# An operator who names a host of the own network means one of these.
_INTERNAL = (AddressKind.PRIVATE, AddressKind.SHARED, AddressKind.LOOPBACK)


def origin_of(url: httpx2.URL) -> Origin:
    """The origin of a URL that has a scheme of the web and a host."""
    # The raw host is the name as it is looked up; the other one is for people.
    host = url.raw_host.decode("ascii").rstrip(".")
    return Origin(url.scheme, host, url.port or PORTS[url.scheme])


@attrs.frozen
class Rules:
    """Whom one client may call. An instance never changes."""

    hosts: frozenset[str] | None
    """Names that may be called, or `*.example.com` for all below one. None: every public host."""
    internal: frozenset[Origin] = frozenset()
    """What may have a private address, another port than 443, or no encryption."""
    opens_loopback: bool = False
    """Whether this machine may be called, at any port. Never in production."""
    most_redirects: int = 3
    """How often one request is sent on. 0: a redirect is an answer like any other."""

    @classmethod
    def from_settings(cls, settings: Settings, hosts: Iterable[str] | None) -> Self:
        """The rules for a purpose that calls these hosts."""
        internal = set(settings.outbound_internal_hosts)
        if settings.zendesk_url:
            internal.add(Origin.parse(settings.zendesk_url))
        return cls(
            hosts=None if hosts is None else frozenset(hosts),
            internal=frozenset(internal),
            opens_loopback=settings.outbound_open_loopback,
        )

    def check(self, url: str | httpx2.URL) -> httpx2.URL:
        """Read a URL and see that it may be called, as far as that can be told without the
        network; `check_address` is for the rest.

        Raises:
            NotAUrlError: there is no host to call, or a password in it.
            HostNotAllowedError: names what is not allowed.
            AddressNotAllowedError: an address stands in the place of a host's name.
        """
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, TypeError, ValueError):
            raise NotAUrlError("this is no URL") from None
        if len(str(parsed)) > LONGEST_URL:
            raise NotAUrlError(f"the URL is longer than {LONGEST_URL} characters")
        if parsed.scheme not in PORTS or not parsed.host:
            raise NotAUrlError("the URL does not begin with https:// and a host")
        origin = origin_of(parsed)
        if host_name(origin.host) is None or origin.port >= 2**16:
            raise NotAUrlError("the URL has no host that could exist")
        if parsed.userinfo:
            raise NotAUrlError("the URL holds a user or a password", origin.host)
        if not self._names(origin):
            if (address := _address(origin.host)) is not None:
                self.check_address(origin.host, origin.port, address)
            raise HostNotAllowedError(f"{origin.host} may not be called", origin.host)
        if origin in self.internal or (self.opens_loopback and origin.host in LOOPBACK):
            return parsed
        if parsed.scheme != "https":
            raise HostNotAllowedError(f"{origin.host} may be called by https alone", origin.host)
        if origin.port != PORTS["https"] and not self.opens_loopback:
            raise HostNotAllowedError(
                f"{origin.host} may not be called at port {origin.port}", origin.host
            )
        return parsed

    def check_address(self, host: str, port: int, address: Address) -> None:
        """See that what a host's name leads to may be called.

        Raises:
            AddressNotAllowedError: says what kind of address it is.
        """
        kind = kind_of(address)
        if kind is AddressKind.LOOPBACK and self.opens_loopback:
            return
        is_internal = any((o.host, o.port) == (host.rstrip("."), port) for o in self.internal)
        if is_internal and (kind is AddressKind.PUBLIC or kind in _INTERNAL):
            return
        if kind is not AddressKind.PUBLIC:
            raise AddressNotAllowedError(
                f"{host} must not be called: its address is {kind.value}", host
            )
        if port != PORTS["https"]:
            # Where loopback is open, ports are not looked at before the address is known.
            raise AddressNotAllowedError(f"{host} may not be called at port {port}", host)

    def _names(self, origin: Origin) -> bool:
        if self.hosts is None or origin.host in self.hosts:
            return True
        parents = origin.host.split(".")[1:]
        return any(f"*.{'.'.join(parents[i:])}" in self.hosts for i in range(len(parents)))


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
