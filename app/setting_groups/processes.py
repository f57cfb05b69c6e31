"""The web and worker processes: where they listen, how many run, who may ask them."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from app.setting_groups.group import LONGEST_SECONDS, SettingGroup, split_hosts
from app.setting_groups.secrets import MAKE_A_SECRET, SHORTEST_SECRET

# Browsers resolve `.` and `..`, so a prefix with such a part would never be asked for.
ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")


class ProcessSettings(SettingGroup):
    """What a process is told about itself and this machine."""

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

    public_url: str = ""
    """Mailroom's address as Zendesk reaches it, such as `https://mailroom.example.com`, with its
    path if it has one. `mailroom zendesk` asks for it."""

    api_token: str = Field(default="", repr=False)
    """Bearer token of the HTTP API."""

    receipt_key: str = Field(default="", repr=False)
    """Signs receipts of emails. Empty: the API token does, and receipts are no longer verified when
    that changes."""

    audit_addresses: bool = True
    """Whether the audit log keeps from which address, or account of which machine, somebody
    acted."""

    viewers_see_bodies: bool = True
    """Whether users with the role viewer see what emails say, their payloads and their files."""

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

    worker_shutdown_seconds: float = Field(default=30.0, ge=0, le=LONGEST_SECONDS)
    """Time that running handlers are given when a worker is told to stop."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """TCP port at which a worker process shows its metrics, or the next one that is free. 0: none
    is opened. Those of a web process are at its `/metrics`."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged. What neither runs on nor runs a handler or migrations logs
    warnings and errors alone."""

    @property
    def own_address(self) -> str:
        """Where the web process answers, seen from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{host}:{self.port}"

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_allowed_hosts(cls, value: object) -> object:
        return split_hosts(value) if isinstance(value, str) else value

    @field_validator("root_path")
    @classmethod
    def _refuse_what_is_no_path(cls, value: str) -> str:
        if not ROOT_PATH.fullmatch(value):
            raise ValueError(
                "has to be a path such as `/mailroom`, with a slash before each part and none at "
                "the end, of letters, digits and `-._~`; leave it empty where there is no prefix"
            )
        return value

    @model_validator(mode="after")
    def _check_api_token(self) -> Self:
        if self.is_production:
            if not self.api_token:
                raise ValueError(f"MAILROOM_API_TOKEN is missing: make one with `{MAKE_A_SECRET}`")
            if len(self.api_token) < SHORTEST_SECRET:
                raise ValueError(
                    f"MAILROOM_API_TOKEN has fewer than {SHORTEST_SECRET} characters and could be "
                    f"guessed: make one with `{MAKE_A_SECRET}`"
                )
        return self
