"""What stands around Piccolo Admin, where a test over HTTP would take too long."""

import asyncio
from typing import Any

import pytest
from litestar.exceptions import HTTPException

from app.desk import admin_mount
from app.http import bodies


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.01)
    scope: Any = {"type": "http", "path": "/public/login/", "headers": [(b"content-length", b"9")]}

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def unreachable(*_: Any) -> None:
        raise AssertionError("the application was called")

    with pytest.raises(HTTPException) as refused:
        await admin_mount.guarded(unreachable, {})(scope, receive, unreachable)
    assert refused.value.status_code == 408
