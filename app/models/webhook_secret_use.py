"""The `webhook_secret_uses` table: since when a signing secret is set, and when it signed
something last. It tells when a rotation is over. Only `app.intake.secret_uses` writes it."""

from piccolo.columns import Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class WebhookSecretUse(Table, tablename="webhook_secret_uses", db=DB):
    """One secret. Its label may be given to another one, so it is known by a hash."""

    fingerprint = Varchar(length=64, primary_key=True, default="", help_text="Of the secret")
    known_since = Timestamptz(default=TimestamptzNow(), help_text="When it was set first")
    used_at = Timestamptz(
        null=True, default=None, help_text="When a webhook came that it signed; to some minutes"
    )
