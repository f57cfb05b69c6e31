"""What the jobs API refuses instead of overlooking it.

A filter that is misspelt would otherwise be no filter, and the request would mean all emails.
"""

from collections.abc import Collection, Iterable
from typing import Any

import attrs
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.constants import RESERVED_KWARGS
from litestar.exceptions import ClientException, SerializationException, ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.spec import OpenAPI, Reference, RequestBody

from app.http.bodies import in_time


class StrictRequest(Request[Any, Any, Any]):
    """A request whose body is a JSON object with fields of its handler's `data` and no other."""

    async def json(self) -> Any:
        try:
            async with in_time():
                body = await super().json()
        except (SerializationException, UnicodeDecodeError, RecursionError) as error:
            said = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
            raise ClientException(f"the body is not JSON in UTF-8: {said}") from error
        if not isinstance(body, dict):
            raise ClientException('the body has to be a JSON object such as {"force": true}')
        data = self.route_handler.parsed_data_field
        if data is not None:
            known = [field.name for field in attrs.fields(data.annotation)]
            _refuse_unknown("field", body, known)
        return body


def refuse_unknown_parameters(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """A guard: the query may hold the parameters of the handler and no other."""
    known = handler.parsed_fn_signature.parameters.keys() - RESERVED_KWARGS
    _refuse_unknown("parameter", connection.query_params, known - connection.path_params.keys())


def describe_bodies(openapi: OpenAPI, path_prefix: str) -> None:
    """Say in the schema that bodies may be left out, and hold no further fields."""
    for path, item in (openapi.paths or {}).items():
        body = item.post.request_body if item.post and path.startswith(path_prefix) else None
        if isinstance(body, RequestBody):
            body.required = False
            for media in body.content.values():
                if isinstance(media.schema, Reference):
                    openapi.components.schemas[media.schema.value].additional_properties = False


def _refuse_unknown(what: str, names: Iterable[str], known: Collection[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if not unknown:
        return
    there_are = f"use {', '.join(sorted(known))}" if known else "leave it out, there are none here"
    raise ValidationException(
        f"unknown: {', '.join(unknown)}",
        extra=[{"key": name, "message": f"is no {what}: {there_are}"} for name in unknown],
    )
