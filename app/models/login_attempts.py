"""How often somebody tried to sign in lately: shared by all web processes."""

from piccolo.columns import Integer, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class LoginAttempts(Table, tablename="login_attempts", db=DB):
    """What was tried from one network, or for one user, in one span of time."""

    network = Varchar(length=64, primary_key=True, default="")
    """An IPv4 address, or the /64 of an IPv6 address, which one person has to himself; of sign-ins
    by a provider `oidc` and that; of codes `user` and the user's id."""

    began_at = Timestamptz(default=TimestamptzNow())
    attempts = Integer(default=0)
