"""From the bytes of a request to a job, refusing early what is too large or not understood."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from gan_ray.errors import StorageError
from gan_ray.storage import AllowList
from serve.failures import Failure
from serve.schemas import UriList
from serve.settings import Limits

IMAGE_TYPES = (
    "image/png", "image/jpeg", "image/tiff", "image/bmp",
    "application/dicom", "application/octet-stream",
)  # fmt: skip
SCORE_TYPES = (*IMAGE_TYPES, "multipart/form-data", "application/json")

SentT = TypeVar("SentT", bound=BaseModel)


def content_type(request: Request, allowed: tuple[str, ...]) -> str:
    """Give the media type of the body.

    Raises:
        Failure: it is none of `allowed`, or the body is compressed (415).
    """
    hint = f"send one of {', '.join(allowed)}, uncompressed"
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Failure(415, "COMPRESSED_BODY", "compressed bodies are not accepted", hint)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in allowed:
        error = f"content type '{kind[:80]}' is not understood here"
        raise Failure(415, "UNKNOWN_CONTENT_TYPE", error, hint)
    return kind


async def whole(request: Request, limits: Limits) -> bytes:
    """Give the body.

    Raises:
        Failure: it is empty (400) or larger than allowed (413).
    """
    body = b"".join([chunk async for chunk in _limited(request, limits)])
    if not body:
        raise Failure(400, "EMPTY_BODY", "the body is empty", "send an image or a JSON document")
    return body


async def parts(request: Request, limits: Limits) -> tuple[bytes, ...]:
    """Give the files of a multipart body, in their order.

    Raises:
        Failure: it is no multipart body or holds something else than files (400), or more or
            larger ones than allowed (413).
    """
    try:
        form = await MultiPartParser(
            request.headers,
            _limited(request, limits),
            max_files=limits.parts,
            max_fields=limits.parts,
        ).parse()
    except MultiPartException as error:
        hint = f"send up to {limits.parts} files, e.g. curl -F image=@film.png"
        if error.message.startswith("Too many"):
            raise Failure(413, "TOO_MANY_PARTS", error.message, hint) from None
        raise Failure(400, "MALFORMED", f"no multipart body: {error.message}", hint) from None
    files = []
    try:
        for name, part in form.multi_items():
            if not isinstance(part, UploadFile):
                hint = "give every part a file name, e.g. curl -F image=@film.png"
                raise Failure(400, "MALFORMED", f"part '{name[:80]}' is no file", hint)
            files.append(await part.read())
    finally:
        await form.close()
    if not files:
        raise Failure(400, "EMPTY_BODY", "the body holds no part", "send at least one file")
    return tuple(files)


def document(body: bytes, kind: type[SentT]) -> SentT:
    """Give a JSON document as `kind`.

    Raises:
        Failure: it does not fit (400).
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise Failure(400, "MALFORMED", f"{where}: {first['msg']}", "see /openapi.json") from None


async def uris(request: Request, limits: Limits, allow: AllowList) -> tuple[str, ...]:
    """Give the URIs of a JSON list.

    Raises:
        Failure: one of them is not allowed (403), there are too many (413) or it is no such list.
    """
    listed = document(await whole(request, limits), UriList).uris
    if len(listed) > limits.uris:
        error = f"{len(listed)} URIs are more than the {limits.uris} of one request"
        raise Failure(413, "TOO_MANY_URIS", error, "split the list over several requests")
    for uri in listed:
        check_allowed(uri, allow, "--allow")
    return tuple(listed)


def check_allowed(uri: str, allow: AllowList, option: str) -> None:
    """Let a URI pass that the operator allowed by an `option` of `gan-ray serve`.

    Raises:
        Failure: he did not (403).
    """
    try:
        allow.check(uri)
    except StorageError as error:
        hint = f"the operator allows prefixes with `gan-ray serve {option} PREFIX`"
        raise Failure(403, "URI_NOT_ALLOWED", str(error), hint) from None


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    def too_large() -> Failure:
        error = f"the body is larger than {limits.body_bytes} bytes"
        return Failure(413, "BODY_TOO_LARGE", error, "send fewer or smaller images")

    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limits.body_bytes:
        raise too_large()
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > limits.body_bytes:
            raise too_large()
        yield chunk
