"""THE PROTOCOL of object storage: what a directory and a bucket have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gan_ray.errors import StorageError
from gan_ray.storage.uris import parse


class ObjectUnusable(StorageError):
    """It is this object's own fault: missing, changed, unreadable or refused; the store works."""


class ObjectMissing(ObjectUnusable):
    """The store has no such object, or not the one that was listed."""


class ObjectTooLarge(ObjectUnusable):
    """It has more bytes than its reader takes; none of them was read."""

    @classmethod
    def of(cls, where: str, size: int, most: int) -> ObjectTooLarge:
        """Say so of the object at `where`."""
        return cls(f"{where} has {size:,} bytes, but {most:,} are allowed: give a smaller file.")


@dataclass(frozen=True)
class Entry:
    """One object of a listing."""

    key: str
    """Name below the store's address, parts joined by '/'."""
    size: int
    """Bytes."""
    etag: str
    """Changes when the content does."""


class Store(Protocol):
    """Named byte strings below one address; safe to use from many threads.

    Every method raises StorageError when the place cannot be reached or refuses, ObjectUnusable (a
    StorageError) for a key that leads out of it. Writes are atomic: a reader sees the old content,
    the new content or nothing, never a part.
    """

    uri: str
    """Canonical address, without a trailing slash."""

    def get(self, key: str, *, etag: str = "", most: int | None = None) -> bytes:
        """Give the content; with `etag`, only if it still is the one that was listed.

        Raises ObjectMissing when there is no such object, or another one by now; ObjectTooLarge
        when it has more than `most` bytes (both are StorageErrors).
        """
        ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write the content.

        With `if_absent` the first writer wins: False means that an object was there already (it
        may be our own, if the answer to the first attempt was lost).
        """
        ...

    def exists(self, key: str) -> bool:
        """Tell whether there is such an object."""
        ...

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Stream the objects whose keys begin with `prefix`, sorted by key."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """Write the content of a local file of any size."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Write an object of any size to a local file, whose folders are made."""
        ...


def open_store(uri: str, *, private: bool = False) -> Store:
    """Give the store at `dir`, `file:///dir` or `s3://bucket/prefix`; nothing is contacted yet.

    The keys of a `private` store are names of somebody's files: messages name them as
    `names.shown` says.

    S3 takes server, region and credentials from the usual `AWS_*` variables.

    Raises:
        StorageError: the address cannot be read.
    """
    location = parse(uri)
    if location.scheme == "file":
        from gan_ray.storage.local import LocalStore

        return LocalStore(location, private=private)
    from gan_ray.storage.s3 import S3Store  # boto3 is slow to import

    return S3Store(location, private=private)
