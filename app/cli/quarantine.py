"""`mailroom quarantine`."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import click

from app.cli.database_access import told_in_a_sentence
from app.cli.printing import say, say_lines
from app.database import DB
from app.errors import MailroomError
from app.intake.group_commit import NotStoredError
from app.intake.intake import Intake
from app.intake.quarantine import Refusal, count_dropped, discard, find_refusal, refusals
from app.intake.refused import RefusedError
from app.intake.signature import INVOCATION_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from app.models.quarantined_webhook import RefusalReason
from app.request_id import uuid7
from app.settings import get_settings

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

REASON = click.option(
    "--reason", type=click.Choice([reason.value for reason in RefusalReason]), help="Only these."
)
ALL = click.option("--all", "all_of_them", is_flag=True, help="All of them.")
IDS = click.argument("ids", type=click.UUID, nargs=-1)


class SelectionError(MailroomError):
    """Which webhooks are meant is not clear."""


@click.group()
def quarantine() -> None:
    """Look after refused webhooks.

    What is answered 4xx at the webhook route is kept here for a while, as the bytes that came.
    After the secret or the template is mended, `retry` verifies it again and admits it.
    """


@quarantine.command("list")
@REASON
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, an object a line.")
def list_all(reason: str | None, as_json: bool) -> None:
    """List refused webhooks, the oldest first."""
    _run(lambda pool: _list(pool, _reason(reason), as_json))


@quarantine.command()
@click.argument("refusal_id", metavar="ID", type=click.UUID)
def show(refusal_id: UUID) -> None:
    """Show the refused webhook ID: why, its headers, its body."""
    _run(lambda pool: _show(pool, refusal_id))


@quarantine.command()
@IDS
@ALL
@REASON
def retry(ids: tuple[UUID, ...], all_of_them: bool, reason: str | None) -> None:
    """Verify refused webhooks again with today's secrets, and admit what passes.

    They keep their time of receipt. What was admitted before is found to be a duplicate. Exits
    with 0 if all of them passed.
    """
    _check_selection(ids, all_of_them, reason)
    results = _run(lambda pool: _retry(pool, ids, _reason(reason)))
    said = (
        f"{results['accepted']} accepted, {results['duplicate']} duplicates, "
        f"{results['refused']} refused again"
    )
    if results["not stored"]:
        said += f", {results['not stored']} not stored: try again"
    say(said)
    raise SystemExit(1 if results["refused"] or results["not stored"] else 0)


@quarantine.command("discard")
@IDS
@ALL
@REASON
def discard_some(ids: tuple[UUID, ...], all_of_them: bool, reason: str | None) -> None:
    """Delete refused webhooks for good."""
    _check_selection(ids, all_of_them, reason)
    count = _run(lambda pool: _discard(pool, ids, _reason(reason)))
    say(f"{count} discarded")


def _reason(reason: str | None) -> RefusalReason | None:
    return RefusalReason(reason) if reason else None


def _check_selection(ids: Sequence[UUID], all_of_them: bool, reason: str | None) -> None:
    if bool(ids) == all_of_them:
        raise SelectionError("say which: ids, or --all (with --reason, all of that reason)")
    if reason and ids:
        raise SelectionError("--reason goes with --all, not with ids")


def _run(work: Callable[[Pool], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        await DB.ensure_running()
        async with DB.make_pool(min_size=0, max_size=2) as pool:
            return await work(pool)

    try:
        with told_in_a_sentence():
            return asyncio.run(run())
    finally:
        DB.release()


async def _list(pool: Pool, reason: RefusalReason | None, as_json: bool) -> None:
    count = 0
    async for page in refusals(pool, reason=reason):
        for refusal in page:
            count += 1
            say(_to_json(refusal) if as_json else _to_line(refusal))
    if not as_json:
        dropped = await count_dropped(pool)
        say(f"{count} refused webhooks are kept, {dropped} were dropped for lack of room.")


async def _show(pool: Pool, refusal_id: UUID) -> None:
    refusal = await _find(pool, refusal_id)
    say(_to_line(refusal))
    for name, value in refusal.headers.items():
        say(f"{name}: {value}")
    say("")
    body = "(not kept)" if refusal.body is None else refusal.body.decode(errors="backslashreplace")
    say_lines(body)


async def _retry(pool: Pool, ids: Sequence[UUID], reason: RefusalReason | None) -> Counter[str]:
    results: Counter[str] = Counter()
    intake = Intake(get_settings(), pool)
    try:
        async for page in _selected(pool, ids, reason):
            outcomes = await asyncio.gather(*(_admit(intake, refusal) for refusal in page))
            results.update(outcomes)
            passed = [
                refusal.id
                for refusal, outcome in zip(page, outcomes, strict=True)
                if outcome in ("accepted", "duplicate")
            ]
            await discard(pool, passed)
    finally:
        await intake.close()
    return results


async def _admit(intake: Intake, refusal: Refusal) -> str:
    if refusal.body is None:
        return "refused"
    try:
        admission = await intake.admit(
            refusal.body,
            email_id=uuid7(),
            signature=refusal.headers.get(SIGNATURE_HEADER),
            timestamp=refusal.headers.get(TIMESTAMP_HEADER),
            invocation_id=refusal.headers.get(INVOCATION_HEADER),
            received_at=refusal.received_at,
        )
    except RefusedError:
        return "refused"
    except NotStoredError:
        return "not stored"
    return "duplicate" if admission.is_duplicate else "accepted"


async def _discard(pool: Pool, ids: Sequence[UUID], reason: RefusalReason | None) -> int:
    count = 0
    async for page in _selected(pool, ids, reason):
        await discard(pool, [refusal.id for refusal in page])
        count += len(page)
    return count


async def _selected(
    pool: Pool, ids: Sequence[UUID], reason: RefusalReason | None
) -> AsyncIterator[list[Refusal]]:
    if ids:
        each = list(dict.fromkeys(ids))
        # Where one is wrong, nothing is done.
        for refusal_id in each:
            await _find(pool, refusal_id)
        for refusal_id in each:
            yield [await _find(pool, refusal_id)]
    else:
        async for page in refusals(pool, reason=reason):
            yield page


async def _find(pool: Pool, refusal_id: UUID) -> Refusal:
    refusal = await find_refusal(pool, refusal_id)
    if refusal is None:
        raise SelectionError(f"there is no {refusal_id} in the quarantine")
    return refusal


def _to_line(refusal: Refusal) -> str:
    at = refusal.received_at.isoformat(timespec="seconds")
    return (
        f"{refusal.id}  {at}  {refusal.reason:<10}  {refusal.remote_address}  "
        f"{refusal.size} bytes  {refusal.detail}"
    )


def _to_json(refusal: Refusal) -> str:
    return json.dumps(
        {
            "id": str(refusal.id),
            "received_at": refusal.received_at.isoformat(),
            "reason": refusal.reason,
            "detail": refusal.detail,
            "remote_address": refusal.remote_address,
            "size": refusal.size,
        }
    )
