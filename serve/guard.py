"""Who may ask, and what every answer carries."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.failures import Failure, answer
from serve.settings import AppArgs, is_loopback

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[^:]+)(:\d+)?")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


def around(args: AppArgs) -> Callable[[ASGIApp], ASGIApp]:
    """Give what names every request and protects every answer: for `FastAPI.add_middleware`.

    Without a token, only requests to a loopback name are answered: a foreign page that renames
    itself to this machine (DNS rebinding) must not get in.
    """
    is_open = not args.token.get_secret_value()

    def framed(app: ASGIApp) -> ASGIApp:
        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            request = Request(scope)
            given = request.headers.get("x-request-id", "")
            usable = _REQUEST_ID.fullmatch(given)
            request.state.request_id = given if usable else f"r-{uuid.uuid4().hex[:12]}"

            async def protected(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    headers["X-Request-ID"] = request.state.request_id
                    headers.update(_HEADERS)
                await send(message)

            host = _HOST.fullmatch(request.headers.get("host", ""))
            if is_open and not (host and is_loopback(host[1])):
                hint = "ask for http://127.0.0.1, or serve with a token"
                failure = Failure(
                    403, "FOREIGN_HOST", "only loopback names are answered here", hint
                )
                await answer(request, failure)(scope, receive, protected)
            else:
                await app(scope, receive, protected)

        return respond

    return framed


async def authorise(request: Request) -> None:
    """Let a request pass that carries the token, when there is one.

    Raises:
        Failure: no token or a wrong one (401).
    """
    token = request.app.state.args.token.get_secret_value()
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    same = secrets.compare_digest(sent.strip().encode(), token.encode())
    if token and not (same and scheme.lower() == "bearer"):
        hint = "send the header `Authorization: Bearer TOKEN`"
        raise Failure(401, "NO_TOKEN", "a token is needed: none or a wrong one came", hint)
