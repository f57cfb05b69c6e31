"""What is wrong, for the top of the overview: each in a sentence, with what mends it."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

import attrs

from app.api.health import NOT_REACHABLE
from app.desk.addresses import DELIVERIES_PATH, QUARANTINE_PATH, SUSPENDED_PATH, address
from app.desk.seen import Figures
from app.durations import in_words
from app.i18n.formats import number
from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext as _
from app.i18n.texts import ngettext

# Email waits longer than this without a reason only where workers do not keep up.
LATE_AFTER = timedelta(minutes=15)
DELIVERY_LATE_AFTER = timedelta(minutes=15)
# A webhook of a quiet desk may be called once a week.
SECRET_UNUSED_AFTER = timedelta(days=14)
LEAST_FREE_SHARE = 0.05
LEAST_FREE_BYTES = 1024**3


class Weight(StrEnum):
    """How bad it is."""

    BAD = "bad"
    """Email is not stored, processed or delivered."""
    NOTE = "note"
    """Somebody should look at it before it becomes bad."""


@attrs.frozen
class Banner:
    """One thing that is wrong."""

    text: str
    mend: str
    weight: Weight = Weight.BAD
    href: str | None = None
    """Where the mend is."""
    note: str = ""
    """What else is known of it."""


def banners_of(figures: Figures, home: Path, broker: str) -> list[Banner]:
    """What is wrong now, the worst first.

    Args:
        home: the folder of which the disk may become full.
        broker: what `/health/ready` says of it.
    """
    found = [
        *_of_work(figures),
        *_of_broker(broker),
        *_of_alarms(figures),
        *_of_delivery(figures),
        *_of_home(home),
        *_of_secrets(figures),
    ]
    found += [
        Banner(
            _(
                "The chore %(name)s failed %(failures)s times in a row",
                name=chore.name,
                failures=chore.failures,
            )
            + (f": {chore.last_error}" if chore.last_error else ""),
            _("The workers' log says more; it is tried again by itself"),
            Weight.NOTE,
        )
        for chore in figures.failing_chores
    ]
    return sorted(found, key=lambda banner: banner.weight is not Weight.BAD)


def _of_work(figures: Figures) -> Iterator[Banner]:
    oldest = figures.oldest_waiting
    if not figures.workers_alive:
        yield Banner(
            _("No worker runs: emails are stored and wait"),
            _("Start one with `mailroom worker`, or all with `mailroom up`"),
            Weight.BAD if oldest else Weight.NOTE,
        )
    elif oldest and oldest.age > LATE_AFTER:
        yield Banner(
            _("An email has waited for %(time)s", time=in_words(oldest.age)),
            _(
                "See below what the workers do; more of them, or a higher "
                "MAILROOM_WORKER_CONCURRENCY, do more at once. `mailroom doctor` checks the broker"
            ),
        )
    if silent := [worker.name for worker in figures.workers if not worker.is_alive]:
        yield Banner(
            ngettext(
                "%(num)s of the workers fell silent: %(names)s",
                "%(num)s of the workers fell silent: %(names)s",
                len(silent),
                names=", ".join(silent[:3]),
            ),
            _("What they held is taken over by itself; see why they ended"),
            Weight.NOTE,
        )
    if figures.quarantined.signed:
        yield Banner(
            ngettext(
                "%(num)s webhook that Zendesk signed is in the quarantine: "
                "no email until it is mended",
                "%(num)s webhooks that Zendesk signed are in the quarantine: "
                "no email until they are mended",
                figures.quarantined.signed,
            ),
            _("Mend and admit them"),
            Weight.BAD,
            address(QUARANTINE_PATH),
        )


def _of_broker(broker: str) -> Iterator[Banner]:
    state, _colon, explanation = broker.partition(": ")
    if state == NOT_REACHABLE:
        yield Banner(
            _("The broker is not reachable: %(why)s", why=_(explanation)),
            _("See that it runs and that BROKER_URL is right: `mailroom doctor` tries it"),
        )


def _of_alarms(figures: Figures) -> Iterator[Banner]:
    for alarm in figures.alarms:
        time = in_words(figures.at - alarm.since)
        note = _("%(kind)s, for %(time)s", kind=_(alarm.kind), time=time)
        if alarm.not_told_because:
            note += _("; not told yet: %(why)s", why=alarm.not_told_because)
        yield Banner(
            as_told(alarm.text),
            as_told(alarm.mend),
            note=note,
            href=address(SUSPENDED_PATH) if alarm.kind == "suspended" else None,
        )


def _of_delivery(figures: Figures) -> Iterator[Banner]:
    receiver = figures.deliveries.receiver
    if receiver and not receiver.is_well:
        reason = f": {as_told(receiver.reason)}" if receiver.reason else ""
        if receiver.is_paused:
            yield Banner(
                _("The receiver of deliveries wants nothing more") + reason,
                _("Once it is back: `mailroom sync resume`"),
            )
        elif receiver.rests_until and not receiver.is_down:
            yield Banner(
                _("The receiver of deliveries asked to be left alone") + reason,
                _(
                    "It is delivered to again in %(time)s; `mailroom sync resume` does so at once",
                    time=in_words(receiver.rests_until - figures.at),
                ),
            )
        else:
            yield Banner(
                _("The receiver of deliveries is down") + reason,
                _("It is tried again by itself; `mailroom sync status` says when"),
            )
    elif figures.deliveries.refusal:
        yield Banner(
            _(
                "The receiver of deliveries refuses what it is sent: %(why)s",
                why=as_told(figures.deliveries.refusal.reason),
            ),
            _(
                "See that MAILROOM_SYNC_URL is right and that the receiver knows "
                "MAILROOM_SYNC_SECRETS; what it refused is tried again by itself"
            ),
            href=address(DELIVERIES_PATH),
        )
    elif figures.deliveries.lag > DELIVERY_LATE_AFTER:
        yield Banner(
            _("A delivery is late by %(time)s", time=in_words(figures.deliveries.lag)),
            _("See that workers run and that the receiver answers: `mailroom sync status`"),
        )


def _of_home(home: Path) -> Iterator[Banner]:
    folder = next((path for path in (home, *home.parents) if path.exists()), None)
    if folder is None:
        return
    usage = shutil.disk_usage(folder)
    if usage.free < min(LEAST_FREE_BYTES, usage.total * LEAST_FREE_SHARE):
        yield Banner(
            _(
                "The disk of %(home)s is nearly full: %(free)s MiB are left",
                home=home,
                free=number(usage.free // 1024**2),
            ),
            _("Make room, or move MAILROOM_HOME to a larger disk"),
        )


def _of_secrets(figures: Figures) -> Iterator[Banner]:
    used = [one.unused_for for one in figures.secrets if one.unused_for is not None]
    if not used:
        return
    for one in figures.secrets:
        if one.unused_for is None and min(used) < one.known_for:
            yield Banner(
                _(
                    "The webhook's secret is about to change: nothing is signed with %(label)s "
                    "yet, which was set %(time)s ago",
                    label=one.label,
                    time=in_words(one.known_for),
                ),
                _(
                    "Zendesk signs with it once it is the webhook's in its Admin Center; if it is "
                    "not to be, take it out of MAILROOM_WEBHOOK_SECRETS"
                ),
                Weight.NOTE,
            )
        elif one.unused_for is not None and one.unused_for - min(used) > SECRET_UNUSED_AFTER:
            yield Banner(
                _(
                    "The webhook's secret has changed: nothing was signed with %(label)s for "
                    "%(time)s",
                    label=one.label,
                    time=in_words(one.unused_for),
                ),
                _(
                    "Take it out of MAILROOM_WEBHOOK_SECRETS: whoever has it could still sign "
                    "emails"
                ),
                Weight.NOTE,
            )
