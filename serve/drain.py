"""Ending without cutting anybody off: who is in is answered, who comes later is sent away."""

from __future__ import annotations

import asyncio
import json

from starlette.types import ASGIApp, Receive, Scope, Send

GRACE_S = 0.5
"""Seconds in which the last answers pass through Ray's proxy."""
_REFUSAL = json.dumps(
    {
        "error": "the endpoint is being stopped",
        "code": "STOPPING",
        "request_id": "",
        "hint": "ask another one, or try again later",
    }
).encode()


class Drain:
    """Counts the requests that are in an application."""

    def __init__(self) -> None:
        """Let everybody in."""
        self._inside, self._closing, self._empty = 0, False, asyncio.Event()
        self._empty.set()

    def around(self, app: ASGIApp) -> ASGIApp:
        """Give the application with this in front of it: for `FastAPI.add_middleware`."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            await self._let_in(app, scope, receive, send)

        return counted

    async def _let_in(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
        elif self._closing:
            headers = [(b"content-type", b"application/json"), (b"retry-after", b"10")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSAL})
        else:
            self._inside += 1
            self._empty.clear()
            try:
                await app(scope, receive, send)
            finally:
                self._inside -= 1
                if not self._inside:
                    self._empty.set()

    async def close(self) -> None:
        """Take no more, and return when everybody who was in has his whole answer."""
        self._closing = True
        await self._empty.wait()
        await asyncio.sleep(GRACE_S)
