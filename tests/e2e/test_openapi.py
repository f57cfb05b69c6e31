"""The OpenAPI schema is true: whatever it lets through is answered as it says."""

from importlib.metadata import version

import httpx
import psycopg
from support import Services, email, signed

from app.intake.openapi import WEBHOOK_PATH

EXAMPLES = "25"


def test_no_request_that_the_schema_allows_or_forbids_ends_in_an_error_of_ours(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    services.start_web(MAILROOM_ACCEPT_UNSIGNED="true")
    for _ in range(3):
        httpx.post(f"{services.url}{WEBHOOK_PATH}", **signed(email()))
    connection.execute("UPDATE incoming_emails SET processing_status = 'failed'")
    ended = services.run(
        "schemathesis",
        *("run", f"{services.url}/schema/openapi.json"),
        *("--header", "Authorization: Bearer token"),
        *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
        *("--checks", "response_schema_conformance,unsupported_method"),
        *("--max-examples", EXAMPLES),
        *("--generation-database", "none"),
    )
    assert ended.returncode == 0, ended.stdout[-6000:]
    assert "unhandled_error" not in services.log()


def test_the_schema_tells_the_version_that_is_installed(services: Services) -> None:
    services.start_web()
    schema = httpx.get(f"{services.url}/schema/openapi.json").json()
    assert schema["info"]["version"] == version("mailroom")


def test_the_page_of_the_schema_loads_nothing_from_elsewhere(services: Services) -> None:
    services.start_web()
    page = httpx.get(f"{services.url}/schema")
    assert page.status_code == 200
    assert "http" not in page.text.replace("HTTP API", "")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "api-docs.js"):
        path = f"/schema/files/{name}"
        assert path in page.text
        assert httpx.get(f"{services.url}{path}").status_code == 200
