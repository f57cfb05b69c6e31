"""The `operator_identities` table: who of our users is who at an OpenID Connect provider."""

from piccolo.columns import UUID, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.constraints import Unique
from piccolo.table import Table

from app.database.engine import DB

LONGEST_SUBJECT = 255
"""https://openid.net/specs/openid-connect-core-1_0.html#IDToken"""


class OperatorIdentity(Table, tablename="operator_identities", db=DB):
    """A user's identity at a provider. Subjects are never given to somebody else there; names and
    addresses are."""

    id = UUID(primary_key=True, default=UUID4())
    issuer = Text(default="")
    subject = Varchar(length=LONGEST_SUBJECT, default="", help_text="The claim `sub`")
    user_id = Integer(default=0, help_text="Of piccolo_user")
    created_at = Timestamptz(default=TimestamptzNow())

    unique_subject = Unique(["issuer", "subject"])
