"""What Mailroom's table tells of the emails, for every contender that keeps its state there."""

import asyncpg


async def are_all_ended(pool: "asyncpg.Pool[asyncpg.Record]") -> bool:
    """Whether no email is on its way. Asked by the index on state and time."""
    return not await pool.fetchval(
        "SELECT EXISTS (SELECT FROM incoming_emails"
        " WHERE processing_status IN ('received', 'queued', 'processing'))"
    )


async def completed_at(pool: "asyncpg.Pool[asyncpg.Record]") -> dict[int, float]:
    """When each email was completed, by number."""
    rows = await pool.fetch(
        "SELECT zendesk_ticket_id, extract(epoch FROM completed_at)::float8 AS at"
        " FROM incoming_emails WHERE processing_status = 'completed'"
    )
    return {int(row["zendesk_ticket_id"]): row["at"] for row in rows}
