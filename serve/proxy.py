"""What Ray's HTTP proxy lets through; it calls `middlewares` where its environment names it.

The proxy reads some headers as UTF-8 itself and fails (500) where they are not.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

CALLBACK = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.proxy:middlewares"}
"""Variable of the processes that Serve's proxies run in."""


class Readable:
    """Drops headers that are no UTF-8; what the endpoint needs of a header never is."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand in front of an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if "headers" in scope:
            headers = [pair for pair in scope["headers"] if _is_utf8(pair[1])]
            scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """Give what requests pass before Ray looks at them."""
    return [Middleware(Readable)]


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
