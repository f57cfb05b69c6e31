"""Why Zendesk suspends mail, and which of it is recovered without asking anybody."""

import re
from typing import Self

import attrs

# https://developer.zendesk.com/documentation/ticketing/reference-guides/suspensions-reference/
CAUSES = (
    *("spam", "not_on_whitelist", "unverified", "auto_mailer", "loop", "unknown_user_update"),
    *("other_user_update", "auto_delivery_failure", "auto_vacation", "system_user"),
    *("unknown_author", "blank", "signup_required", "blocklisted", "backscatter", "disabled"),
    *("to_noreply", "server_lock", "unserviceable_account", "unprocessable_email"),
    *("unauthenticated_email_update", "registered_user_logged_out", "from_support_address"),
    *("from_zendesk_account", "content_processor_timed_out", "malware_detected"),
    *("failed_email_authentication", "from_noreply", "account_owner_email_unverified"),
    "malicious_pattern_detected",
)
"""By their number at Zendesk. It has further ones, which are known by their number alone."""

# A sender's address can be forged: mail that is harmful, or whose sender is not proved, is
# recovered only where its cause is named.
NAMED_ALONE = frozenset(
    {"malware_detected", "malicious_pattern_detected", "failed_email_authentication"}
)
ANY = "*"
_SENDER = re.compile(r"\*|(\*|[^@*:\s]+)@[^@*:\s]+")


@attrs.frozen
class RecoverRule:
    """Which suspended mail is recovered."""

    cause: str
    """Its cause's name or number; `*`: any."""
    sender: str
    """An address, `*@example.com`, or `*`: anybody."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `cause`, `cause:sender` or `*:sender`.

        Raises:
            ValueError: it is none of these.
        """
        cause, _, sender = (part.strip().lower() for part in text.partition(":"))
        sender = sender or ANY
        if cause not in (ANY, *CAUSES) and not cause.isdecimal():
            raise ValueError(
                f"{cause!r} is no cause: write one of {', '.join(CAUSES)}, a number, or * for any"
            )
        if not _SENDER.fullmatch(sender):
            raise ValueError(
                f"{text!r} names no sender: write an address, or *@example.com, after the colon"
            )
        if cause == sender == ANY:
            raise ValueError("that recovers all spam: name a cause, a sender, or both")
        return cls(CAUSES[int(cause)] if _is_known(cause) else cause, sender)

    def fits(self, cause: str, sender: str) -> bool:
        """Whether mail of a cause and a sender is meant."""
        is_cause = cause not in NAMED_ALONE if self.cause == ANY else cause == self.cause
        sender = sender.lower()
        is_sender = self.sender in (ANY, sender) or (
            self.sender.startswith("*@") and sender.endswith(self.sender[1:])
        )
        return is_cause and is_sender


def cause_name(number: int | None) -> str:
    """Zendesk's name for a cause; its number where Mailroom knows none."""
    if number is None:
        return "unknown"
    return CAUSES[number] if 0 <= number < len(CAUSES) else str(number)


def _is_known(cause: str) -> bool:
    return cause.isdecimal() and int(cause) < len(CAUSES)
