"""What is done by Piccolo Admin's own routes, for the audit log: users made, changed and deleted,
sign-ins and sign-outs, exports."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import write
from app.database.engine import running_pool
from app.desk.admin_lists import TABLES_PATH
from app.desk.csv_export import is_export
from app.desk.operators import Operator
from app.desk.sign_in import signed_in
from app.models.audit_entry import Door, Result
from app.models.operator_account import OperatorAccount

LOGIN, LOGOUT, PASSWORD = "/public/login/", "/public/logout/", "/api/change-password/"
USERS = f"{TABLES_PATH}{Operator._meta.tablename}/"
ACCOUNTS = f"{TABLES_PATH}{OperatorAccount._meta.tablename}/"
CHANGES = {"POST": Act.USER_CREATE, "PATCH": Act.USER_CHANGE, "DELETE": Act.USER_DELETE}


def audited(application: ASGIApp) -> ASGIApp:
    """Piccolo Admin, of whose answers none is sent before the audit log has what they tell of."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or not _is_an_act(scope):
            await application(scope, receive, send)
            return
        # It does not outlive a sign-out.
        user = await signed_in(scope)
        body = bytearray()

        async def kept() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                body.extend(message["body"])
            return message

        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await application(scope, kept, hold)
        await _write(scope, user, _fields(bytes(body)), held)
        for message in held:
            await send(message)

    return run


def _is_an_act(scope: Any) -> bool:
    path, method = scope["path"], scope["method"]
    if method in ("GET", "HEAD"):
        return method == "GET" and path.startswith(TABLES_PATH) and _begins_export(scope)
    return path in (LOGIN, LOGOUT, PASSWORD) or path.startswith((USERS, ACCOUNTS))


def _begins_export(scope: Scope) -> bool:
    parameters = parse_qs(scope["query_string"].decode("latin-1"))
    return is_export(scope) and parameters.get("__page", ["1"]) == ["1"]


def _fields(body: bytes) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


async def _write(
    scope: Any, user: Operator | None, fields: Mapping[str, Any], answer: list[Message]
) -> None:
    start: Any = answer[0]
    status: int = start["status"]
    path, method, pool = scope["path"], scope["method"], running_pool()
    if path == LOGIN:
        await _write_sign_in(scope, fields, start)
        return
    if user is None or status >= 500:
        return
    actor = Actor.user(user.id, user.username, scope, door=Door.ADMIN)
    result = Result.DONE if status < 400 else Result.REFUSED
    if path == LOGOUT:
        await write(pool, actor, Act.SIGN_OUT, [user.username], result=result)
    elif path == PASSWORD:
        details = {"fields": ["password"]}
        await write(pool, actor, Act.USER_CHANGE, [user.id], result=result, details=details)
    elif method == "GET":
        if result is Result.DONE:
            name = path.removeprefix(TABLES_PATH).partition("/")[0]
            await write(pool, actor, Act.TABLE_EXPORT, [name])
    elif act := CHANGES.get(method):
        row = path.removeprefix(TABLES_PATH).partition("/")[2].strip("/") or _made(answer)
        if path.startswith(ACCOUNTS):
            act = Act.USER_ROLE
            row = row or str(fields.get("user_id", ""))
        named = {"fields": sorted(fields)} if fields else None
        on = [row] if row else []
        await write(pool, actor, act, on, result=result, details=named)


async def _write_sign_in(scope: Any, fields: Mapping[str, Any], start: Any) -> None:
    # What is typed there by mistake may be a password: only names that exist are kept.
    user = await Operator.objects().where(Operator.username == fields.get("username", "")).first()
    if start["status"] < 400 and user is not None:
        actor = Actor.user(user.id, user.username, scope, door=Door.ADMIN)
        await write(running_pool(), actor, Act.SIGN_IN, [user.username])
    elif start["status"] == 401:
        on = [user.username] if user is not None else []
        nobody = Actor.nobody(scope, door=Door.ADMIN)
        await write(running_pool(), nobody, Act.SIGN_IN, on, result=Result.REFUSED)


def _made(answer: list[Message]) -> str | None:
    """The id of the row that an answer tells of."""
    body = b"".join(m["body"] for m in answer if m["type"] == "http.response.body")
    try:
        return str(json.loads(body)[0]["id"])
    except (ValueError, LookupError, TypeError):
        return None
