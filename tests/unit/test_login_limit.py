"""Who is counted as one at the login."""

import pytest

from app.desk.login_limit import LONGEST_NAME, network_of


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:aaaa:bbbb:cccc:dddd", "2001:db8:1:2::/64"),
        ("2001:0DB8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
        ("x" * 1_000, "x" * LONGEST_NAME),
    ],
)
def test_an_ipv6_address_stands_for_its_network(host: str, network: str) -> None:
    assert network_of({"client": (host, 1)}) == network  # type: ignore[arg-type, typeddict-item]


def test_a_request_without_an_address_has_one_too() -> None:
    assert network_of({"client": None}) == ""  # type: ignore[arg-type, typeddict-item]
