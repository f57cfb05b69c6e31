"""The overview at `/`: how the mailroom is doing, for an operator who has signed in to `/admin`."""

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import structlog
from litestar import Controller, Request, Router, get
from litestar.contrib.jinja import JinjaTemplateEngine
from litestar.datastructures import CacheControlHeader
from litestar.exceptions import NotAuthorizedException
from litestar.response import Redirect, Template
from litestar.static_files import create_static_files_router
from litestar.template import TemplateConfig

from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.admin import PATH as ADMIN_PATH
from app.desk.figures import (
    COUNTED_AT_MOST,
    DAY,
    FAILURES_GROUPED,
    HOUR,
    Failures,
    Figures,
    Lookout,
    Rates,
)
from app.desk.sign_in import database_is_away, signed_in
from app.http.known_hosts import only_known_hosts
from app.jobs.heartbeat import FORGOTTEN_AFTER
from app.settings import get_settings

log = structlog.get_logger(__name__)

FOLDER = Path(__file__).parent
STATIC = (FOLDER / "static", FOLDER.parent / "http" / "static")
STATIC_PATH = "/overview/files"
FIGURES_PATH = "/overview/figures"
QUARANTINE_PATH = "/quarantine"

CHART_WIDTH, CHART_HEIGHT = 600, 120


class OverviewController(Controller):
    """The page, and the part of it that is fetched anew every few seconds."""

    include_in_schema = False
    guards = [only_known_hosts]  # noqa: RUF012 - Litestar declares it so
    response_headers = {"Cache-Control": "no-store"}  # noqa: RUF012 - Litestar declares it so

    @get("/")
    async def page(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """All of it, or the way to the login."""
        user = await signed_in(request.scope)
        if user is None:
            return Redirect(admin_address(), status_code=303)
        return Template(
            "overview.html",
            context={
                "username": user.username,
                "file": file_url,
                "figures_address": address(FIGURES_PATH),
                **await _context(request),
            },
        )

    @get(FIGURES_PATH)
    async def figures(self, request: Request[Any, Any, Any]) -> Template:
        """The figures alone."""
        if await signed_in(request.scope) is None:
            raise NotAuthorizedException(f"sign in at {admin_address()} to see this")
        return Template("figures.html", context=await _context(request))


def template_config() -> TemplateConfig[JinjaTemplateEngine]:
    """Where the pages' templates are."""
    return TemplateConfig(directory=FOLDER / "templates", engine=JinjaTemplateEngine)


def static_files() -> Router:
    """The overview's style and script. Their addresses change with their content."""
    return create_static_files_router(
        path=STATIC_PATH,
        directories=[*STATIC],
        cache_control=CacheControlHeader(max_age=365 * 86_400, public=True, immutable=True),
    )


async def _context(request: Request[Any, Any, Any]) -> dict[str, object]:
    state = request.app.state
    if "lookout" not in state:
        state.lookout = Lookout(running_pool())
    try:
        figures: Figures = await state.lookout.look()
    except CANNOT_ASK as error:
        # A query that is wrong comes here as well, so the log has the reason.
        log.error("overview_not_possible", error=type(error).__name__, exc_info=error)
        raise database_is_away() from error
    return {
        "figures": figures,
        "charts": [
            ("hour", "an hour", _since(figures, HOUR), _chart(figures.hour)),
            ("24 hours", "24 hours", _since(figures, DAY), _chart(figures.day)),
        ],
        "day_ago": _since(figures, DAY),
        "counted_at_most": COUNTED_AT_MOST,
        "failures_grouped": FAILURES_GROUPED,
        "forgotten_after": FORGOTTEN_AFTER,
        "admin": admin_address(),
        "quarantine": address(QUARANTINE_PATH),
        "emails": _list_of_emails,
        "email": lambda email_id: f"{admin_address()}#/incoming_emails/{email_id}/",
        "duration": _duration,
        "with_error": _with_error,
    }


def _since(figures: Figures, span: timedelta) -> str:
    return (figures.at - span).isoformat(timespec="minutes")


def address(path: str) -> str:
    """Where a browser finds this path of ours."""
    return get_settings().root_path + path


def admin_address() -> str:
    """Where a browser finds Piccolo Admin."""
    return address(f"{ADMIN_PATH}/")


def _list_of_emails(**filters: object) -> str:
    """The list in Piccolo Admin that holds these emails."""
    return f"{admin_address()}#/incoming_emails/?{urlencode(filters)}"


def _with_error(failures: Failures) -> dict[str, str]:
    """The filter of Piccolo Admin that finds just these emails among the failed ones."""
    if failures.match == "exact":
        return {"processing_error": failures.error, "processing_error__match": "exact"}
    pattern = failures.error.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    end = "\n" if failures.match == "line" else ""
    return {"processing_error": pattern + end, "processing_error__match": "starts"}


def _chart(rates: Rates) -> dict[str, object]:
    peak = max(*rates.accepted, *rates.completed)
    top = peak or 1.0

    def points(values: list[float]) -> str:
        return " ".join(
            f"{index * CHART_WIDTH / (len(values) - 1):.0f},"
            f"{CHART_HEIGHT - value * CHART_HEIGHT / top:.1f}"
            for index, value in enumerate(values)
        )

    return {
        "rates": rates,
        "peak": peak,
        "accepted": points(rates.accepted),
        "completed": points(rates.completed),
        "width": CHART_WIDTH,
        "height": CHART_HEIGHT,
    }


def _duration(time: timedelta) -> str:
    """A length of time as people say it: its two largest units."""
    seconds = time.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def file_url(name: str) -> str:
    """Where a browser finds a style or script of the desk."""
    return address(f"{STATIC_PATH}/{name}?{_VERSIONS[name]}")


_VERSIONS = {
    file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    for folder in STATIC
    for file in folder.iterdir()
}
