"""What the environment says about S3: the `AWS_*` variables that boto3 and Arrow share."""

from __future__ import annotations

import os

_FORWARDED = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
)


def environment() -> dict[str, str]:
    """Give the variables that other processes need to reach the same stores.

    Nodes with their own roles need none.
    """
    return {name: os.environ[name] for name in _FORWARDED if name in os.environ}


def s3_endpoint() -> str | None:
    """Give the S3 server's URL, None for Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def s3_region() -> str | None:
    """Give the region of the environment, None when it names none."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None
