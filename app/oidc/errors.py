"""Why a provider did not vouch for somebody. Messages are shown to whoever signs in, and hold
nothing of what was sent but the provider's own error codes."""

from app.errors import MailroomError


class OidcError(MailroomError):
    """Nobody is signed in by the provider; the message says why and what helps."""


class ProviderAwayError(OidcError):
    """The provider does not answer, or not as OpenID Connect has it."""


class RefusedError(OidcError):
    """The provider, or whoever signs in, said no."""


class UntrustedTokenError(OidcError):
    """What the provider says of somebody is not believed."""
