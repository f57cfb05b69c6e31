"""What `mailroom doctor` looks at of how people sign in."""

from app.cli.zendesk_checks import NotWellError
from app.oidc.errors import OidcError
from app.settings import Settings


async def sign_in_check(settings: Settings) -> str:
    """Whether the provider that the settings name can be asked.

    Raises:
        NotWellError: it cannot.
    """
    codes = "with" if settings.second_step_key else "without"
    told = f"{codes} codes of authenticator apps (MAILROOM_SECOND_STEP_KEY)"
    if not settings.oidc_issuer:
        return f"by passwords, {told}"
    # Its libraries take a while to load, and most commands never ask a provider.
    from app.oidc.provider import Provider

    provider = Provider(settings)
    try:
        keys = await provider.look()
    except OidcError as error:
        raise NotWellError(
            f"the OpenID Connect provider: {error}. See MAILROOM_OIDC_ISSUER and "
            "MAILROOM_OUTBOUND_INTERNAL_HOSTS"
        ) from error
    finally:
        await provider.close()
    ways = f"{settings.oidc_name} ({keys} keys)" + (" or passwords" if settings.passwords else "")
    return f"by {ways}, {told}"
