"""The overview at `/`: how the mailroom is doing, for an operator who has signed in to `/admin`."""

from datetime import timedelta
from typing import Any

import structlog
from litestar import Request, get
from litestar.exceptions import NotAuthorizedException
from litestar.response import Redirect, Template

from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.database.schema_fit import schema_state
from app.desk.addresses import EMAILS_PATH, address
from app.desk.banners import Banner, banners_of
from app.desk.charts import chart_of_emails, chart_of_line
from app.desk.email_list import address_of_search
from app.desk.figures import COUNTED_AT_MOST, DAY, FAILURES_GROUPED, Lookout, Span
from app.desk.pages import PageController, page, to_sign_in
from app.desk.return_paths import sign_in_address
from app.desk.seen import Failures, Figures
from app.desk.sign_in import database_is_away, signed_in
from app.durations import in_words
from app.i18n.formats import number
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.jobs.heartbeat import FORGOTTEN_AFTER
from app.settings import get_settings
from app.sync.counts import receiver_of

log = structlog.get_logger(__name__)

FIGURES_PATH = "/overview/figures"
SPANS = {Span.HOUR: N_("an hour"), Span.DAY: N_("a day"), Span.MONTH: N_("30 days")}
PERCENTILES = ((N_("half of them"), 0.5), (N_("95 of 100"), 0.95), (N_("99 of 100"), 0.99))


class OverviewController(PageController):
    """The page, and the part of it that is fetched anew every few seconds."""

    @get("/")
    async def show(
        self, request: Request[Any, Any, Any], span: Span = Span.HOUR
    ) -> Template | Redirect:
        """All of it, or the way to the login."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        context = await _context(request, span)
        figures_address = f"{address(FIGURES_PATH)}?span={span}"
        return page(request, "overview.html", user, figures_address=figures_address, **context)

    @get(FIGURES_PATH)
    async def figures(self, request: Request[Any, Any, Any], span: Span = Span.HOUR) -> Template:
        """The figures alone."""
        if await signed_in(request.scope) is None:
            raise NotAuthorizedException(
                _("sign in at %(address)s to see this", address=sign_in_address())
            )
        return Template("figures.html", context=await _context(request, span))


async def _context(request: Request[Any, Any, Any], span: Span) -> dict[str, Any]:
    lookout = _lookout_of(request)
    try:
        state = await schema_state()
        if state.missing:
            text, mend = state.explanation.rsplit(": ", 1)
            return {"figures": None, "banners": [Banner(text, mend)]}
        figures: Figures = await lookout.look()
        throughput = await lookout.look_at(span)
        health = await request.app.state.health.see()
        day = throughput if span is Span.DAY else await lookout.look_at(Span.DAY)
    except CANNOT_ASK as error:
        # A query that is wrong comes here as well, so the log has the reason.
        log.error("overview_not_possible", error=type(error).__name__, exc_info=error)
        raise database_is_away() from error
    day_ago = f"ended:{(figures.at - DAY).strftime('%Y-%m-%dT%H:%M')}.."
    backlog_chart = chart_of_line("backlog", [part.backlog for part in throughput.parts])
    ages = [part.oldest_seconds for part in throughput.parts]
    return {
        "figures": figures,
        "banners": banners_of(figures, get_settings().home, health.checks.get("broker", "")),
        "spans": [
            (_(name), f"{address('/')}?span={one}", one is span) for one, name in SPANS.items()
        ],
        "span": _(SPANS[span]),
        "throughput": throughput,
        "emails_chart": chart_of_emails(throughput),
        "line_charts": [
            (_("Emails that wait or are in work"), "backlog", backlog_chart, number),
            (_("Age of the oldest of them"), "age", chart_of_line("age", ages), _seconds),
        ],
        "percentiles": [(_(name), throughput.percentile(share)) for name, share in PERCENTILES],
        "completed_today": day.total.completed,
        "completed_today_search": address_of_search(f"status:completed {day_ago}"),
        "counted_at_most": COUNTED_AT_MOST,
        "failures_grouped": FAILURES_GROUPED,
        "failed_with": lambda failures: _search_of(failures, day_ago),
        "forgotten_after": FORGOTTEN_AFTER,
        "canary": _canary(figures),
        "is_canary_well": figures.canary is None or figures.canary.is_well(get_settings()),
        "is_zendesk_asked": bool(get_settings().zendesk_token),
        "search": address_of_search,
        "email": lambda email_id: f"{address(EMAILS_PATH)}/{email_id}",
        "duration": in_words,
    }


def _canary(figures: Figures) -> str | None:
    """How the canary stands, where one is sent."""
    settings = get_settings()
    if not settings.canary_seconds:
        return None
    return figures.canary.summary(settings) if figures.canary else _("none has been sent yet")


def _lookout_of(request: Request[Any, Any, Any]) -> Lookout:
    state = request.app.state
    if "lookout" not in state:
        state.lookout = Lookout(
            running_pool(),
            are_files_fetched=get_settings().attachments != "off",
            receiver=receiver_of(get_settings()),
            watched_every=get_settings().watched_every,
            secrets=get_settings().webhook_secrets,
        )
    lookout: Lookout = state.lookout
    return lookout


def _search_of(failures: Failures, day_ago: str) -> str:
    return address_of_search(f'status:failed {day_ago} failure:"{failures.failure}"')


def _seconds(value: float) -> str:
    return in_words(timedelta(seconds=value)) if value else "0 s"
