"""A bucket, or a prefix of one, as a store: Amazon's S3 and every server that speaks it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import boto3
import botocore.session
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError

from gan_ray.errors import StorageError
from gan_ray.names import shown, why
from gan_ray.storage.environment import environment, s3_endpoint, s3_region
from gan_ray.storage.store import Entry, ObjectMissing, ObjectTooLarge, ObjectUnusable
from gan_ray.storage.uris import Location

ATTEMPTS = 8
"""Attempts of a request that the server answers with 5xx, throttles or cuts off."""
CONNECTIONS = 32
"""Connections of a process, hence threads that can read at the same time without waiting."""

_REMEDIES = {
    "NoSuchBucket": "The bucket does not exist: create it or correct its name.",
    "AccessDenied": "The credentials do not allow it: check the policy of user and bucket.",
    "403": "The credentials do not allow it: check AWS_ACCESS_KEY_ID and the bucket's policy.",
    "InvalidAccessKeyId": "Check AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL.",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY.",
    "ExpiredToken": "Renew the credentials.",
    "NotImplemented": "The server lacks this request; conditional puts (If-None-Match) are needed.",
}
_MISSING = ("NoSuchKey", "404", "NotFound")


class S3Store:
    """Objects below `s3://bucket/prefix`; the client is made by a process's first request.

    Requests are retried with exponential back-off and jitter; so are downloads that break off.
    A store travels between processes as an address, without client and credentials.
    """

    def __init__(self, location: Location, *, private: bool = False) -> None:
        """Take the parsed address of the prefix; see `open_store`."""
        self.uri = location.uri
        self._location = location
        self._base = f"{location.path}/" if location.path else ""
        self._private = private

    @property
    def _client(self) -> Any:
        with _making:
            return _make_client(tuple(environment().items()), ATTEMPTS)

    def get(self, key: str, *, etag: str = "", most: int | None = None) -> bytes:
        """Give the content; see `Store.get`."""
        condition = {"IfMatch": f'"{etag}"'} if etag else {}
        with self._reported(key):
            for attempt in range(ATTEMPTS):
                answer = self._client.get_object(**self._target(key), **condition)
                size = answer.get("ContentLength", 0)
                if most is not None and size > most:
                    answer["Body"].close()
                    raise ObjectTooLarge.of(self._at(key), size, most)
                try:
                    content: bytes = answer["Body"].read()
                    return content
                except (HTTPClientError, IncompleteReadError):  # broke off: boto does not retry
                    if attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write the content; see `Store.put`."""
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        with self._reported(key):
            for attempt in range(ATTEMPTS):
                try:
                    self._client.put_object(**self._target(key), Body=data, **condition)
                    return True
                except ClientError as error:
                    if if_absent and _code(error) == "PreconditionFailed":
                        return False
                    # Another writer was at work in the same moment; S3 asks to try again.
                    if _code(error) != "ConditionalRequestConflict" or attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    def exists(self, key: str) -> bool:
        """Tell whether there is such an object."""
        try:
            with self._reported(key):
                self._client.head_object(**self._target(key))
        except ObjectMissing:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Stream the objects page by page, sorted by key.

        Keys that end in '/' are passed over: consoles and file systems write them as folders.
        """
        with self._reported(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._location.bucket, Prefix=self._base + prefix
            )
            for page in pages:
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(self._base)
                    if key and not key.endswith("/"):
                        yield Entry(key, found["Size"], found["ETag"].strip('"'))

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""
        with self._reported(key):
            self._client.delete_object(**self._target(key))

    def upload(self, path: Path, key: str) -> None:
        """Write the content of a local file, in parts when it is large."""
        target = self._target(key)
        with self._reported(key):
            self._client.upload_file(str(path), target["Bucket"], target["Key"])

    def download(self, key: str, path: Path) -> None:
        """Write an object to a local file, in parts when it is large."""
        target = self._target(key)
        with self._reported(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(target["Bucket"], target["Key"], str(path))

    def _at(self, key: str) -> str:
        return f"{shown(key) if self._private else repr(key)} in {self.uri}"

    def _target(self, key: str) -> dict[str, str]:
        # urllib3 resolves dot segments before sending: such a key would leave the prefix.
        if not key or not {".", ".."}.isdisjoint((self._base + key).split("/")):
            raise ObjectUnusable(
                f"key {self._at(key)} is not usable: keys have no '.' and '..' parts. "
                "Rename the object."
            )
        return {"Bucket": self._location.bucket, "Key": self._base + key}

    @contextmanager
    def _reported(self, key: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError, Boto3Error, OSError) as error:
            code, cause = _code(error), None if self._private else error
            if code in _MISSING:
                raise ObjectMissing(f"no object {self._at(key)}: check the name.") from cause
            if code == "PreconditionFailed":
                raise ObjectMissing(
                    f"{self._at(key)} changed after it was listed. Start a new job to read the new "
                    "content."
                ) from cause
            # Boto's texts, and those of servers, quote addresses.
            told = f"{why(error)} {code}".strip() if self._private else str(error)
            server = s3_endpoint() or "Amazon S3"
            remedy = _REMEDIES.get(code, "Check the network, AWS_ENDPOINT_URL and AWS_REGION.")
            raise StorageError(
                f"cannot use {self._at(key)} at {server}: {told}. {remedy}"
            ) from cause


_making = Lock()  # a cache alone lets sixteen threads make a client each, for ten seconds


@lru_cache(maxsize=8)
def _make_client(_environment: tuple[tuple[str, str], ...], attempts: int) -> Any:
    """Give the client of this process for the present environment: it takes a while to make."""
    # A custom server is rarely reachable as bucket.host; Amazon's is only so.
    addressing = "path" if s3_endpoint() else "auto"
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=CONNECTIONS,
        connect_timeout=10,
        read_timeout=60,
        s3={"addressing_style": addressing},
    )
    # The default session is not safe to share between threads: make one. Dates stay text: nobody
    # asks for them, and to parse them takes most of a listing's time.
    session = botocore.session.Session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    shared = boto3.session.Session(botocore_session=session, region_name=s3_region())
    return shared.client("s3", config=config)


def _code(error: BaseException | None) -> str:
    """Give the S3 error code, also of a failure inside a transfer in parts."""
    if not isinstance(error, ClientError):
        error = getattr(error, "__context__", None)
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
