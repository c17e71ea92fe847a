"""Where the files of a data set lie: a directory, a zip of one, or an object store."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gan_ray.data.brightness import refusal
from gan_ray.data.layout import SPLIT_FOLDERS
from gan_ray.errors import DataError
from gan_ray.names import shown, why
from gan_ray.storage import open_store

MAX_FILE_BYTES = 512 * 2**20
"""Largest file that is read; a zip's entry is refused by what its header says."""


@dataclass(frozen=True)
class Tree:
    """Files by their path below the root, with '/' between folders."""

    names: tuple[str, ...]
    """Sorted; without the litter that operating systems leave behind."""
    read: Callable[[str], bytes]
    """Gives a file's bytes; safe in several threads. Raises DataError or StorageError."""


def open_tree(root: str) -> Tree:
    """List the files below `root` without opening any of them.

    One top folder that holds everything, as zips often have, is left out of the names.

    Raises:
        DataError: there is nothing usable at `root`.
    """
    if not root:
        raise DataError(
            "no data set is named. Give --data.root a directory, a zip or s3://bucket/prefix, "
            "or take the embedded one with --data.source digits."
        )
    path = Path(root).expanduser()
    if "://" in root:
        tree = _stored(root)
    elif path.is_dir():
        tree = _directory(path)
    elif path.is_file():
        tree = _zipped(path)
    else:
        raise DataError(
            f"there is no directory or zip at '{root}'. Check --data.root (it is taken relative "
            f"to {Path.cwd()})."
        )
    if not tree.names:
        raise DataError(f"there are no files below '{root}'. Check --data.root.")
    return _without_top_folder(tree)


def refuse_missing(names: Sequence[str], tree: Tree, told_by: str) -> None:
    """Refuse names that `told_by`, a list of images, has and the tree has not.

    Raises:
        DataError: files are missing; names the first.
    """
    there = frozenset(tree.names)
    missing = [name for name in names if name not in there]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(names)} images that '{told_by}' names here are not "
            f"there, the first is {shown(missing[0])}. Add the files, or correct the list."
        )


def _directory(root: Path) -> Tree:
    names: list[str] = []
    visited: set[str] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link to a folder above
            below.clear()
            continue
        visited.add(real)
        names += [Path(folder, file).relative_to(root).as_posix() for file in files]

    def read(name: str) -> bytes:
        path = root / name
        try:
            _refuse_huge(name, path.stat().st_size)
            return path.read_bytes()
        except OSError as error:
            raise _unreadable(name, error.strerror or why(error)) from None

    return Tree(_tidy(names), read)


def _zipped(path: Path) -> Tree:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"'{path}' is neither a directory nor a readable zip ({error}). "
            "Give --data.root a directory or a zip of one."
        ) from None
    entries = {
        PurePosixPath(info.filename).as_posix(): info
        for info in archive.infolist()
        if not info.is_dir()
    }

    def read(name: str) -> bytes:
        _refuse_huge(name, entries[name].file_size)
        try:
            return archive.read(entries[name])
        except Exception as error:  # a zip can be broken in many ways: zlib, CRC, passwords
            raise _unreadable(name, why(error)) from None

    return Tree(_tidy(entries), read)


def _stored(uri: str) -> Tree:
    store = open_store(uri, private=True)
    sizes = {entry.key: entry.size for entry in store.list()}

    def read(name: str) -> bytes:
        _refuse_huge(name, sizes[name])
        return store.get(name)

    return Tree(_tidy(sizes), read)


def _tidy(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if not _is_litter(name)))


def _is_litter(name: str) -> bool:
    parts = name.split("/")
    junk = {"Thumbs.db", "desktop.ini", "DICOMDIR"}
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1] in junk


def _without_top_folder(tree: Tree) -> Tree:
    top, _, _ = tree.names[0].partition("/")
    prefix = top + "/"
    if top.lower() in SPLIT_FOLDERS or not all(name.startswith(prefix) for name in tree.names):
        return tree
    names = tuple(name.removeprefix(prefix) for name in tree.names)
    return Tree(names, lambda name: tree.read(prefix + name))


def _refuse_huge(name: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise refusal(
            name,
            f"has {size:,} bytes, more than the {MAX_FILE_BYTES:,} that are allowed",
            "Scale the image down before training.",
        )


def _unreadable(name: str, reason: str) -> DataError:
    return refusal(name, f"cannot be read ({reason})", "Mend the file or take it out.")
