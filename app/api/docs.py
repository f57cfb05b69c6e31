"""The page at `/schema` that shows the HTTP API: Swagger UI, served by ourselves, so it needs no
other host."""

import asyncio
from collections.abc import Callable
from html import escape
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from litestar import Request, Response, Router
from litestar.exceptions import NotFoundException
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import OpenAPI
from litestar.static_files import create_static_files_router

FILES = "/files"

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mailroom: HTTP API</title>
<link rel="icon" href="{files}/icon.svg">
<link rel="stylesheet" href="{files}/swagger-ui.css">
</head>
<body>
<div id="swagger-ui" data-schema="{schema}"></div>
<script src="{files}/swagger-ui-bundle.js"></script>
<script src="{files}/api-docs.js"></script>
</body>
</html>
"""


class ApiDocsPlugin(OpenAPIRenderPlugin):
    """Renders the page, and serves what it loads below it."""

    def __init__(self, root_path: str) -> None:
        super().__init__(path="/swagger")
        self._root_path = root_path

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        schema = self._root_path + self.get_openapi_json_route(request)
        folder = schema.removesuffix("/openapi.json") + FILES
        return PAGE.format(files=escape(folder), schema=escape(schema)).encode()

    def receive_router(self, router: Router) -> None:
        folders = [
            files("fastapi_swagger") / "resources",
            files("app.api") / "static",
            files("app.http") / "static",
        ]
        router.register(
            create_static_files_router(
                path=FILES, directories=[str(folder) for folder in folders], include_in_schema=False
            )
        )


def api_docs_router(path: str, describe: Callable[[OpenAPI], None]) -> Router:
    """Where the API's description is served. Litestar answers unknown paths below it in HTML.

    Args:
        describe: adds what Litestar cannot tell. The description is made when somebody first asks
            for it: it would take a third of what making the application takes.
    """
    making = asyncio.Lock()
    is_made = False

    async def make_once(request: Request[Any, Any, Any]) -> None:
        nonlocal is_made
        async with making:
            if not is_made:
                # In the event loop, webhooks would wait for it.
                await asyncio.to_thread(lambda: describe(request.app.openapi_schema))
                is_made = True

    return Router(
        path,
        route_handlers=[],
        include_in_schema=False,
        before_request=make_once,
        after_request=_refuse_unknown,
    )


async def _refuse_unknown(answer: Response[Any]) -> Response[Any]:
    """A hook of Litestar.

    Raises:
        NotFoundException: nothing is there, which is told as everywhere else.
    """
    if answer.status_code == HTTPStatus.NOT_FOUND:
        raise NotFoundException
    return answer
