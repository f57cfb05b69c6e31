"""What an operator does about one email, by the same functions as the API and the commands."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from app.api.emails import read_email
from app.attachments import upkeep
from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import Connection, in_transaction, result_of, write
from app.database.engine import running_pool
from app.errors import MailroomError
from app.i18n.texts import gettext as _
from app.jobs.transitions import operators
from app.models.bulk_action import Action
from app.models.fit import fit_text
from app.retention.erasure import erase_email
from app.settings import get_settings
from app.sync.asking import DeliveredEnds
from app.sync.differences import deliver_again
from app.sync.plans import ReconciliationError, delivered_states

LONGEST_REASON = 500
ACTS = {
    Action.RETRY: Act.EMAIL_RETRY,
    Action.SETTLE: Act.EMAIL_SETTLE,
    Action.DISCARD: Act.EMAIL_DISCARD,
    Action.FETCH: Act.FILE_FETCH,
    Action.DELIVER: Act.EMAIL_RECONCILE,
}


class ActionError(MailroomError):
    """Nothing was done; the message says why."""


async def act(email_id: UUID, form: Mapping[str, Any], *, actor: Actor) -> Action:
    """Do what a form asks for.

    Raises:
        ActionError: nothing was done.
    """
    try:
        action = Action(str(form.get("action", "")))
    except ValueError:
        raise ActionError(_("the form names nothing that can be done")) from None
    if action is Action.ERASE:
        await _see_that_it_is_meant(email_id, form)
        done = await erase_email(running_pool(), email_id, by=actor.name, actor=actor)
    else:
        async with in_transaction(running_pool()) as connection:
            done = await _change(connection, action, email_id, form, actor.name)
            result = result_of(done)
            await write(connection, actor, ACTS[action], [email_id], result=result)
    if not done:
        row = await read_email(running_pool(), email_id)
        if row is None:
            raise ActionError(_("nothing was done: the email is gone by now"))
        status = _(row["processing_status"])
        raise ActionError(_("nothing was done: the email is %(status)s by now", status=status))
    return action


async def _change(
    connection: Connection,
    action: Action,
    email_id: UUID,
    form: Mapping[str, Any],
    by: str,
) -> bool:
    match action:
        case Action.RETRY:
            return await operators.retry(connection, email_id, by=by, force="force" in form)
        case Action.FETCH:
            most = get_settings().attachment_max_count
            return await upkeep.fetch_again(connection, email_id, most=most) > 0
        case Action.DELIVER:
            return await _deliver(connection, email_id, by)
        case _:
            return await operators.settle(
                connection,
                email_id,
                by=by,
                reason=_reason(form),
                discard=action is Action.DISCARD,
                delivered=DeliveredEnds.from_settings(get_settings()),
            )


def _reason(form: Mapping[str, Any]) -> str:
    reason = str(form.get("reason", "")).strip()
    if not reason:
        raise ActionError(_("say why, for those who read its story later"))
    if len(reason) > LONGEST_REASON:
        raise ActionError(_("the reason is longer than %(most)s characters", most=LONGEST_REASON))
    if reason != fit_text(reason):
        raise ActionError(_("the reason holds a character that cannot be kept"))
    return reason


async def _deliver(connection: Connection, email_id: UUID, by: str) -> bool:
    try:
        states = delivered_states(get_settings())
    except ReconciliationError as error:
        raise ActionError(_("nothing was done: %(why)s", why=error)) from error
    if not await deliver_again(connection, [email_id], states, by=by):
        raise ActionError(_("nothing was done: it is being delivered, or is to be already"))
    return True


async def _see_that_it_is_meant(email_id: UUID, form: Mapping[str, Any]) -> None:
    row = await read_email(running_pool(), email_id)
    if row is not None and str(form.get("ticket", "")).strip() != row["zendesk_ticket_id"]:
        raise ActionError(_("to erase it for good, type the number of its ticket"))
