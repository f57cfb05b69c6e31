"""Signing secrets: what a setting of them may look like, and which are too weak."""

import re

import attrs

# Zendesk signs its "test webhook" calls with this secret, printed in its own sample code:
# https://developer.zendesk.com/documentation/webhooks/verifying/
ZENDESK_PUBLIC_TEST_SECRET = "dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ=="  # noqa: S105

# Characters. What is shorter is a word that somebody thought of, and can be guessed; Zendesk's own
# signing secrets are longer.
SHORTEST_SECRET = 24
MAKE_A_SECRET = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'  # noqa: S105


@attrs.frozen
class WebhookSecret:
    """One active signing secret and the label it is known by in logs."""

    label: str
    secret: str = attrs.field(repr=False)


def parse_secrets(text: str) -> tuple[WebhookSecret, ...]:
    """Split `secret` or `label:secret` entries, separated by commas or line ends.

    Raises:
        ValueError: an entry has a label and no secret.
    """
    secrets: list[WebhookSecret] = []
    entries = re.split(r"[,\n]", text)
    for number, entry in enumerate((e for e in entries if e.strip()), start=1):
        label, colon, secret = entry.strip().partition(":")
        if not colon:
            label, secret = f"secret-{number}", label
        if not label.strip() or not secret.strip():
            raise ValueError(
                f"MAILROOM_WEBHOOK_SECRETS: entry {number} has to be `secret` or `label:secret`"
            )
        secrets.append(WebhookSecret(label=label.strip(), secret=secret.strip()))
    return tuple(secrets)


def check_for_production(secrets: tuple[WebhookSecret, ...]) -> None:
    """See that nobody can guess a secret.

    Raises:
        ValueError: none is there, or one is known or short.
    """
    if not secrets:
        raise ValueError(
            "MAILROOM_WEBHOOK_SECRETS is missing: copy the signing secret of your webhook "
            "from Zendesk's Admin Center"
        )
    if any(s.secret == ZENDESK_PUBLIC_TEST_SECRET for s in secrets):
        raise ValueError(
            "MAILROOM_WEBHOOK_SECRETS holds Zendesk's public test secret, which everybody "
            "knows: use the secret of your own webhook"
        )
    for number, secret in enumerate(secrets, start=1):
        if len(secret.secret) < SHORTEST_SECRET:
            raise ValueError(
                f"MAILROOM_WEBHOOK_SECRETS: secret {number} has fewer than {SHORTEST_SECRET} "
                "characters and could be guessed: copy the whole signing secret of your "
                f"webhook from Zendesk's Admin Center, or make one with `{MAKE_A_SECRET}`"
            )
