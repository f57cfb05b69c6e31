"""A handler for processes that do not share the tests' folders: it waits for a file beside it."""

import asyncio
from pathlib import Path

from app.handlers.seam import Email

GO = Path(__file__).with_name("go")


async def handle(email: Email) -> dict[str, object]:
    while not GO.exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.05)
    return {"from": email.from_email}
