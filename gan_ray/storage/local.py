"""A directory as a store."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gan_ray.errors import StorageError
from gan_ray.names import shown, why
from gan_ray.storage.store import Entry, ObjectMissing, ObjectTooLarge, ObjectUnusable
from gan_ray.storage.uris import Location

PARTIAL = ".partial-"
"""Names of files that are being written begin so; a listing passes over them."""


class LocalStore:
    """Objects are files below a directory, which is made by the first write.

    Keys that lead out of the directory, also through links, are refused. Writes reach the disk
    (fsync) before they count.
    """

    def __init__(self, location: Location, *, private: bool = False) -> None:
        """Take the parsed address of the directory; see `open_store`."""
        self.uri = location.uri
        self._root = Path(location.path)
        self._private = private

    def get(self, key: str, *, etag: str = "", most: int | None = None) -> bytes:
        """Give the content; see `Store.get`."""
        with self._reading(key) as file:
            found = os.fstat(file.fileno())
            if etag and _etag(found) != etag:
                raise ObjectMissing(
                    f"{self._at(key)} changed after it was listed. Start a new job to read the new "
                    "content."
                )
            if most is not None and found.st_size > most:
                raise ObjectTooLarge.of(self._at(key), found.st_size, most)
            return file.read()

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write the content; see `Store.put`."""
        return self._write(key, lambda file: file.write(data), if_absent=if_absent)

    def exists(self, key: str) -> bool:
        """Tell whether there is such an object."""
        with self._reported(key):
            return self._path(key, follow=True).is_file()

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Stream the objects, sorted by key; memory grows with the largest directory only."""
        with self._reported(prefix):
            yield from self._walk("", prefix)

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""
        with self._reported(key), suppress(FileNotFoundError, NotADirectoryError):
            self._path(key).unlink()

    def upload(self, path: Path, key: str) -> None:
        """Write the content of a local file."""
        with self._reported(key), open(path, "rb") as source:
            self._write(key, lambda file: shutil.copyfileobj(source, file, 2**20))

    def download(self, key: str, path: Path) -> None:
        """Write an object to a local file, whose folders are made."""
        with self._reading(key) as source:
            _write_atomically(path, lambda file: shutil.copyfileobj(source, file, 2**20))

    def _at(self, key: str) -> str:
        return f"{shown(key) if self._private else repr(key)} in {self.uri}"

    def _path(self, key: str, *, follow: bool = False) -> Path:
        """Give the file of a key; with `follow` the one that a link stands for."""
        plain = PurePosixPath(key)
        odd = str(plain) != key or plain.is_absolute() or "\0" in key
        if odd or not plain.parts or ".." in plain.parts or plain.name.startswith(PARTIAL):
            raise ObjectUnusable(
                f"key {self._at(key)} is not usable: keys are relative, without empty, '.' "
                f"and '..' parts, and do not begin with '{PARTIAL}'. Rename the object."
            )
        path = self._root / key
        real = Path(os.path.realpath(path if follow else path.parent))
        if not real.is_relative_to(self._root):
            raise ObjectUnusable(
                f"key {self._at(key)} leads out of it through a link: only what lies inside is "
                "read or written. Copy the files there, or give the directory that holds them."
            )
        return real if follow else real / plain.name

    @contextmanager
    def _reading(self, key: str) -> Iterator[BinaryIO]:
        with self._reported(key):
            path = self._path(key, follow=True)
            if not path.is_file():  # a folder, a pipe, a device: opening might never return
                raise ObjectMissing(f"no object {self._at(key)}: check the name.")
            with path.open("rb") as file:
                yield file

    @contextmanager
    def _reported(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = ObjectUnusable if isinstance(error, PermissionError) else StorageError
            raise kind(
                f"cannot use {self._at(key)}: {why(error) if self._private else error}. Check that "
                "the path exists, that its permissions allow it, and that the disk has room."
            ) from (None if self._private else error)

    def _write(
        self, key: str, fill: Callable[[BinaryIO], object], *, if_absent: bool = False
    ) -> bool:
        with self._reported(key):
            return _write_atomically(self._path(key), fill, if_absent=if_absent)

    def _walk(self, folder: str, prefix: str) -> Iterator[Entry]:
        try:
            with os.scandir(self._root / folder) as found:
                # A folder sorts as if its name ended in '/': so do the keys below it.
                children = sorted((self._key(folder, child), child.name) for child in found)
        except FileNotFoundError:
            return  # as in a bucket, where a prefix without objects is no error
        for key, name in children:
            if key.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix) and not name.startswith(PARTIAL):
                path = self._root / key
                with suppress(FileNotFoundError):  # removed in the meantime
                    info = path.stat() if path.exists() else path.lstat()
                    if not stat.S_ISFIFO(info.st_mode):
                        yield Entry(key, info.st_size, _etag(info))

    def _key(self, folder: str, child: os.DirEntry[str]) -> str:
        key = folder + child.name
        if child.is_dir(follow_symlinks=False):
            return key + "/"
        if child.is_dir():
            raise StorageError(
                f"{self._at(key)} is a link to a directory, which a listing does not follow. "
                "Replace it by the directory itself (a bind mount will do)."
            )
        try:
            key.encode()
        except UnicodeEncodeError:
            raise StorageError(
                f"name {self._at(key)} is not UTF-8, as keys must be. Rename the file."
            ) from None
        return key


def _write_atomically(
    path: Path, fill: Callable[[BinaryIO], object], *, if_absent: bool = False
) -> bool:
    """Write beside `path`, then move into place; False when `if_absent` and something is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        if if_absent:
            try:
                os.link(partial, path)
            except FileExistsError:
                return False
        else:
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    flush(path.parent)
    return True


def flush(path: Path) -> None:
    """Put a file, or a folder's list of names, on the disk before anything is said about it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _etag(info: os.stat_result) -> str:
    return f"{info.st_mtime_ns:x}-{info.st_size:x}"
