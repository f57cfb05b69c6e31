"""Every setting of Mailroom: its name, default, unit and meaning.

Values come from the environment, from a `.env` file in the working folder, or from the file that
`<NAME>_FILE` names. Nothing else in the
code base reads environment variables, and nothing here touches the database or the network.
"""

import getpass
import os
import re
import ssl
from functools import cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

import attrs
from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.development_secrets import load_or_make_secrets
from app.environment import UnusableVariableError, cleaned, read_files
from app.errors import MailroomError
from app.http.host_names import Origin, host_name

# Zendesk signs its "test webhook" calls with this secret, printed in its own sample code:
# https://developer.zendesk.com/documentation/webhooks/verifying/
ZENDESK_PUBLIC_TEST_SECRET = "dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ=="  # noqa: S105

# Characters. What is shorter is a word that somebody thought of, and can be guessed; Zendesk's own
# signing secrets are longer.
SHORTEST_SECRET = 24
MAKE_A_SECRET = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'  # noqa: S105

EMBEDDED = "embedded"

# Browsers resolve `.` and `..`, so a prefix with such a part would never be asked for.
ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")

ZENDESK_SUBDOMAIN = re.compile(r"([A-Za-z0-9](-?[A-Za-z0-9])*)?")
STORES = ("s3", "gs", "az")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class SettingsError(MailroomError):
    """A setting is missing or has a value that cannot be used."""


@attrs.frozen
class WebhookSecret:
    """One active signing secret and the label it is known by in logs."""

    label: str
    secret: str = attrs.field(repr=False)


class Settings(BaseSettings):
    """What can be set, with the defaults that `mailroom up` runs with."""

    model_config = SettingsConfigDict(
        env_prefix="MAILROOM_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        validate_by_name=True,
    )

    database_url: str = Field(
        default=EMBEDDED, validation_alias=AliasChoices("DATABASE_URL"), repr=False
    )
    """Where the truth lives: `postgresql://user:password@host/database`, or `embedded`. Several
    hosts, as in `host1:5432,host2:5432`: the one that can write."""

    broker_url: str = Field(default="", validation_alias=AliasChoices("BROKER_URL"), repr=False)
    """Job engine: `postgresql://`, `redis://`, `rediss://`, `amqp://` or `amqps://`.
    Empty: the database."""

    env: Literal["development", "production"] = "development"
    """`production` refuses unsafe defaults and writes logs as JSON."""

    home: Path = Path(".mailroom")
    """Folder of the embedded database, of the files of emails, and of the secrets made in
    development."""

    host: str = "127.0.0.1"
    """Address on which the web process listens, and a worker with its metrics."""

    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port on which the web process listens."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names under which operators reach `/` and `/admin`, comma-separated; needed behind a
    reverse proxy with https. Where it is set, those answer under no other name."""

    root_path: str = ""
    """Path under which a reverse proxy shows Mailroom, such as `/mailroom`. Whether the proxy
    removes it before it passes a request on does not matter."""

    webhook_secrets: Annotated[tuple[WebhookSecret, ...], NoDecode] = Field(default=(), repr=False)
    """Signing secrets of the Zendesk webhook, comma-separated, each `secret` or `label:secret`.
    All are accepted, so that one can be rotated without losing email."""

    zendesk_subdomain: str = ""
    """The account's name: `example` of `https://example.zendesk.com`. It is asked who wrote an
    email that came as an event."""

    zendesk_url: str = ""
    """Address of the account's API, in place of the subdomain's."""

    zendesk_email: str = ""
    """Address of the agent whose API token is used."""

    zendesk_token: str = Field(default="", repr=False)
    """API token of the Zendesk account. Empty: nobody is looked up."""

    attachments: Literal["before", "beside", "off"] = "before"
    """When the files of an email are fetched: `before` its handler begins, which waits for them;
    `beside` it, which does not wait; or not at all."""

    attachment_store: str = ""
    """Where files are kept: `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or
    `az://container/prefix`. Empty: the folder `attachments` in `MAILROOM_HOME`."""

    zendesk_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Further host names of the account, comma-separated: those of its brands. They get the token
    for attachments as the account's own does."""

    attachment_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts from which attachments may be fetched besides Zendesk's, comma-separated: a name, or
    `*.example.com` for all below one. They get no token."""

    attachment_max_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Largest attachment that is kept. Zendesk takes 50 MB."""

    attachment_timeout_seconds: float = Field(default=300.0, gt=0)
    """Time that the download of one attachment may take, its redirects included."""

    attachment_min_bytes_per_second: float = Field(default=2_048.0, ge=0)
    """A download that is slower on average after its first ten seconds is given up, to be tried
    again."""

    attachment_keep_flagged: bool = False
    """Keep harmful files, too: neither Zendesk's malware scan nor the virus check is asked."""

    clamd: str = ""
    """`host:port` of a clamd that checks every attachment before it is kept. Empty: none does."""

    outbound_internal_hosts: Annotated[tuple[Origin, ...], NoDecode] = ()
    """What Mailroom may call in a private network, comma-separated: `host`, `host:port` or
    `http://host:port`. All else that it calls has a public address, and https at port 443."""

    outbound_ca_file: Path | None = None
    """File with certificate authorities (PEM) that are trusted beside the system's."""

    outbound_open_loopback: bool = False
    """Whether Mailroom may call this machine itself, at any port. Development only."""
    attachment_wait_seconds: float = Field(default=600.0, gt=0)
    """Time that an email waits for its files at most. Then its handler begins with those that are
    there."""

    attachment_max_count: int = Field(default=100, ge=1)
    """Files of one email that are fetched; further ones are skipped, and said to be."""

    attachment_max_email_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """Bytes of one email's files together; what goes beyond is skipped, and said to be."""

    attachment_max_tries: int = Field(default=6, ge=1)
    """How often a file is tried before it counts as failed. The pauses grow from 5 seconds to 10
    minutes."""

    attachment_concurrency: int = Field(default=8, ge=1)
    """Files that one worker process fetches at once. Those that take long count no longer after
    five seconds; of them there may be four times as many."""

    api_token: str = Field(default="", repr=False)
    """Bearer token of the HTTP API."""

    accept_unsigned: bool = False
    """Accept webhooks that carry no signature. Development only."""

    day_first: bool = False
    """Whether `03/11/2026` in `received_at` is the 3 November; else it is March 11, as in the US.
    `03.11.2026` is in November, and `2026-03-11` in March, in any case."""

    webhook_fields: Annotated[tuple[tuple[str, ...], ...], NoDecode] = ()
    """The fields of the trigger's JSON in their order, comma-separated; `;` between several
    triggers. They tell where a text ends whose quotes are not escaped. Left empty, they are learned
    from the payloads that come whole."""

    signature_max_age_seconds: int = Field(default=86_400, ge=1)
    """How far a signature's timestamp may lie from our clock. Generous on purpose: a late
    delivery is an email, and a replay is recognised as a duplicate."""

    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    """Largest webhook body that is read; larger ones are answered 413."""

    intake_deadline_seconds: float = Field(default=8.0, gt=0)
    """Time from the first byte of a webhook to its answer; then 503. Zendesk gives up at 10 to
    12 seconds."""

    intake_max_waiting_rows: int = Field(default=5_000, ge=1)
    """Emails that may wait for the database in one web process; further ones are answered 503."""

    intake_max_waiting_bytes: int = Field(default=48 * 1024 * 1024, ge=1024)
    """Bytes of request bodies that one web process holds at once; further ones are answered 503.
    Those above 64 KiB may have three quarters, so that small emails find room."""

    intake_batch_rows: int = Field(default=256, ge=1)
    """Most emails that share one INSERT."""

    quarantine_max_rows: int = Field(default=20_000, ge=0)
    """Refused webhooks that are kept; further ones are counted only."""

    quarantine_max_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Bytes of refused webhooks that are kept."""

    quarantine_max_age_days: float = Field(default=30.0, gt=0)
    """Time after which a refused webhook is deleted."""

    quarantine_max_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the quarantine that one sender's address may take with webhooks whose signature is
    missing or wrong."""

    quarantine_unsigned_share: float = Field(default=0.8, gt=0, le=1)
    """Share of the quarantine that webhooks whose signature is missing or wrong may take together.
    The rest is kept for those that Zendesk signed and a broken template spoilt."""

    database_pool_size: int = Field(default=6, ge=2)
    """PostgreSQL connections that one web or worker process opens for its own work."""

    behind_pgbouncer: bool = False
    """`DATABASE_URL` leads to PgBouncer, or a pooler like it, in transaction mode. `BROKER_URL` is
    needed then, and leads past it."""

    handler: str = "app.handlers.extract_text:handle"
    """What "processing" means: `package.module:function`."""

    handler_timeout_seconds: float = Field(default=300.0, gt=0)
    """Time one run of the handler may take before it counts as a failed attempt."""

    max_retries: int = Field(default=5, ge=0)
    """How often an email is tried again after its first failed attempt."""

    min_backoff_seconds: float = Field(default=15.0, gt=0)
    """Pause before the first retry; it doubles with each further one."""

    max_backoff_seconds: float = Field(default=300.0, gt=0)
    """Longest pause between two retries."""

    lease_seconds: float = Field(default=60.0, gt=0)
    """How long a claimed email belongs to its worker without a sign of life from it."""

    max_lost_claims: int = Field(default=3, ge=1)
    """How often the worker of an email may vanish while it is processed before the email is
    failed as the likely cause."""

    queue_depth: int = Field(default=1_000, ge=1)
    """Emails that may wait in the broker at once. The rest wait in the database, in order."""

    message_lost_seconds: float = Field(default=120.0, gt=0)
    """Time after which a queued email that no worker claimed is sent to the broker again."""

    queue: str = Field(default="mailroom", pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,80}$")
    """Name of the broker queue. Two installations that share a broker need two names."""

    web_processes: int = Field(default=1, ge=1)
    """Processes that `mailroom web` and `mailroom up` start to take email and to show it."""

    worker_processes: int = Field(default=1, ge=1)
    """Processes that `mailroom worker` and `mailroom up` start."""

    worker_concurrency: int = Field(
        default=20,
        ge=1,
        validation_alias=AliasChoices("MAILROOM_WORKER_CONCURRENCY", "MAILROOM_WORKER_THREADS"),
    )
    """Emails that one worker process handles at once."""

    worker_shutdown_seconds: float = Field(default=30.0, ge=0)
    """Time that running handlers are given when a worker is told to stop."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """TCP port at which a worker process shows its metrics, or the next one that is free. 0: none
    is opened. Those of a web process are at its `/metrics`."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged."""

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

    @field_validator("allowed_hosts", "zendesk_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        entries = _split(value)
        names = [host_name(entry) for entry in entries]
        if None in names:
            raise ValueError(
                f"{entries[names.index(None)]!r} is no host name: write names such as "
                "`support.example.com` or addresses, comma-separated; there are no wildcards"
            )
        return tuple(names)

    @field_validator("attachment_hosts", mode="before")
    @classmethod
    def _split_host_patterns(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        patterns = []
        for entry in _split(value):
            name = host_name(entry.removeprefix("*."))
            if name is None or "/" in entry:
                raise ValueError(
                    f"{entry!r} is no host name: write names such as `files.example.com`, or "
                    "`*.example.com` for all below one, comma-separated"
                )
            patterns.append(f"*.{name}" if entry.startswith("*.") else name)
        return tuple(patterns)

    @field_validator("outbound_internal_hosts", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return tuple(Origin.parse(entry) for entry in _split(value))
        except ValueError as error:
            raise ValueError(
                f"{error}: write `crm.internal`, `crm.internal:8443` or `http://crm.internal:8080`"
            ) from None

    @field_validator("clamd")
    @classmethod
    def _refuse_what_is_no_clamd(cls, value: str) -> str:
        if value and (host_name(value) is None or not re.search(r":[0-9]+\Z", value)):
            raise ValueError("has to be `host:port`, such as 127.0.0.1:3310")
        return value

    @field_validator("outbound_ca_file")
    @classmethod
    def _refuse_what_holds_no_certificate(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            ssl.create_default_context().load_verify_locations(cafile=value)
        except OSError as error:
            # An SSLError, too.
            raise ValueError(f"{value} holds no certificates that can be read") from error
        return value

    @field_validator("webhook_fields", mode="before")
    @classmethod
    def _split_fields(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        orders = [
            tuple(name.strip() for name in order.split(",") if name.strip())
            for order in value.split(";")
        ]
        for order in filter(None, orders):
            if missing := [name for name in ("ticket_id", "from_email") if name not in order]:
                raise ValueError(
                    f"{' and '.join(missing)} is missing: name all fields of the trigger's JSON in "
                    "their order, such as ticket_id,from_email,subject,body_text"
                )
            if len(set(order)) < len(order) or any('"' in name or "\\" in name for name in order):
                raise ValueError("a field is named twice, or holds a quote or a backslash")
        return tuple(filter(None, orders))

    @field_validator("root_path")
    @classmethod
    def _refuse_what_is_no_path(cls, value: str) -> str:
        if not ROOT_PATH.fullmatch(value):
            raise ValueError(
                "has to be a path such as `/mailroom`, with a slash before each part and none at "
                "the end, of letters, digits and `-._~`; leave it empty where there is no prefix"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _split_secrets(cls, values: dict[str, object]) -> dict[str, object]:
        name = next((n for n in values if n.lower().endswith("webhook_secrets")), None)
        if name is not None and isinstance(values[name], str):
            return {**values, name: parse_secrets(str(values[name]))}
        return values

    @model_validator(mode="after")
    def _refuse_what_is_unsafe(self) -> "Settings":
        if self.min_backoff_seconds > self.max_backoff_seconds:
            raise ValueError(
                "MAILROOM_MIN_BACKOFF_SECONDS is larger than MAILROOM_MAX_BACKOFF_SECONDS"
            )
        if self.max_body_bytes > self.intake_max_waiting_bytes:
            raise ValueError(
                "MAILROOM_MAX_BODY_BYTES is larger than MAILROOM_INTAKE_MAX_WAITING_BYTES, so the "
                "largest emails could never be taken"
            )
        if self.database_url != EMBEDDED:
            if not self.database_url.startswith(("postgresql://", "postgres://")):
                raise ValueError("DATABASE_URL has to start with postgresql:// or be `embedded`")
            _check_url("DATABASE_URL", self.database_url)
        if self.behind_pgbouncer and not self.broker_url:
            raise ValueError(
                "BROKER_URL is missing: with MAILROOM_BEHIND_PGBOUNCER it has to name Redis, "
                "RabbitMQ or PostgreSQL itself, because a job engine on PostgreSQL needs sessions"
            )
        for url in filter(None, self.broker_url.split(";")):
            _check_url("BROKER_URL", url)
        for name, url in (("DATABASE_URL", self.database_url), ("BROKER_URL", self.broker_url)):
            if url.startswith(("postgresql://", "postgres://")):
                _check_user(name, url)
        self._check_zendesk()
        _check_store(self.attachment_store)
        if self.env == "production":
            self._refuse_development_defaults()
        return self

    def _refuse_development_defaults(self) -> None:
        if "database_url" not in self.model_fields_set:
            raise ValueError(
                "DATABASE_URL is missing: production needs a PostgreSQL server "
                "(or DATABASE_URL=embedded, if the embedded one is what you want)"
            )
        if not self.webhook_secrets:
            raise ValueError(
                "MAILROOM_WEBHOOK_SECRETS is missing: copy the signing secret of your webhook "
                "from Zendesk's Admin Center"
            )
        if any(s.secret == ZENDESK_PUBLIC_TEST_SECRET for s in self.webhook_secrets):
            raise ValueError(
                "MAILROOM_WEBHOOK_SECRETS holds Zendesk's public test secret, which everybody "
                "knows: use the secret of your own webhook"
            )
        for number, secret in enumerate(self.webhook_secrets, start=1):
            if len(secret.secret) < SHORTEST_SECRET:
                raise ValueError(
                    f"MAILROOM_WEBHOOK_SECRETS: secret {number} has fewer than {SHORTEST_SECRET} "
                    "characters and could be guessed: copy the whole signing secret of your "
                    f"webhook from Zendesk's Admin Center, or make one with `{MAKE_A_SECRET}`"
                )
        if not self.api_token:
            raise ValueError(f"MAILROOM_API_TOKEN is missing: make one with `{MAKE_A_SECRET}`")
        if len(self.api_token) < SHORTEST_SECRET:
            raise ValueError(
                f"MAILROOM_API_TOKEN has fewer than {SHORTEST_SECRET} characters and could be "
                f"guessed: make one with `{MAKE_A_SECRET}`"
            )
        for name, is_set in (
            ("MAILROOM_ACCEPT_UNSIGNED", self.accept_unsigned),
            ("MAILROOM_OUTBOUND_OPEN_LOOPBACK", self.outbound_open_loopback),
        ):
            if is_set:
                raise ValueError(f"{name} is for development only: unset it in production")

    def _check_zendesk(self) -> None:
        if not ZENDESK_SUBDOMAIN.fullmatch(self.zendesk_subdomain):
            raise ValueError(
                "MAILROOM_ZENDESK_SUBDOMAIN is the first part of the account's host name alone: "
                "`example` of example.zendesk.com"
            )
        if self.zendesk_url:
            _check_zendesk_url(self.zendesk_url, is_production=self.is_production)
        if self.zendesk_token and not (
            self.zendesk_email and (self.zendesk_subdomain or self.zendesk_url)
        ):
            raise ValueError(
                "MAILROOM_ZENDESK_TOKEN needs MAILROOM_ZENDESK_EMAIL, and "
                "MAILROOM_ZENDESK_SUBDOMAIN or MAILROOM_ZENDESK_URL"
            )

    @property
    def zendesk_address(self) -> str:
        """Where the account's API is."""
        return self.zendesk_url or f"https://{self.zendesk_subdomain}.zendesk.com"

    @property
    def attachment_store_url(self) -> str:
        """Where the files of emails are kept."""
        return self.attachment_store or (self.home.absolute() / "attachments").as_uri()

    @property
    def is_production(self) -> bool:
        return self.env == "production"


def _split(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _check_url(name: str, url: str) -> None:
    """Find what the drivers would stumble over; their errors would print the password.

    Raises:
        ValueError: names the setting and never its value.
    """
    try:
        parts = urlsplit(url)
        # Several hosts, comma-separated, each with its port or without.
        ports = [urlsplit(f"//{host}").port for host in parts.netloc.rpartition("@")[2].split(",")]
        is_whole = all(port is None or port > 0 for port in ports)
    except ValueError:
        is_whole = False
    if not is_whole or re.search("%(?![0-9A-Fa-f]{2})", url):
        raise ValueError(
            f"{name} is not a URL: see its host and port, and write special characters of the "
            "password as %XX"
        )


def _check_store(url: str) -> None:
    """Find what is no store, and credentials, which would be shown with the URL.

    Raises:
        ValueError: it names none.
    """
    if not url:
        return
    parts = urlsplit(url)
    is_folder = parts.scheme == "file" and not parts.netloc and len(parts.path) > 1
    is_bucket = parts.scheme in STORES and parts.netloc
    if not (is_folder or is_bucket) or parts.query or parts.fragment:
        raise ValueError(
            "MAILROOM_ATTACHMENT_STORE has to be file:///folder, s3://bucket/prefix, "
            "gs://bucket/prefix or az://container/prefix"
        )
    if "@" in parts.netloc:
        raise ValueError(
            "MAILROOM_ATTACHMENT_STORE holds credentials: leave them to the environment, as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def _check_user(name: str, url: str) -> None:
    """Find a URL without a user where the process's own has no name to stand in for it.

    Raises:
        ValueError: names the setting.
    """
    parts = urlsplit(url)
    if parts.username or "user" in parse_qs(parts.query) or os.environ.get("PGUSER"):
        return
    try:
        getpass.getuser()
    except (KeyError, OSError):
        raise ValueError(
            f"{name} names no user, and the user id {os.getuid()} of this process has no name "
            "that could stand for it: write postgresql://user@host/database"
        ) from None


def _check_zendesk_url(url: str, *, is_production: bool) -> None:
    """See that the token would travel to one host, and encrypted.

    Raises:
        ValueError: it would not.
    """
    _check_url("MAILROOM_ZENDESK_URL", url)
    parts = urlsplit(url)
    is_bare = not (parts.username or parts.query or parts.fragment) and parts.path in ("", "/")
    is_near = parts.scheme == "http" and parts.hostname in LOOPBACK and not is_production
    if not (parts.hostname and is_bare and (parts.scheme == "https" or is_near)):
        raise ValueError(
            "MAILROOM_ZENDESK_URL has to be https:// and a host, as in https://example.zendesk.com "
            "(http:// for this machine's own addresses, outside production)"
        )


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


@cache
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        SettingsError: names every setting that is wrong.
    """
    return load_settings()


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
