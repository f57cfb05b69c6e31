"""The `operator_accounts` table: what a user may do, beside Piccolo's table of users."""

from enum import StrEnum

from piccolo.columns import Integer, Varchar
from piccolo.constraints import Check
from piccolo.table import Table

from app.database.engine import DB


class Role(StrEnum):
    """What a user may do. Each may also do what those before it may."""

    VIEWER = "viewer"
    """Look, and change nothing."""

    OPERATOR = "operator"
    """Look after emails."""

    ADMIN = "admin"
    """Look after users, too: Piccolo's superuser."""

    def includes(self, other: "Role") -> bool:
        """Whether this role may do what the other one may."""
        ordered = list(Role)
        return ordered.index(self) >= ordered.index(other)


class OperatorAccount(Table, tablename="operator_accounts", db=DB):
    """What one user may do. Without a row: an operator. A superuser is an admin whatever stands
    here, so that Piccolo's own flag and this cannot contradict each other."""

    user_id = Integer(primary_key=True, default=0, help_text="Of piccolo_user")
    role = Varchar(
        length=20, default=Role.OPERATOR, help_text="viewer or operator; admins are superusers"
    )

    check_role = Check("role IN ('viewer', 'operator')")
