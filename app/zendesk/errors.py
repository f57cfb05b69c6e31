"""Why Zendesk's API did not tell: one class a cause. Messages say what to do, and hold neither the
token nor anything of an email.
"""

from app.errors import MailroomError

WHERE_TO_LOOK = "see MAILROOM_ZENDESK_EMAIL, MAILROOM_ZENDESK_TOKEN and the address of the account"


class ZendeskError(MailroomError):
    """Zendesk did not tell; the message says why, and what to do."""


class ZendeskAwayError(ZendeskError):
    """It cannot be reached, or fails: asking later may help."""


class ZendeskBusyError(ZendeskAwayError):
    """The rate limit, or our share of it, is used up."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Zendesk's API asks to wait {seconds:.0f} seconds")
        self.seconds = seconds


class ZendeskTokenError(ZendeskError):
    """It refuses the token. It is asked again after a pause that grows."""


class ZendeskMovedError(ZendeskError):
    """It sends on to another address; the token does not go there."""


class ZendeskNotFoundError(ZendeskError):
    """There is nothing under that id, in this account."""


class ZendeskForbiddenError(ZendeskError):
    """The token's agent may not see or do this."""


class ZendeskRefusedError(ZendeskError):
    """It does not take what was asked for, such as a cursor that it no longer knows."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ZendeskShapeError(ZendeskError):
    """It answers what is none of its own answers."""
