"""The `canaries` table: the one synthetic email that is on its way, and how the last ones fared.
It holds no email, and nothing of it is ever in `incoming_emails`: `app.alerts.canary` tells why."""

from piccolo.columns import UUID, BigInt, DoublePrecision, Integer, Text, Timestamptz
from piccolo.table import Table

from app.database.engine import DB


class Canary(Table, tablename="canaries", db=DB):
    """The only row: a canary takes the place of the one before."""

    id = Integer(primary_key=True, default=1)
    token = UUID(null=True, default=None, help_text="Of the one that is on its way")
    sent_at = Timestamptz(null=True, default=None)
    accepted_at = Timestamptz(null=True, default=None, help_text="When the Intake committed it")
    queued_at = Timestamptz(null=True, default=None, help_text="When a Dispatcher took it")
    claimed_at = Timestamptz(null=True, default=None, help_text="When a worker took it")
    completed_at = Timestamptz(null=True, default=None)
    failures = Integer(default=0, help_text="Since the last that completed, none of which did")
    trouble = Text(null=True, default=None, help_text="Why the last one did not complete")
    completed_total = BigInt(default=0)
    failed_total = BigInt(default=0)
    last_completed_at = Timestamptz(null=True, default=None)
    accept_seconds = DoublePrecision(
        null=True, default=None, help_text="Of the last that completed, since it was sent"
    )
    claim_seconds = DoublePrecision(null=True, default=None)
    complete_seconds = DoublePrecision(null=True, default=None)
