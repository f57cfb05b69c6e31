"""What a log line of an exception holds: where and of what type, and none of its values."""

import json
import subprocess
import sys

import pytest

ADDRESS = "erika@example.com"
TOLD = ("broken", "ExceptionGroup", "KeyError", "ValueError", "read_address", "<string>")

SCRIPT = f"""
import asyncio
import logging
import structlog
from app.telemetry.logs import configure_logging
from app.settings import Settings

async def forget():
    async def fail():
        raise OSError("{ADDRESS}")
    await asyncio.wait([asyncio.create_task(fail())])

def read_address():
    try:
        int("{ADDRESS}")
    except ValueError as error:
        error.add_note("{ADDRESS}")
        raise ExceptionGroup("{ADDRESS}", [KeyError("{ADDRESS}"), error]) from error

configure_logging(Settings())
for logger in (structlog.get_logger("x"), logging.getLogger("x")):
    try:
        read_address()
    except ExceptionGroup:
        logger.exception("broken")
asyncio.run(forget())
"""


@pytest.mark.parametrize("env", ["development", "production"])
def test_exceptions_are_logged_without_their_messages(env: str) -> None:
    environment = {
        "MAILROOM_ENV": env,
        "MAILROOM_WEBHOOK_SECRETS": "s" * 24,
        "MAILROOM_API_TOKEN": "t" * 24,
        "DATABASE_URL": "postgresql://user@host/database",
    }
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert ADDRESS not in ended.stderr
    for told in TOLD:
        assert ended.stderr.count(told) >= 2, told
    assert "Task exception was never retrieved" in ended.stderr
    assert "OSError" in ended.stderr
    if env == "production":
        lines = [json.loads(line) for line in ended.stderr.splitlines()]
        assert lines[0]["exception"][0]["frames"][-1]["name"] == "read_address"
