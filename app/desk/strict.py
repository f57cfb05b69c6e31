"""What the jobs API refuses instead of overlooking it.

A filter that is misspelt would otherwise be no filter, and the request would mean all emails.
"""

from collections.abc import Collection, Iterable
from typing import Any

import attrs
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.constants import RESERVED_KWARGS
from litestar.exceptions import ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.spec import OpenAPI


class StrictRequest(Request[Any, Any, Any]):
    """A request whose body may hold the fields of its handler's `data` and no other."""

    async def json(self) -> Any:
        body = await super().json()
        data = self.route_handler.parsed_data_field
        if isinstance(body, dict) and data is not None:
            known = [field.name for field in attrs.fields(data.annotation)]
            _refuse_unknown("field", body, known)
        return body


def refuse_unknown_parameters(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """A guard: the query may hold the parameters of the handler and no other."""
    known = handler.parsed_fn_signature.parameters.keys() - RESERVED_KWARGS
    _refuse_unknown("parameter", connection.query_params, known - connection.path_params.keys())


def forbid_additional_properties(openapi: OpenAPI, *bodies: type[attrs.AttrsInstance]) -> None:
    """Say of these bodies in the schema that they hold no further fields."""
    for body in bodies:
        (openapi.components.schemas or {})[body.__name__].additional_properties = False


def _refuse_unknown(what: str, names: Iterable[str], known: Collection[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if not unknown:
        return
    there_are = f"use {', '.join(sorted(known))}" if known else "leave it out, there are none here"
    raise ValidationException(
        f"unknown: {', '.join(unknown)}",
        extra=[{"key": name, "message": f"is no {what}: {there_are}"} for name in unknown],
    )
