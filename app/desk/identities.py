"""Who of our users somebody is, by what an OpenID Connect provider says of them: found by issuer
and subject alone, for names and addresses may be another's tomorrow."""

import secrets
from collections.abc import Mapping
from typing import Any

from litestar.exceptions import PermissionDeniedException

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import Connection, write
from app.desk.operators import LONGEST_NAME, NOBODY
from app.desk.people import CREATE, SET_ROLE, keeping_an_admin
from app.i18n.texts import gettext as _
from app.models.fit import fit_text
from app.models.operator_account import Role
from app.settings import Settings

FIND = """
SELECT user_id FROM operator_identities JOIN piccolo_user ON piccolo_user.id = user_id
WHERE issuer = $1 AND subject = $2
"""
# A user who was deleted leaves their identity to whoever comes next with it.
LINK = """
INSERT INTO operator_identities AS linked (id, issuer, subject, user_id, created_at)
VALUES (gen_random_uuid(), $1, $2, $3, now())
ON CONFLICT (issuer, subject) DO UPDATE SET user_id = excluded.user_id, created_at = now()
"""
ROLE_OF = """
SELECT CASE WHEN superuser THEN 'admin' ELSE COALESCE(role, 'operator') END
FROM piccolo_user LEFT JOIN operator_accounts ON operator_accounts.user_id = piccolo_user.id
WHERE piccolo_user.id = $1
"""


async def find_or_make(
    connection: Connection, claims: Mapping[str, Any], settings: Settings, nobody: Actor
) -> int:
    """The id of the user that the claims speak of, with the role that they give, if they give any.

    Args:
        nobody: who is not let in yet, for the audit log.

    Raises:
        PermissionDeniedException: says why they are not let in.
        LastAdminError: nobody would be an administrator any longer.
    """
    issuer, subject = settings.oidc_issuer, str(claims["sub"])
    role = role_by(claims, settings)
    found: int | None = await connection.fetchval(FIND, issuer, subject)
    if found is None:
        if not settings.oidc_makes_people:
            raise PermissionDeniedException(
                _(
                    "%(provider)s knows you, and nobody here is connected with you: ask an "
                    "administrator for `mailroom user link NAME %(subject)s`",
                    provider=settings.oidc_name,
                    subject=subject,
                )
            )
        found = await _make(connection, claims, subject, role or Role.VIEWER)
        await connection.execute(LINK, issuer, subject, found)
        await write(connection, nobody, Act.USER_CREATE, [found], details={"by": "oidc"})
    if role is not None and await connection.fetchval(ROLE_OF, found) != role:
        with keeping_an_admin():
            await connection.execute(SET_ROLE, found, role)
        details = {"role": role, "by": "oidc"}
        await write(connection, nobody, Act.USER_ROLE, [found], details=details)
    return found


def role_by(claims: Mapping[str, Any], settings: Settings) -> Role | None:
    """The role that claims give; None where the settings leave roles to administrators.

    Raises:
        PermissionDeniedException: they give none.
    """
    if not settings.oidc_roles:
        return None
    given = claims.get(settings.oidc_role_claim) or []
    # Some providers name groups as the keys of an object, and one that is alone without a list.
    values = set(map(str, given if isinstance(given, (list, dict)) else [given]))
    roles = {Role(rule.role) for rule in settings.oidc_roles if rule.value in values}
    greatest = [role for role in Role if role in roles]
    if not greatest:
        raise PermissionDeniedException(
            _(
                "%(provider)s names no group of yours that may come in here: ask whoever gives "
                "groups there",
                provider=settings.oidc_name,
            )
        )
    return greatest[-1]


async def _make(connection: Connection, claims: Mapping[str, Any], subject: str, role: Role) -> int:
    given = str(claims.get("preferred_username") or claims.get("name") or subject)
    name = " ".join(fit_text(given).split())[:LONGEST_NAME]
    # Piccolo wants an address of each. One that the provider has not seen to be theirs is not kept.
    is_verified = claims.get("email_verified") is True and claims.get("email")
    address = str(claims["email"]) if is_verified else f"{secrets.token_hex(8)}@oidc.invalid"
    made: int | None = await connection.fetchval(CREATE, name, NOBODY, address, role is Role.ADMIN)
    if made is None:
        raise PermissionDeniedException(
            _(
                "somebody is called %(name)s here already, or has your address: if that is you, "
                "ask an administrator for `mailroom user link %(name)s %(subject)s`",
                name=name,
                subject=subject,
            )
        )
    await connection.execute(SET_ROLE, made, role)
    return made
