"""`/api/v1/deliveries`: what was not delivered, for programs; people have `mailroom reconcile`."""

import base64
import contextlib
import json
import time
from collections import Counter
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import attrs
import structlog
from litestar import Request, post
from litestar.exceptions import ClientException, HTTPException

from app.api.job_schemas import EXAMPLE_ID, about
from app.api.parts import EVERYWHERE, ApiController, invalid
from app.api.tokens import acting, needs
from app.audit.acts import Act
from app.audit.log import in_steps
from app.database.engine import running_pool
from app.http.problems import problem_response
from app.http.strict import refuse_unknown_parameters
from app.models.api_token import Scope
from app.models.fit import fit_text, in_utc
from app.models.incoming_email import ProcessingStatus
from app.settings import get_settings
from app.sync.differences import Difference, Place, Which
from app.sync.plans import ReconciliationError, WishError, plan
from app.sync.receiver_check import asking_receiver
from app.sync.reconciling import ReceiverCheckError, Reconciliation, reconcile

log = structlog.get_logger(__name__)

# Then the caller goes on by the cursor: proxies give up on an answer that takes long.
BUDGET_SECONDS = 10.0
MOST_IDS = 1_000
LONGEST_OVERDUE_HOURS = 24.0 * 365
NOT_OURS = "it is not one that the API gave for these fields: leave it out to begin"


@attrs.frozen(kw_only=True)
class ReconcileRequest:
    """Which emails are meant; all that is given has to hold."""

    ids: Annotated[list[UUID] | None, about("These emails, at most 1,000", [EXAMPLE_ID])] = None
    ticket_id: str | None = None
    from_email: Annotated[str | None, about("The whole address")] = None
    since: Annotated[datetime | None, about("When their jobs ended, at the earliest")] = None
    until: Annotated[datetime | None, about("Exclusive")] = None
    only: Annotated[
        list[Difference],
        about(
            "Only what differs so. If none is given: whatever differs, and of a span or by ids "
            "everything",
            ["failed"],
        ),
    ] = attrs.field(factory=list)
    everything: Annotated[bool, about("All emails of a span are meant", False)] = False
    overdue_after_hours: Annotated[float, about("Pending for so long counts as overdue", 1.0)] = 1.0
    dry_run: Annotated[bool, about("Count them only", True)] = True
    cursor: Annotated[str | None, about("`next_cursor` of the answer before")] = None


@attrs.frozen(kw_only=True)
class ReconcileAnswer:
    """What one request came to."""

    looked_at: int
    found: Annotated[dict[Difference, int], about("Emails by what differs", {"failed": 3})]
    to_be_delivered: Annotated[int, about("How many are due now; 0 in a dry run", 3)]
    next_cursor: Annotated[
        str | None,
        about(
            "Ask again with it as `cursor`: there was more than one request does; null: all done"
        ),
    ]


BY_DEFAULT = ReconcileRequest()


class NotReconcilableError(ClientException):
    """Nothing is delivered, or the receiver offers no list."""

    status_code = 409


class DeliveriesController(ApiController):
    """The delivery of finished emails to the team's own system."""

    path = "/api/v1/deliveries"
    tags = ["Deliveries"]  # noqa: RUF012 - Litestar declares it so
    guards = [needs(Scope.OPERATE), refuse_unknown_parameters]  # noqa: RUF012

    @post(
        "/reconcile",
        status_code=200,
        summary="Deliver what was not delivered, or once more",
        operation_id="reconcileDeliveries",
        responses=EVERYWHERE
        | {
            409: problem_response("Nothing is delivered here, or the receiver cannot be asked"),
            502: problem_response(
                "The receiver does not say what it has. `next_cursor` is as in an answer"
            ),
        },
    )
    async def reconcile(
        self, request: Request[Any, Any, Any], data: ReconcileRequest = BY_DEFAULT
    ) -> ReconcileAnswer:
        """Count what differs between the ends of jobs and their deliveries; with `dry_run` false,
        have it delivered. What takes long is done over several requests."""
        by = request.state.token_name
        meant = _meant(data, by)
        after = _read_cursor(data.cursor, meant) if data.cursor is not None else None
        if data.dry_run:
            answer, trouble = await _go_on(meant, after)
        else:
            async with in_steps(running_pool(), acting(request), Act.EMAIL_RECONCILE) as steps:
                answer, trouble = await _go_on(meant, after)
                steps.count = answer.to_be_delivered
        if answer.to_be_delivered:
            log.info("reconciled", emails=answer.to_be_delivered, by=by)
        if trouble is not None:
            told = (
                f"{trouble}. {answer.to_be_delivered} emails are to be delivered now all the same"
            )
            if answer.next_cursor is not None:
                told += ": go on with `next_cursor`, or begin anew when it says what it has"
            raise HTTPException(
                status_code=502, detail=told, extra={"next_cursor": answer.next_cursor}
            ) from trouble
        return answer


def _meant(data: ReconcileRequest, by: str) -> Reconciliation:
    for name in ("ticket_id", "from_email"):
        text = getattr(data, name)
        if text is not None and text != fit_text(text):
            raise invalid(name, "holds a character that no email has: leave it out")
    if data.ids is not None and not 1 <= len(data.ids) <= MOST_IDS:
        raise invalid("ids", f"has to hold 1 to {MOST_IDS}: leave it out where none is meant")
    if not 0 <= data.overdue_after_hours <= LONGEST_OVERDUE_HOURS:
        raise invalid("overdue_after_hours", f"has to be from 0 to {LONGEST_OVERDUE_HOURS:.0f}")
    which = Which(
        ids=data.ids or (),
        ticket_id=data.ticket_id,
        from_email=data.from_email,
        since=_moment("since", data.since),
        until=_moment("until", data.until),
        overdue_after=timedelta(hours=data.overdue_after_hours),
    )
    try:
        return plan(
            get_settings(),
            which,
            data.only,
            everything=data.everything,
            applies=not data.dry_run,
            by=by,
        )
    except WishError as wrong:
        raise invalid(wrong.field, str(wrong)) from wrong
    except ReconciliationError as wrong:
        raise NotReconcilableError(str(wrong)) from wrong


async def _go_on(
    meant: Reconciliation, after: Place | None
) -> tuple[ReconcileAnswer, ReceiverCheckError | None]:
    ends_at = time.monotonic() + BUDGET_SECONDS
    found: Counter[Difference] = Counter()
    looked_at = delivered = 0
    place: Place | None = None
    trouble: ReceiverCheckError | None = None
    async with contextlib.AsyncExitStack() as stack:
        asks = None
        if Difference.LACKING in meant.differences:
            asks = await stack.enter_async_context(asking_receiver(get_settings()))
        steps = reconcile(running_pool(), meant, asks=asks, after=after)
        async for step in await stack.enter_async_context(contextlib.aclosing(steps)):
            found += step.found
            looked_at += step.looked_at
            delivered += step.delivered
            place = step.place
            trouble = trouble or step.trouble
            if time.monotonic() >= ends_at:
                break
    answer = ReconcileAnswer(
        looked_at=looked_at,
        found=dict(found),
        to_be_delivered=delivered,
        next_cursor=None if place is None else _cursor(place),
    )
    return answer, trouble


def _cursor(place: Place) -> str:
    at = place.completed_at and place.completed_at.isoformat()
    text = json.dumps([place.status.value, at, str(place.id)])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read_cursor(text: str, meant: Reconciliation) -> Place:
    try:
        status, at, email_id = json.loads(base64.urlsafe_b64decode(text))
        completed_at = None if at is None else in_utc(datetime.fromisoformat(at))
        place = Place(ProcessingStatus(status), completed_at, UUID(email_id))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise invalid("cursor", NOT_OURS) from error
    if place.status not in meant.states:
        raise invalid("cursor", NOT_OURS)
    return place


def _moment(name: str, moment: datetime | None) -> datetime | None:
    try:
        return None if moment is None else in_utc(moment)
    except OverflowError as error:
        raise invalid(name, "lies outside the calendar") from error
