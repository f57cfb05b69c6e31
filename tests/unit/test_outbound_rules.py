"""Whom the outbound client may call: hosts, ports, and every family of addresses."""

import ipaddress

import pytest
from support import make_settings

from app.http.host_names import Origin
from app.outbound.addresses import AddressKind, kind_of
from app.outbound.errors import AddressNotAllowedError, HostNotAllowedError, NotAUrlError
from app.outbound.rules import Rules

RULES = Rules(hosts=frozenset({"example.zendesk.com", "*.zdusercontent.com"}))


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", AddressKind.LOOPBACK),
        ("127.255.255.254", AddressKind.LOOPBACK),
        ("::1", AddressKind.LOOPBACK),
        ("::ffff:127.0.0.1", AddressKind.LOOPBACK),
        ("64:ff9b::7f00:1", AddressKind.LOOPBACK),
        ("10.0.0.1", AddressKind.PRIVATE),
        ("172.16.0.1", AddressKind.PRIVATE),
        ("172.31.255.255", AddressKind.PRIVATE),
        ("192.168.1.1", AddressKind.PRIVATE),
        ("fd00:ec2::254", AddressKind.PRIVATE),
        ("fc00::1", AddressKind.PRIVATE),
        ("::ffff:10.0.0.1", AddressKind.PRIVATE),
        ("64:ff9b::10.0.0.1", AddressKind.PRIVATE),
        ("100.64.0.1", AddressKind.SHARED),
        ("100.100.100.200", AddressKind.SHARED),
        ("100.127.255.255", AddressKind.SHARED),
        ("169.254.169.254", AddressKind.LINK_LOCAL),
        ("::ffff:169.254.169.254", AddressKind.LINK_LOCAL),
        ("64:ff9b::169.254.169.254", AddressKind.LINK_LOCAL),
        ("fe80::1", AddressKind.LINK_LOCAL),
        ("fe80::1%2", AddressKind.LINK_LOCAL),
        ("168.63.129.16", AddressKind.METADATA),
        ("192.0.0.192", AddressKind.RESERVED),
        ("0.0.0.1", AddressKind.RESERVED),
        ("::", AddressKind.RESERVED),
        ("255.255.255.255", AddressKind.RESERVED),
        ("198.18.0.1", AddressKind.RESERVED),
        ("203.0.113.1", AddressKind.RESERVED),
        ("2001:db8::1", AddressKind.RESERVED),
        ("fec0::1", AddressKind.RESERVED),
        ("::127.0.0.1", AddressKind.RESERVED),
        ("5f00::1", AddressKind.RESERVED),
        ("100::1", AddressKind.RESERVED),
        ("224.0.0.1", AddressKind.MULTICAST),
        ("ff02::1", AddressKind.MULTICAST),
        ("2001:0:7f00:1::1", AddressKind.TUNNEL),
        ("2002:7f00:1::1", AddressKind.TUNNEL),
        ("64:ff9b:1::a00:1", AddressKind.TUNNEL),
        ("192.88.99.1", AddressKind.TUNNEL),
        ("8.8.8.8", AddressKind.PUBLIC),
        ("100.63.255.255", AddressKind.PUBLIC),
        ("100.128.0.1", AddressKind.PUBLIC),
        ("172.32.0.1", AddressKind.PUBLIC),
        ("::ffff:8.8.8.8", AddressKind.PUBLIC),
        ("64:ff9b::8.8.8.8", AddressKind.PUBLIC),
        ("2606:4700::1111", AddressKind.PUBLIC),
    ],
)
def test_each_family_of_addresses_is_told(address: str, kind: AddressKind) -> None:
    assert kind_of(ipaddress.ip_address(address)) is kind


@pytest.mark.parametrize(
    "url",
    [
        "https://example.zendesk.com/attachments/token/abc/?name=a.pdf",
        "https://example.zendesk.com:443/a",
        "HTTPS://EXAMPLE.Zendesk.com/a",
        "https://p18.zdusercontent.com/a",
        "https://a.b.zdusercontent.com/a",
    ],
)
def test_hosts_that_are_named_may_be_called(url: str) -> None:
    assert RULES.check(url).scheme == "https"


@pytest.mark.parametrize(
    "url",
    [
        "https://zdusercontent.com/a",
        "https://evil.com/a",
        "https://zendesk.com/a",
        "https://other.zendesk.com/a",
        "https://example.zendesk.com.evil.com/a",
        "https://evilzdusercontent.com/a",
        "https://8.8.8.8/a",
        "https://2130706433/a",
        "https://example.zendesk.com:8443/a",
        "http://example.zendesk.com/a",
        "https://xn--exmple-cua.zendesk.com/a",
    ],
)
def test_other_hosts_ports_and_schemes_may_not_be_called(url: str) -> None:
    with pytest.raises(HostNotAllowedError):
        RULES.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/a",
        "http://10.0.0.1:8080/a",
    ],
)
def test_an_address_in_place_of_a_name_is_told_for_what_it_is(url: str) -> None:
    with pytest.raises(AddressNotAllowedError):
        RULES.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "rechnung.pdf",
        "//example.zendesk.com/a",
        "ftp://example.zendesk.com/a",
        "file:///etc/passwd",
        "data:text/plain,a",
        "https://",
        "https:///a",
        "https://example.zendesk.com:99999/a",
        "https://user@example.zendesk.com/a",
        "https://user:password@example.zendesk.com/a",
        "https://example.zendesk.com\\@evil.com/a",
        "https://exa mple.zendesk.com/a",
        "https://example.zendesk.com\r\nX: y/",
        "https://example.zendesk.com/" + "a" * 9_000,
        "https://[::1",
    ],
)
def test_what_names_no_host_is_no_url(url: str) -> None:
    with pytest.raises(NotAUrlError):
        RULES.check(url)


def check(rules: Rules, host: str, port: int, address: str) -> bool:
    try:
        rules.check_address(host, port, ipaddress.ip_address(address))
    except AddressNotAllowedError:
        return False
    return True


def test_only_public_addresses_may_be_called_if_nothing_is_said() -> None:
    assert check(RULES, "example.zendesk.com", 443, "8.8.8.8")
    assert not check(RULES, "example.zendesk.com", 443, "10.0.0.1")
    assert not check(RULES, "example.zendesk.com", 443, "127.0.0.1")
    assert not check(RULES, "example.zendesk.com", 8443, "8.8.8.8")


def test_an_internal_host_may_have_a_private_address_and_its_own_port_alone() -> None:
    settings = make_settings(outbound_internal_hosts="http://crm.internal:8080, files.internal")
    rules = Rules.from_settings(settings, ["crm.internal", "files.internal"])

    assert rules.check("http://crm.internal:8080/a").port == 8080
    assert rules.check("https://files.internal/a").host == "files.internal"
    assert check(rules, "crm.internal", 8080, "10.1.2.3")
    assert check(rules, "crm.internal", 8080, "fd00::1")
    assert check(rules, "crm.internal", 8080, "8.8.8.8")
    assert not check(rules, "crm.internal", 8080, "169.254.169.254")
    assert not check(rules, "crm.internal", 443, "10.1.2.3")
    assert not check(rules, "other.internal", 8080, "10.1.2.3")
    for url in ("https://crm.internal:8080/", "http://crm.internal/", "http://files.internal/"):
        with pytest.raises(HostNotAllowedError):
            rules.check(url)


def test_an_internal_host_is_called_only_for_a_purpose_that_names_it() -> None:
    settings = make_settings(outbound_internal_hosts="crm.internal")
    with pytest.raises(HostNotAllowedError):
        Rules.from_settings(settings, ["example.zendesk.com"]).check("https://crm.internal/a")


def test_open_loopback_opens_this_machine_and_nothing_else() -> None:
    settings = make_settings(outbound_open_loopback=True)
    rules = Rules.from_settings(settings, ["localhost", "example.zendesk.com"])

    assert rules.check("http://localhost:1234/a").port == 1234
    assert check(rules, "localhost", 1234, "127.0.0.1")
    assert check(rules, "localhost", 1234, "::1")
    assert not check(rules, "example.zendesk.com", 443, "10.0.0.1")
    assert not check(rules, "example.zendesk.com", 443, "169.254.169.254")
    assert not check(rules, "example.zendesk.com", 1234, "8.8.8.8")
    with pytest.raises(HostNotAllowedError):
        rules.check("http://example.zendesk.com/a")


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("crm.internal", Origin("https", "crm.internal", 443)),
        ("CRM.internal.:8443", Origin("https", "crm.internal", 8443)),
        ("http://crm.internal", Origin("http", "crm.internal", 80)),
        ("https://[fd00::1]:9/", Origin("https", "fd00::1", 9)),
        ("10.0.0.5:9000", Origin("https", "10.0.0.5", 9000)),
    ],
)
def test_origins_are_read_however_they_are_written(text: str, origin: Origin) -> None:
    assert Origin.parse(text) == origin


@pytest.mark.parametrize(
    "text", ["", "ftp://a", "http://a/b", "http://u:p@a", "a?b", "a:99999", "a b", "http://"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        Origin.parse(text)
