"""The addresses that the fake account publishes, for anybody who asks."""

from zendesk.account import Account
from zendesk.answers import Answer, Asked, Route

IPS = "/ips"
EGRESS = ["216.198.0.0/18", "103.151.192.0/23", "2606:4700::/32"]


def ips(account: Account, asked: Asked) -> Answer:
    ranges = account.parts.get(IPS, EGRESS)
    sides = {"all": ranges, "specific": ["216.198.1.7/32"]}
    return Answer(200, {"ips": {"ingress": {"all": ["104.16.0.0/13"]}, "egress": sides}})


ROUTES = [Route.of("GET", IPS, ips)]
