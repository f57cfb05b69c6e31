"""What is logged of the requests that a handler makes: no URL, in which an address may be."""

import subprocess
import sys

import pytest

ADDRESS = "erika@example.com"

SCRIPT = f"""
import logging
import httpx
import httpx2
import urllib3
from app.telemetry.logs import configure_logging
from app.settings import Settings

configure_logging(Settings())
url = "http://127.0.0.1:1/contacts/{ADDRESS}?email={ADDRESS}"
answering = httpx.MockTransport(lambda request: httpx.Response(200))
httpx.Client(transport=answering).get(url)
httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200))).get(url)
for get in (httpx.get, lambda url: urllib3.PoolManager().request("GET", url, retries=1)):
    try:
        get(url)
    except (httpx.ConnectError, urllib3.exceptions.MaxRetryError):
        pass
logging.getLogger("mine").info("of the handler itself")
"""


@pytest.mark.parametrize(("env", "level"), [("production", "debug"), ("development", "info")])
def test_urls_that_a_handler_asks_are_not_logged(env: str, level: str) -> None:
    production = {
        "MAILROOM_ENV": env,
        "MAILROOM_LOG_LEVEL": level,
        "DATABASE_URL": "embedded",
        "MAILROOM_WEBHOOK_SECRETS": "a-secret-of-the-tests-4711",
        "MAILROOM_API_TOKEN": "a-token-of-the-tests-4711-x",
    }
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=production, capture_output=True, text=True, check=True
    )
    assert ADDRESS not in ended.stderr
    assert "%40" not in ended.stderr and "contacts" not in ended.stderr
    # What a library warns of is told, and what the handler says is its own business.
    assert "Retrying" in ended.stderr
    assert "of the handler itself" in ended.stderr
