"""When each signing secret was used last: while one is rotated, that tells whether Zendesk has
changed over, and when the older one can be taken out of the settings.

A webhook costs it no more than a name in a set; the Intake's keeper writes that down.
"""

import hashlib
from collections.abc import Sequence
from datetime import timedelta

import attrs

from app.jobs.transitions.common import Database
from app.setting_groups.secrets import WebhookSecret

# Whoever could guess a secret by it could do so by any signature that is kept.
_PURPOSE = b"mailroom webhook secret "

KNOW = """
INSERT INTO webhook_secret_uses (fingerprint)
SELECT * FROM unnest($1::text[]) AS known (fingerprint)
ORDER BY 1 ON CONFLICT DO NOTHING
"""
# Each web process says so every few seconds, and a minute is exact enough.
USE = """
UPDATE webhook_secret_uses SET used_at = now()
WHERE fingerprint = ANY(ARRAY(
    SELECT fingerprint FROM webhook_secret_uses
    WHERE fingerprint = ANY($1::text[])
        AND (used_at IS NULL OR used_at < now() - interval '1 minute')
    ORDER BY fingerprint FOR UPDATE SKIP LOCKED
))
"""
SELECT = """
SELECT fingerprint, now() - known_since AS known_for, now() - used_at AS unused_for
FROM webhook_secret_uses WHERE fingerprint = ANY($1::text[])
"""


@attrs.frozen
class SecretUse:
    """How one of the secrets that are set is used."""

    label: str
    known_for: timedelta
    unused_for: timedelta | None
    """None: nothing came that it had signed."""


class SecretUses:
    """Of one web process, since it was written down last."""

    def __init__(self, secrets: Sequence[WebhookSecret]) -> None:
        self._secrets = secrets
        self._used: set[str] = set()
        self._are_known = False

    def saw(self, label: str) -> None:
        """A webhook came that the secret of this label had signed."""
        self._used.add(label)

    async def write_down(self, database: Database) -> None:
        """Note it in the table.

        Raises:
            Exception: the database is away; it is noted the next time.
        """
        if not self._are_known:
            await database.execute(KNOW, [fingerprint(one) for one in self._secrets])
            self._are_known = True
        if used := [one for one in self._secrets if one.label in self._used]:
            await database.execute(USE, [fingerprint(one) for one in used])
            self._used.difference_update(one.label for one in used)


def fingerprint(secret: WebhookSecret) -> str:
    """By what a secret is known, whatever its label is."""
    return hashlib.sha256(_PURPOSE + secret.secret.encode()).hexdigest()


async def find_uses(database: Database, secrets: Sequence[WebhookSecret]) -> list[SecretUse]:
    """How those are used that are set and known, in the order of the setting."""
    labels = {fingerprint(one): one.label for one in secrets}
    rows = {row["fingerprint"]: row for row in await database.fetch(SELECT, list(labels))}
    return [
        SecretUse(label, rows[found]["known_for"], rows[found]["unused_for"])
        for found, label in labels.items()
        if found in rows
    ]
