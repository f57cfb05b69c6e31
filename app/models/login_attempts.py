"""How often somebody tried to sign in lately: shared by all web processes."""

from piccolo.columns import Integer, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class LoginAttempts(Table, tablename="login_attempts", db=DB):
    """The passwords that were tried from one network in one span of time."""

    network = Varchar(length=64, primary_key=True, default="")
    """An IPv4 address, or the /64 of an IPv6 address, which one person has to himself."""

    began_at = Timestamptz(default=TimestamptzNow())
    attempts = Integer(default=0)
