"""Every setting of Mailroom, put together from its groups, and how the values are read.

Values come from the environment, from a `.env` file in the working folder, or from the file that
`<NAME>_FILE` names. Nothing else in the code base reads environment variables, and nothing here
touches the database or the network.
"""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.development_secrets import load_or_make_secrets
from app.environment import UnusableVariableError, cleaned, read_files, why_unreadable
from app.errors import MailroomError
from app.setting_groups.alerts import AlertSettings
from app.setting_groups.attachments import AttachmentSettings
from app.setting_groups.database import DatabaseSettings
from app.setting_groups.delivery import DeliverySettings
from app.setting_groups.intake import IntakeSettings
from app.setting_groups.jobs import JobSettings
from app.setting_groups.outbound import OutboundSettings
from app.setting_groups.processes import ProcessSettings
from app.setting_groups.retention import RetentionSettings
from app.setting_groups.secrets import parse_secrets
from app.setting_groups.sign_in import SignInSettings
from app.setting_groups.watch import WatchSettings
from app.setting_groups.zendesk import ZendeskSettings

ENV_FILE = Path(".env")


class SettingsError(MailroomError):
    """A setting is missing or has a value that cannot be used."""


# Pydantic takes the fields of the last base first: `mailroom --help` lists them from below.
class Settings(
    AlertSettings,
    DeliverySettings,
    WatchSettings,
    OutboundSettings,
    AttachmentSettings,
    ZendeskSettings,
    JobSettings,
    RetentionSettings,
    IntakeSettings,
    SignInSettings,
    ProcessSettings,
    DatabaseSettings,
    BaseSettings,
):
    """What can be set, with the defaults that `mailroom up` runs with."""

    model_config = SettingsConfigDict(
        env_prefix="MAILROOM_",
        env_file=ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        validate_by_name=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where values come from; called by pydantic."""
        names = {environment_name(name).lower() for name in cls.model_fields}
        sources = [s for s in (env_settings, dotenv_settings) if isinstance(s, EnvSettingsSource)]
        for source in sources:
            source.env_vars = cleaned(source.env_vars)
        found = [source.env_vars for source in sources]
        for source, elsewhere in zip(sources, reversed(found), strict=True):
            source.env_vars = read_files(source.env_vars, elsewhere, names)
        return init_settings, *sources

    @property
    def canary_address(self) -> str:
        """Where canaries go."""
        return (self.canary_url or self.public_url or self.own_address).rstrip("/")

    @property
    def attachment_store_url(self) -> str:
        """Where the files of emails are kept."""
        return self.attachment_store or (self.home.absolute() / "attachments").as_uri()


def load_settings() -> Settings:
    """Read the settings and, in development, fill in secrets that were made once.

    Raises:
        SettingsError: names every setting that is wrong.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    except UnusableVariableError as error:
        raise SettingsError(str(error)) from None
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"{ENV_FILE.absolute()} cannot be read ({why_unreadable(error)}): save it as UTF-8, "
            "and see that this user may read it"
        ) from None
    settings = settings.model_copy(update={"home": settings.home.expanduser().absolute()})
    if settings.is_production or (settings.webhook_secrets and settings.api_token):
        return settings
    made = load_or_make_secrets(settings.home)
    return settings.model_copy(
        update={
            "webhook_secrets": settings.webhook_secrets or parse_secrets(made.webhook_secret),
            "api_token": settings.api_token or made.api_token,
        }
    )


_get: Callable[[], Settings] = load_settings


@cache
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        SettingsError: names every setting that is wrong.
    """
    return _get()


def use_defaults() -> None:
    """Have `get_settings` give the defaults, whatever is set: for a process that shows help, and
    does nothing else."""
    global _get
    _get = Settings.model_construct


def are_traces_wanted() -> bool:
    """Whether OpenTelemetry's own settings name where traces go; its SDK reads the rest."""
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(os.environ.get(name) for name in names)


def environment_name(field_name: str) -> str:
    """The environment variable that sets a field."""
    if field_name in ("database_url", "broker_url"):
        return field_name.upper()
    return f"MAILROOM_{field_name.upper()}"


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        message = problem["msg"].removeprefix("Value error, ")
        if problem["loc"]:
            name = str(problem["loc"][0])
            message = f"{environment_name(name) if name.islower() else name}: {message}"
        lines.append(message)
    return "; ".join(lines)
