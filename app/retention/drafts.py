"""Texts of refused webhooks that `mailroom quarantine edit` gave to an editor: whole emails, in a
folder of the home of whoever typed it. One that was left there goes when its webhook has left the
quarantine, erased or otherwise.
"""

import asyncio
import re
from collections.abc import Collection
from pathlib import Path
from uuid import UUID

from app.jobs.chores import Chore, ChoreContext
from app.retention.criteria import Pool
from app.settings import Settings

FOLDER = "mending"
REMOVE_EVERY_SECONDS = 60.0
STAND = "SELECT id FROM quarantined_webhooks WHERE id = ANY($1::uuid[])"
# Editors keep what they were given under names of their own beside it, too.
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def draft_of(home: Path, refusal_id: UUID) -> Path:
    """Where the text of a refused webhook lies while it is edited."""
    return home / FOLDER / f"{refusal_id}.json"


async def remove_left(pool: Pool, home: Path) -> int:
    """Remove the drafts of what is in the quarantine no longer. Returns how many files."""
    found = await asyncio.to_thread(_find, home / FOLDER)
    if not found:
        return 0
    standing = {row["id"] for row in await pool.fetch(STAND, [*found])}
    left = [
        path for refusal_id, paths in found.items() if refusal_id not in standing for path in paths
    ]
    await asyncio.to_thread(_remove, left)
    return len(left)


def drafts_chore(settings: Settings) -> Chore:
    """Removes what was left in the home of the worker that does it."""

    async def run(context: ChoreContext) -> str | None:
        count = await remove_left(context.pool, settings.home)
        return f"{count} drafts removed whose webhooks have left the quarantine" if count else None

    return Chore("quarantine-drafts", REMOVE_EVERY_SECONDS, run)


def _find(folder: Path) -> dict[UUID, list[Path]]:
    found: dict[UUID, list[Path]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := ID.search(path.name)) is not None:
            found.setdefault(UUID(match[0]), []).append(path)
    return found


def _remove(paths: Collection[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
