"""Which signing secrets are in use is written down, whatever their labels are."""

from typing import Any, TypeAlias

import asyncpg
from support import SECRET, email, make_settings, signed

from app.intake.intake import Intake
from app.intake.secret_uses import find_uses
from app.intake.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER
from app.setting_groups.secrets import parse_secrets
from app.telemetry.request_id import uuid7

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

OTHER = "another secret of the tests which is long"


async def admit(pool: Pool, secrets: str, **more: Any) -> None:
    """One webhook, in a web process of its own with these secrets."""
    intake = Intake(make_settings(webhook_secrets=parse_secrets(secrets)), pool)
    request = signed(email())
    try:
        await intake.admit(
            request["content"],
            email_id=uuid7(),
            signature=request["headers"][SIGNATURE_HEADER],
            timestamp=request["headers"][TIMESTAMP_HEADER],
            invocation_id=None,
            **more,
        )
        await intake.secret_uses.write_down(pool)
    finally:
        await intake.close()


async def used(pool: Pool, secrets: str) -> dict[str, bool]:
    uses = await find_uses(pool, parse_secrets(secrets))
    return {use.label: use.unused_for is not None for use in uses}


async def test_what_signed_a_webhook_is_in_use_and_stays_so_under_another_label(
    pool: Pool,
) -> None:
    await admit(pool, f"spring:{SECRET}, autumn:{OTHER}")
    assert await used(pool, f"spring:{SECRET}, autumn:{OTHER}") == {"spring": True, "autumn": False}
    # Labels that nobody gave follow the places.
    assert await used(pool, f"{OTHER},{SECRET}") == {"secret-1": False, "secret-2": True}
    assert await used(pool, "a third secret, which nobody has started a process with") == {}
    stored = str(await pool.fetch("SELECT * FROM webhook_secret_uses"))
    assert SECRET not in stored
    assert OTHER not in stored


async def test_what_is_admitted_later_tells_nothing_of_today(pool: Pool) -> None:
    received_at = await pool.fetchval("SELECT now() - interval '1 hour'")
    await admit(pool, f"spring:{SECRET}", received_at=received_at)
    assert await used(pool, f"spring:{SECRET}") == {"spring": False}


async def test_a_use_is_written_once_a_minute_and_no_secret_is_known_anew(pool: Pool) -> None:
    await admit(pool, SECRET)
    before = await pool.fetchrow("SELECT *, xmin FROM webhook_secret_uses")
    await admit(pool, SECRET)
    assert await pool.fetchrow("SELECT *, xmin FROM webhook_secret_uses") == before
    await pool.execute("UPDATE webhook_secret_uses SET used_at = now() - interval '1 hour'")
    await admit(pool, SECRET)
    after = await pool.fetchrow("SELECT * FROM webhook_secret_uses")
    assert after is not None
    assert before is not None
    assert after["known_since"] == before["known_since"]
    assert after["used_at"] >= before["used_at"]
