"""How times are given to commands."""

from datetime import datetime

import click

from app.models.fit import in_utc


def to_moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """The callback of an option: a time in ISO 8601; one without a zone is in UTC."""
    try:
        return None if value is None else in_utc(datetime.fromisoformat(value))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            "has to be a time such as 2026-11-26 or 2026-11-26T08:30+01:00", ctx, param
        ) from error
