"""The one shape of a refusal: {"error", "code", "request_id", "hint"} with a 4xx or 5xx status."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gan_ray.names import trace

logger = logging.getLogger("ray.serve")

_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


class Failure(Exception):
    """A request that cannot be answered; `hint` says what the client can do."""

    def __init__(
        self, status: int, code: str, error: str, hint: str = "", *, retry_after: int | None = None
    ) -> None:
        """Say the HTTP status, a code for programs, a sentence for people and a way out."""
        super().__init__(error)
        self.status, self.code, self.error, self.hint = status, code, error, hint
        self.headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)


def answer(request: Request, failure: Failure) -> JSONResponse:
    """Give the response that says why the request failed."""
    request.state.code = failure.code
    body = {
        "error": failure.error,
        "code": failure.code,
        "request_id": request.state.request_id,
        "hint": failure.hint,
    }
    return JSONResponse(body, failure.status, failure.headers)


def install(app: FastAPI) -> None:
    """Make every failure of `app`, its own and the framework's, answer in the one shape."""

    @app.exception_handler(Failure)
    async def _refused(request: Request, failure: Failure) -> JSONResponse:
        return answer(request, failure)

    @app.exception_handler(RequestValidationError)
    async def _malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
        return answer(request, Failure(400, "MALFORMED", faults, "see /openapi.json"))

    @app.exception_handler(ClientDisconnect)
    async def _gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        # Nobody reads it; but it is no fault of the server's, and the log need not say so.
        return answer(request, Failure(400, "CLIENT_GONE", "the body ended early", "send it whole"))

    @app.exception_handler(HTTPException)
    async def _no_route(request: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, "REFUSED")
        failure = Failure(error.status_code, code, str(error.detail), "see /openapi.json")
        return answer(request, failure)

    @app.exception_handler(Exception)
    async def _broken(request: Request, error: Exception) -> JSONResponse:
        # The answer says nothing of it, and the log no more than where: a message could carry the
        # names of files.
        logger.error("request %s failed: %s", request.state.request_id, trace(error))
        hint = "report the request id to the operator, who finds the cause in the log"
        return answer(request, Failure(500, "INTERNAL", "the server failed", hint))
