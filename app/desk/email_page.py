"""One email at `/emails/{id}`: what it is, what happened to it, what it says, and what can be done
about it."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import structlog
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.exceptions import NotFoundException, PermissionDeniedException
from litestar.response import Redirect, Template

from app.api.attachments import answer_with_bytes
from app.api.emails import read_email
from app.attachments.given import Archive, Attachment
from app.audit.acts import Act
from app.audit.log import write
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import EMAILS_PATH, address
from app.desk.email_actions import ActionError, act
from app.desk.email_body import body_of, pretty
from app.desk.email_html import POLICY, Images, safe_html
from app.desk.email_neighbours import find_neighbours
from app.desk.email_sentences import possible_actions, state_sentence
from app.desk.email_timeline import steps_of
from app.desk.operators import Operator
from app.desk.pages import PageController, acting_operator, actor_of, note_refusal, page, to_sign_in
from app.desk.sign_in import database_is_away, signed_in
from app.durations import in_words
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.jobs.story import tell_story
from app.models.email_attachment import AttachmentState
from app.models.fit import read_json
from app.models.incoming_email import IncomingEmail
from app.models.operator_account import Role
from app.settings import get_settings
from app.sync.plans import delivered_states

log = structlog.get_logger(__name__)

NO_EMAIL = N_("there is no email %(id)s: it may have been erased")
# Files that fetching again may bring.
MAY_COME = (AttachmentState.FAILED, AttachmentState.SKIPPED, AttachmentState.FLAGGED)


class EmailPage(PageController):
    """The page of an email, and what belongs to it."""

    path = EMAILS_PATH

    @get("/{email_id:uuid}")
    async def show(
        self, request: Request[Any, Any, Any], email_id: UUID, state: State, done: str = ""
    ) -> Template | Redirect:
        """All that is known of it."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        return await _page(
            request, user, email_id, state.archive, told=_(DONE[done]) if done in DONE else None
        )

    @post("/{email_id:uuid}", status_code=200)
    async def do(
        self, request: Request[Any, Any, Any], email_id: UUID, state: State
    ) -> Template | Redirect:
        """Do what a button asks for; where its state has changed meanwhile, nothing."""
        user = await acting_operator(request)
        form = await request.form()
        try:
            action = await act(email_id, form, actor=actor_of(request, user))
        except ActionError as error:
            return await _page(request, user, email_id, state.archive, wrong=str(error))
        except CANNOT_ASK as error:
            raise database_is_away() from error
        log.info(
            "operator_acted", email_id=str(email_id), action=action.value, by=f"user:{user.id}"
        )
        if action.removes:
            return Redirect(f"{address(EMAILS_PATH)}", status_code=303)
        return Redirect(f"{address(EMAILS_PATH)}/{email_id}?done={action}", status_code=303)

    @get("/{email_id:uuid}/html", media_type="text/html")
    async def html(
        self, request: Request[Any, Any, Any], email_id: UUID, state: State, marked: bool = False
    ) -> Response[Any]:
        """Its HTML, for the frame of its page; with marks where images were left out."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        await see_that_it_may_read(request, user)
        row = await read(email_id)
        archive: Archive = state.archive
        try:
            files = await archive.attachments(running_pool(), email_id)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        images = _kept_images(email_id, files, read_json(row["attachment_urls"]))
        return Response(
            await safe_html(row["raw_body_html"] or "", images, marked=marked),
            media_type="text/html; charset=utf-8",
            headers={
                "Content-Security-Policy": POLICY,
                "Cross-Origin-Resource-Policy": "same-origin",
                # Not even the names of hosts to which links lead are asked for.
                "X-DNS-Prefetch-Control": "off",
            },
        )

    @get("/{email_id:uuid}/attachments/{position:int}")
    async def download(
        self, request: Request[Any, Any, Any], email_id: UUID, position: int, state: State
    ) -> Response[Any]:
        """The bytes of a file, as a download."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        await see_that_it_may_read(request, user)
        archive: Archive = state.archive
        try:
            file = await archive.attachment(running_pool(), email_id, position)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        if file is None or not file.is_kept:
            why = file.why if file else _("the email names no such file")
            raise NotFoundException(
                _("file %(position)s is not there: %(why)s", position=position, why=why)
            )
        if not _shows_a_picture(request, file):
            try:
                actor, name = actor_of(request, user), f"{email_id}/{position}"
                await write(running_pool(), actor, Act.FILE_EXPORT, [name])
            except CANNOT_ASK as error:
                raise database_is_away() from error
        return await answer_with_bytes(request, file)


def _shows_a_picture(request: Request[Any, Any, Any], file: Attachment) -> bool:
    """Whether the email's own page shows it, which is to look and not to take along.

    https://www.w3.org/TR/fetch-metadata/#sec-fetch-dest-header
    """
    is_picture = (file.content_type or "").startswith("image/")
    return is_picture and request.headers.get("sec-fetch-dest") == "image"


DONE: Mapping[str, str] = {
    "retry": N_("It is queued again."),
    "settle": N_("It is completed by hand."),
    "discard": N_("It is discarded."),
    "fetch": N_("Its files are fetched again."),
    "deliver": N_("It is delivered again."),
}


async def see_that_it_may_read(request: Request[Any, Any, Any], user: Operator) -> None:
    """See that who asks may see what emails say; write it down where not.

    Raises:
        PermissionDeniedException: a viewer, where the settings show none of it to viewers.
    """
    if not user.sees_bodies:
        await note_refusal(request, user)
        raise PermissionDeniedException(
            _("viewers do not see what emails say: MAILROOM_VIEWERS_SEE_BODIES is off")
        )


async def read(email_id: UUID) -> dict[str, Any]:
    """Every column of an email.

    Raises:
        NotFoundException: it is not there.
        ServiceUnavailableException: the database is away.
    """
    try:
        row = await read_email(running_pool(), email_id)
    except CANNOT_ASK as error:
        raise database_is_away() from error
    if row is None:
        raise NotFoundException(_(NO_EMAIL, id=email_id))
    return row


def _kept_images(email_id: UUID, files: Sequence[Attachment], named: Any) -> Images:
    places = {
        file.position: f"{address(EMAILS_PATH)}/{email_id}/attachments/{file.position}"
        for file in files
        if file.is_kept
    }
    entries = dict(enumerate(named if isinstance(named, list) else []))
    return Images(
        {
            entry["url"]: places[position]
            for position, entry in entries.items()
            if position in places and isinstance(entry, dict) and isinstance(entry.get("url"), str)
        },
        # Of two of the same name the first.
        {
            file.filename.lower(): places[file.position]
            for file in reversed(files)
            if file.position in places and file.filename
        },
    )


async def _page(
    request: Request[Any, Any, Any],
    user: Operator,
    email_id: UUID,
    archive: Archive,
    *,
    told: str | None = None,
    wrong: str | None = None,
) -> Template:
    row = await read(email_id)
    settings = get_settings()
    try:
        async with running_pool().acquire() as connection:
            story = await tell_story(connection, email_id, settings)
            files = await archive.attachments(connection, email_id)
            neighbours = await find_neighbours(connection, row)
            now = await connection.fetchval("SELECT now()")
    except CANNOT_ASK as error:
        raise database_is_away() from error
    if story is None:
        raise NotFoundException(_(NO_EMAIL, id=email_id))
    zendesk = settings.zendesk_address if settings.zendesk_subdomain else None
    has_missing_files = any(file.state in MAY_COME for file in files)
    return page(
        request,
        "email.html",
        user,
        table=IncomingEmail,
        table_key=email_id,
        row=row,
        sentence=state_sentence(row, now),
        actions=(
            possible_actions(
                row,
                has_missing_files=has_missing_files,
                delivered=delivered_states(settings) if settings.delivers else (),
            )
            if user.may(Role.OPERATOR)
            else []
        ),
        sees_bodies=user.sees_bodies,
        story=story,
        steps=steps_of(story.events),
        files=files,
        body=await body_of(row) if user.sees_bodies else None,
        payload=pretty(row["raw_payload"]) if user.sees_bodies else None,
        result=pretty(row["extracted_data"])
        if row["extracted_data"] and user.sees_bodies
        else None,
        neighbours=neighbours,
        in_words=in_words,
        ticket=f"{zendesk}/agent/tickets/{row['zendesk_ticket_id']}" if zendesk else None,
        told=told,
        wrong=wrong,
    )
