"""Stores as Arrow file systems: what Ray Train and Ray Tune keep checkpoints on."""

from __future__ import annotations

from urllib.parse import urlsplit

from pyarrow import fs

from gan_ray.errors import StorageError
from gan_ray.storage.environment import s3_endpoint, s3_region
from gan_ray.storage.uris import parse

ATTEMPTS = 8
"""Of a request, as in `storage.s3`; Arrow's own three are few for a training of days."""


class _PatientS3(fs.S3FileSystem):  # type: ignore[misc]  # Arrow is untyped
    """Arrow's own forgets on its way to another process how often to try."""

    def __init__(self, **where: str | None) -> None:
        strategy = fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
        super().__init__(**where, retry_strategy=strategy)
        self._where = where

    def __reduce__(self) -> tuple[object, ...]:
        return _patient_s3, (self._where,)


def _patient_s3(where: dict[str, str | None]) -> fs.FileSystem:
    return _PatientS3(**where)


def arrow_filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """Give what Ray takes as `storage_filesystem` and `storage_path`.

    The file system carries the server's address, but no credentials: it finds them in the
    environment of the process that uses it, see `storage.environment`.

    Raises:
        StorageError: the address cannot be read.
    """
    location = parse(uri)
    if location.scheme == "file":
        return fs.LocalFileSystem(), location.path
    endpoint = urlsplit(s3_endpoint() or "")
    if endpoint.path.strip("/"):
        raise StorageError(
            f"AWS_ENDPOINT_URL '{s3_endpoint()}' has a path, which Arrow cannot use: give "
            "http(s)://host:port alone."
        )
    system = _PatientS3(
        endpoint_override=endpoint.netloc or None,
        scheme=endpoint.scheme or None,
        region=s3_region() or "us-east-1",
    )
    return system, f"{location.bucket}/{location.path}".rstrip("/")
