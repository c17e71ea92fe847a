"""Folders that appear whole or not at all, and files that are read without surprises."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from gan_ray.errors import ArtifactError, ConfigError, StorageError
from gan_ray.storage.local import flush


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary sibling that becomes `path` when the block ends, flushed to the disk.

    Nothing is left behind when the block raises.

    Raises:
        ConfigError: `path` exists already.
        StorageError: the folder cannot be written.
    """
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        refuse_existing(path)
        temporary.mkdir(parents=True)
        yield temporary
        for written in (*temporary.iterdir(), temporary):
            flush(written)
        try:
            temporary.rename(path)
        except OSError:
            refuse_existing(path)  # somebody else was faster
            raise
        flush(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}): choose a folder that can"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_file(file: Path) -> bytes:
    """Read a regular file; no link is followed and nothing can block.

    Raises:
        ArtifactError: it is missing, a link, or no regular file.
    """

    def plain(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)

    try:
        with open(file, "rb", opener=plain) as stream:
            if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return stream.read()
        reason = "not a regular file"
    except OSError as error:
        reason = "a link" if file.is_symlink() else (error.strerror or str(error)).lower()
    raise ArtifactError(
        f"{file}: {reason}; a bundle is a folder of regular files, as `gan-ray export` writes it: "
        "give that folder, or fetch the bundle again"
    )


def refuse_existing(path: Path) -> None:
    """Refuse to write where something is.

    Raises:
        ConfigError: `path` exists.
    """
    if os.path.lexists(path):
        raise ConfigError(f"{path} exists already and is never overwritten: give another place")
