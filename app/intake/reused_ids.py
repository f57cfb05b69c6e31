"""Notices a `webhook_id` that is the same in every delivery: the usual mistake of a template."""

from collections import OrderedDict

import structlog

from app.intake.email_row import EmailRow
from app.telemetry.logs import is_told

log = structlog.get_logger(__name__)

# Enough to notice a constant.
REMEMBERED_WEBHOOK_IDS = 1_000


class ReusedIds:
    """The ids that came lately, each with the key of the first email that had it."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, str] = OrderedDict()
        self._reused = 0

    def look_at(self, row: EmailRow) -> None:
        """Say it when different emails carry one `webhook_id`.

        The 1st, 2nd, 4th, 8th ... is logged, so a constant does not fill the log.
        """
        webhook_id, key = row.zendesk_webhook_id, row.idempotency_key
        if webhook_id is None or key is None:
            return
        first_key = self._seen.setdefault(webhook_id, key)
        self._seen.move_to_end(webhook_id)
        if len(self._seen) > REMEMBERED_WEBHOOK_IDS:
            self._seen.popitem(last=False)
        if first_key != key:
            self._reused += 1
            if is_told(self._reused):
                log.warning("webhook_id_reused", email_id=str(row.id), times=self._reused)
