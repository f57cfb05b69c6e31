"""The files of emails: which are fetched, from where, and where they are kept."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from app.http.host_names import host_name
from app.setting_groups.group import LONGEST_SECONDS, SettingGroup, split

STORES = ("s3", "gs", "az")


class AttachmentSettings(SettingGroup):
    """Fetching, keeping and checking attachments."""

    attachments: Literal["before", "beside", "off"] = "before"
    """When the files of an email are fetched: `before` its handler begins, which waits for them;
    `beside` it, which does not wait; or not at all."""

    attachment_store: str = ""
    """Where files are kept: `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or
    `az://container/prefix`. Empty: the folder `attachments` in `MAILROOM_HOME`."""

    attachment_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts from which attachments may be fetched besides Zendesk's, comma-separated: a name, or
    `*.example.com` for all below one. They get no token."""

    attachment_max_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Largest attachment that is kept. Zendesk takes 50 MB."""

    attachment_timeout_seconds: float = Field(default=300.0, gt=0, le=LONGEST_SECONDS)
    """Time that the download of one attachment may take, its redirects included."""

    attachment_min_bytes_per_second: float = Field(default=2_048.0, ge=0)
    """A download that is slower on average after its first ten seconds is given up, to be tried
    again."""

    attachment_keep_flagged: bool = False
    """Keep harmful files, too: neither Zendesk's malware scan nor the virus check is asked."""

    attachment_wait_seconds: float = Field(default=600.0, gt=0, le=LONGEST_SECONDS)
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

    clamd: str = ""
    """`host:port` of a clamd that checks every attachment before it is kept. Empty: none does."""

    @field_validator("attachment_hosts", mode="before")
    @classmethod
    def _split_host_patterns(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        patterns = []
        for entry in split(value):
            name = host_name(entry.removeprefix("*."))
            if name is None or "/" in entry:
                raise ValueError(
                    f"{entry!r} is no host name: write names such as `files.example.com`, or "
                    "`*.example.com` for all below one, comma-separated"
                )
            patterns.append(f"*.{name}" if entry.startswith("*.") else name)
        return tuple(patterns)

    @field_validator("clamd")
    @classmethod
    def _refuse_what_is_no_clamd(cls, value: str) -> str:
        if value and (host_name(value) is None or not re.search(r":[0-9]+\Z", value)):
            raise ValueError("has to be `host:port`, such as 127.0.0.1:3310")
        return value

    @model_validator(mode="after")
    def _check_attachment_store(self) -> Self:
        _check_store(self.attachment_store)
        return self


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
