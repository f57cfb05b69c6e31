"""The chores of the workers, and of the web processes, by the settings: one line each."""

from app.alerts.canary import canary_chores
from app.alerts.herald import Herald
from app.bulk.carrying_out import bulk_chore
from app.jobs.archive import leftovers_chore
from app.jobs.chores import Chore, ChoreContext
from app.jobs.word_index import word_index_chore
from app.retention import erasure
from app.retention.drafts import drafts_chore
from app.retention.pruner import prune_chore
from app.settings import Settings
from app.zendesk.ip_ranges import ranges_chores
from app.zendesk.silence import silence_chore
from app.zendesk.suspended.watch import suspended_chores
from app.zendesk.watch import watch_chores

ALERT_EVERY_SECONDS = 10.0


def chores_of(settings: Settings) -> list[Chore]:
    """What is done now and then, by one worker process at a time."""
    return [
        _herald_chore(settings),
        *canary_chores(settings),
        silence_chore(settings),
        *suspended_chores(settings),
        leftovers_chore(settings),
        word_index_chore(),
        *watch_chores(settings),
        *ranges_chores(settings),
        *([prune_chore(settings)] if settings.prunes else []),
        bulk_chore(settings),
        Chore("finish-erasures", erasure.FINISH_EVERY_SECONDS, erasure.finish),
        drafts_chore(settings),
    ]


def chores_of_web(settings: Settings) -> list[Chore]:
    """What web processes do as well, so that they tell when no worker is there to do it."""
    canary = canary_chores(settings)
    return [_herald_chore(settings), *canary] if canary else []


def _herald_chore(settings: Settings) -> Chore:
    return Chore("alerts", ALERT_EVERY_SECONDS, lambda context: _tell(settings, context))


async def _tell(settings: Settings, context: ChoreContext) -> str | None:
    told = await Herald(settings, context.pool).run_once()
    return f"{told} messages about alarms sent" if told else None
