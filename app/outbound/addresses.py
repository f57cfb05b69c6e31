"""What kinds of IP addresses there are, and so which belong to the public internet.

By IANA's registries of special-purpose addresses
(https://www.iana.org/assignments/iana-ipv4-special-registry/,
https://www.iana.org/assignments/iana-ipv6-special-registry/) and not by `ipaddress.is_global`,
whose answers changed between releases of Python.
"""

import ipaddress
from enum import StrEnum

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressKind(StrEnum):
    """Where an address leads; the value completes "its address is ..."."""

    PUBLIC = "public"
    LOOPBACK = "one of this machine"
    PRIVATE = "private"
    SHARED = "in the range of carrier-grade NAT"
    LINK_LOCAL = "link-local, where clouds tell their secrets"
    METADATA = "that of a cloud's own services"
    MULTICAST = "multicast"
    TUNNEL = "in a range that is translated to other addresses"
    RESERVED = "reserved"


_V4 = [
    (ipaddress.IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", AddressKind.RESERVED),
        ("10.0.0.0/8", AddressKind.PRIVATE),
        ("100.64.0.0/10", AddressKind.SHARED),
        ("127.0.0.0/8", AddressKind.LOOPBACK),
        # Azure's, which is public by its number:
        # https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
        ("168.63.129.16/32", AddressKind.METADATA),
        ("169.254.0.0/16", AddressKind.LINK_LOCAL),
        ("172.16.0.0/12", AddressKind.PRIVATE),
        ("192.0.0.0/24", AddressKind.RESERVED),
        ("192.0.2.0/24", AddressKind.RESERVED),
        ("192.88.99.0/24", AddressKind.TUNNEL),
        ("192.168.0.0/16", AddressKind.PRIVATE),
        ("198.18.0.0/15", AddressKind.RESERVED),
        ("198.51.100.0/24", AddressKind.RESERVED),
        ("203.0.113.0/24", AddressKind.RESERVED),
        ("224.0.0.0/4", AddressKind.MULTICAST),
        ("240.0.0.0/4", AddressKind.RESERVED),
    )
]
_V6 = [
    (ipaddress.IPv6Network(network), kind)
    for network, kind in (
        ("::1/128", AddressKind.LOOPBACK),
        ("64:ff9b:1::/48", AddressKind.TUNNEL),
        ("2001::/23", AddressKind.TUNNEL),  # Teredo and the other protocols of the IETF
        ("2001:db8::/32", AddressKind.RESERVED),
        ("2002::/16", AddressKind.TUNNEL),  # 6to4
        ("3fff::/20", AddressKind.RESERVED),
        ("fc00::/7", AddressKind.PRIVATE),
        ("fe80::/10", AddressKind.LINK_LOCAL),
        ("ff00::/8", AddressKind.MULTICAST),
    )
]
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# In these an IPv4 address is written at the end, and it is what a connection reaches: as the system
# maps it, and as DNS64 does for networks that have no IPv4.
_EMBEDDING = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))


def kind_of(address: Address) -> AddressKind:
    """Where a connection to an address leads."""
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _EMBEDDING):
            return kind_of(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        found = next((kind for network, kind in _V6 if address in network), None)
        if found is None and address not in _GLOBAL_UNICAST:
            return AddressKind.RESERVED
    else:
        found = next((kind for network, kind in _V4 if address in network), None)
    return found or AddressKind.PUBLIC
