"""`mailroom quarantine`."""

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import click

from app.audit.actors import Actor
from app.audit.acts import Act
from app.cli.acting import command_actor
from app.cli.database_access import run_with_pool
from app.cli.lint import told
from app.cli.mending import describe, edit, export
from app.cli.printing import say, say_lines
from app.cli.quarantine_access import (
    ALL,
    IDS,
    REASON,
    Pool,
    check_selection,
    discard_with_drafts,
    find,
    selected,
    to_json,
    to_reason,
)
from app.intake.intake import Intake
from app.intake.mending import examine
from app.intake.refusals import Refusal, Summary, count_dropped, summaries
from app.intake.retrying import Again, try_again
from app.models.quarantined_webhook import RefusalReason
from app.settings import get_settings
from app.zendesk.lint.stored import lint_refusal

LISTED_AT_ONCE = 1_000


@click.group()
def quarantine() -> None:
    """Look after refused webhooks.

    What is answered 4xx at the webhook route is kept here for a while, as the bytes that came.
    After the secret or the template is mended, `retry` verifies it again and admits it. What is
    broken itself is mended by hand with `edit`.
    """


@quarantine.command("list")
@REASON
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, an object a line.")
def list_all(reason: str | None, as_json: bool) -> None:
    """List refused webhooks, the oldest first."""
    run_with_pool(lambda pool: _list(pool, to_reason(reason), as_json))


@quarantine.command()
@click.argument("refusal_id", metavar="ID", type=click.UUID)
def show(refusal_id: UUID) -> None:
    """Show the refused webhook ID: why, its headers, its body."""
    run_with_pool(lambda pool: _show(pool, refusal_id))


@quarantine.command()
@IDS
@ALL
@REASON
def retry(ids: tuple[UUID, ...], all_of_them: bool, reason: str | None) -> None:
    """Verify refused webhooks again with today's secrets, and admit what passes.

    They keep their time of receipt. What was admitted before is found to be a duplicate. Exits
    with 0 if all of them passed.
    """
    check_selection(ids, all_of_them, reason)
    actor = command_actor()
    results = run_with_pool(lambda pool: _retry(pool, ids, to_reason(reason), actor))
    said = (
        f"{results[Again.ACCEPTED]} accepted, {results[Again.DUPLICATE]} duplicates, "
        f"{results[Again.REFUSED]} refused again"
    )
    if results[Again.SUSPENDED]:
        said += (
            f", {results[Again.SUSPENDED]} suspended ones passed over: `edit` admits one of them"
        )
    if results[Again.NOT_STORED]:
        said += f", {results[Again.NOT_STORED]} not stored: try again"
    say(said)
    raise SystemExit(1 if results[Again.REFUSED] or results[Again.NOT_STORED] else 0)


@quarantine.command("discard")
@IDS
@ALL
@REASON
def discard_some(ids: tuple[UUID, ...], all_of_them: bool, reason: str | None) -> None:
    """Delete refused webhooks for good."""
    check_selection(ids, all_of_them, reason)
    actor = command_actor()
    count = run_with_pool(lambda pool: _discard(pool, ids, to_reason(reason), actor))
    say(f"{count} discarded")


async def _list(pool: Pool, reason: RefusalReason | None, as_json: bool) -> None:
    count = 0
    after = None
    while page := await summaries(pool, reason=reason, limit=LISTED_AT_ONCE, after=after):
        for refusal in page:
            count += 1
            say(to_json(refusal) if as_json else _to_line(refusal))
        after = (page[-1].received_at, page[-1].id)
    if not as_json:
        dropped = await count_dropped(pool)
        say(f"{count} refused webhooks are kept, {dropped} were dropped for lack of room.")


async def _show(pool: Pool, refusal_id: UUID) -> None:
    refusal = await find(pool, refusal_id)
    intake = Intake(get_settings(), pool)
    try:
        findings = examine(intake, refusal)
        report = lint_refusal(refusal, is_genuine=findings.is_genuine, orders=intake.orders)
    finally:
        await intake.close()
    say(_to_line(refusal))
    say_lines(describe(refusal, findings))
    if report is not None and report.findings:
        say_lines("\n".join(told(report, "its text")))
    for name, value in refusal.headers.items():
        say(f"{name}: {value}")
    say("")
    body = "(not kept)" if refusal.body is None else refusal.body.decode(errors="backslashreplace")
    say_lines(body)


async def _retry(
    pool: Pool, ids: Sequence[UUID], reason: RefusalReason | None, actor: Actor
) -> Counter[Again]:
    results: Counter[Again] = Counter()
    intake = Intake(get_settings(), pool)
    try:
        async for page in selected(pool, ids, reason):
            found = await try_again(intake, page)
            results.update(found.values())
            passed = [refusal_id for refusal_id, result in found.items() if result.leaves]
            await discard_with_drafts(pool, passed, actor, Act.QUARANTINE_ADMIT)
    finally:
        await intake.close()
    return results


async def _discard(
    pool: Pool, ids: Sequence[UUID], reason: RefusalReason | None, actor: Actor
) -> int:
    count = 0
    async for page in selected(pool, ids, reason):
        ids_of_page = [refusal.id for refusal in page]
        await discard_with_drafts(pool, ids_of_page, actor, Act.QUARANTINE_DISCARD)
        count += len(page)
    return count


def _to_line(refusal: Refusal | Summary) -> str:
    at = refusal.received_at.isoformat(timespec="seconds")
    return (
        f"{refusal.id}  {at}  {refusal.reason:<10}  {refusal.remote_address}  "
        f"{refusal.size} bytes  {refusal.detail}"
    )


quarantine.add_command(edit)
quarantine.add_command(export)
