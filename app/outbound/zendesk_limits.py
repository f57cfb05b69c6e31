"""The rate limits of Zendesk's API, one set for all that a process asks of an account."""

from functools import cache

from app.outbound.rate_limits import Limit, RateLimits
from app.settings import Settings

API, WEBHOOKS, WEBHOOK_TESTS, EXPORTS = "api", "webhooks", "webhook tests", "exports"
# A minute each, as answers told in 2023 and 2024. Each answer tells the account's own, by its plan.
API_REQUESTS, WEBHOOK_REQUESTS, WEBHOOK_TEST_REQUESTS = 700, 100, 20


def limits_of_account(settings: Settings) -> RateLimits:
    """The limits of the account that is set."""
    return _make(
        settings.zendesk_address,
        settings.zendesk_email,
        settings.zendesk_token,
        settings.zendesk_share,
        settings.zendesk_exports_per_minute,
    )


def limit_of(path: str) -> str:
    """Which of the limits a request to a path counts for."""
    if path.startswith("/api/v2/webhooks/test"):
        return WEBHOOK_TESTS
    if path.startswith("/api/v2/webhooks"):
        return WEBHOOKS
    return EXPORTS if path.startswith("/api/v2/incremental/") else API


@cache
def _make(_address: str, _email: str, _token: str, share: float, exports: int) -> RateLimits:
    return RateLimits(
        {
            API: Limit(API_REQUESTS, share),
            WEBHOOKS: Limit(WEBHOOK_REQUESTS, share),
            WEBHOOK_TESTS: Limit(WEBHOOK_TEST_REQUESTS, share),
            # Its headers tell of the whole API's limit, which is not the one that it meets first.
            EXPORTS: Limit(exports, 1.0, is_told=False),
        }
    )
