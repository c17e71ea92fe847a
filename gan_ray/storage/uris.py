"""Where things are: the addresses of directories and buckets, and which of them are allowed.

A place is written `dir`, `/dir`, `file:///dir` or `s3://bucket/prefix`. It is taken literally:
nothing is percent-decoded, and there is no query, fragment, user or port.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gan_ray.errors import StorageError, unknown

SCHEMES = ("file", "s3")
FORMS = "write dir, /dir, file:///dir or s3://bucket/prefix"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_DECODABLE = re.compile(r"%[0-9A-Fa-f]{2}|[\\#?]")


@dataclass(frozen=True)
class Location:
    """A parsed address: `path` is an absolute real path, or a key prefix without outer slashes."""

    scheme: Literal["file", "s3"]
    bucket: str
    path: str

    @property
    def uri(self) -> str:
        """The canonical address, without a trailing slash."""
        if self.scheme == "file":
            return f"file://{self.path}"
        return f"s3://{self.bucket}/{self.path}".rstrip("/")

    def contains(self, other: Location) -> bool:
        """Tell whether `other` is this place or lies below it."""
        same = (self.scheme, self.bucket) == (other.scheme, other.bucket)
        root = self.path.rstrip("/")
        return same and (not root or other.path == root or other.path.startswith(f"{root}/"))


def parse(uri: str) -> Location:
    """Read an address; links in a local path are followed, so that two names of a place agree.

    Raises:
        StorageError: the scheme is unknown, a bucket or prefix is malformed.
    """
    if not uri or _CONTROL.search(uri):
        raise StorageError(f"address {uri!r} is empty or holds control characters: {FORMS}.")
    match = _SCHEME.match(uri)
    if match is None:
        return Location("file", "", os.path.realpath(uri))
    scheme = match[1]
    if scheme not in SCHEMES:
        raise StorageError(f"address '{uri}': {unknown('scheme', scheme, SCHEMES)} {FORMS}.")
    if scheme == "file":
        if not uri.startswith("file:///"):
            raise StorageError(f"address '{uri}' names a host or no absolute path: {FORMS}.")
        return Location("file", "", os.path.realpath(uri.removeprefix("file://")))
    return _parse_s3(uri)


def _parse_s3(uri: str) -> Location:
    bucket, _, path = uri.removeprefix("s3://").partition("/")
    path = path.removesuffix("/")
    if not uri.startswith("s3://") or not _BUCKET.fullmatch(bucket):
        raise StorageError(
            f"address '{uri}' has no valid bucket name (letters, digits, '.', '-', '_'): "
            "write s3://bucket/prefix; give the server in AWS_ENDPOINT_URL, credentials in "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if re.search(r"[?#]", path) or (path and not {"", ".", ".."}.isdisjoint(path.split("/"))):
        raise StorageError(
            f"address '{uri}' has an empty, '.' or '..' part, or a query or fragment, which no "
            "prefix of this project has: write s3://bucket/prefix; settings of the server belong "
            "into AWS_ENDPOINT_URL and AWS_REGION."
        )
    return Location("s3", bucket, path)


def split_uri(uri: str) -> tuple[str, str]:
    """Split the address of one object into the address of its parent and its key there.

    `s3://bucket/a/b.png` gives `("s3://bucket/a", "b.png")`.

    Raises:
        StorageError: the address names no object, or its parent is no valid address.
    """
    location = parse(uri)
    if location.scheme == "s3":
        parent, _, key = location.path.rpartition("/")
        parent = f"s3://{location.bucket}/{parent}"
    else:  # from the text: the object itself may be a link, which only its store follows
        parent, key = os.path.split(uri.removeprefix("file://"))
    if key in ("", ".", "..") or uri.endswith("/"):
        raise StorageError(f"address '{uri}' names no object: write s3://bucket/key or a file.")
    return parse(parent or ".").uri, key


class AllowList:
    """The places that may be read or written: prefixes and all below them, nothing else."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        """Take buckets, prefixes or directories; an empty list allows nothing."""
        self._allowed = tuple(parse(prefix) for prefix in prefixes)

    def check(self, uri: str) -> None:
        """Return when `uri` lies in an allowed place.

        What another program might decode or normalise differently is refused even inside of it:
        `..`, `.` and empty parts, percent codes, backslash, `?` and `#`. Links are followed.

        Raises:
            StorageError: it does not, or is written in such a way.
        """
        path = uri.partition("://")[2] if "://" in uri else uri
        segments = path.removeprefix("/").removesuffix("/").split("/")
        if _DECODABLE.search(uri) or not {"", ".", ".."}.isdisjoint(segments):
            raise StorageError(
                f"address '{uri}' is not allowed: it has a '.', '..' or empty part, a percent "
                "code, a backslash, '?' or '#'. Write it plainly, or rename the object."
            )
        location = parse(uri)
        if not any(place.contains(location) for place in self._allowed):
            allowed = ", ".join(place.uri for place in self._allowed) or "nothing"
            raise StorageError(
                f"address '{uri}' is not allowed: allowed is {allowed}. Move the objects there, "
                "or have the place added to the allow-list."
            )
