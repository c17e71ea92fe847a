"""Images that are not opened yet, and how many of them are opened at once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from gan_ray.data.readers import read_image
from gan_ray.data.sets import Split
from gan_ray.data.transforms import prepare, widen
from gan_ray.detector import ImageSpec
from gan_ray.errors import DataError

IN_MEMORY_BYTES = 2**30
"""Prepared images above this size are mapped from a temporary file (in TMPDIR) instead."""

_THREADS = min(16, 4 * (os.cpu_count() or 1))
_CHUNK = 16
_NAMED_FAULTS = 5

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One image of a source; nothing of it is read until `load` is called."""

    name: str
    """Where it lies in the source; appears in messages alone, and there as `names.shown` says."""
    group: str
    """Patient, or the name itself where the source knows no patients."""
    load: Callable[[], tuple[bytes, np.ndarray]]
    """Gives its stored bytes and its decoded pixels, [H, W] or [H, W, 3]."""
    kind: str = ""
    """Kind of image (digit, type of product) where the source tells it apart from normal and
    abnormal; empty where it does not."""


@dataclass(frozen=True)
class Labels:
    """What is known of a source's test items, in their order."""

    labels: np.ndarray
    """[N] int64: 0 normal, 1 abnormal."""
    sublabels: np.ndarray
    """[N] strings: "normal", or the kind of abnormality."""
    masks: Sequence[Item | None] | None = None
    """Mask of each abnormal image, where the source has masks; None for normals."""


def are_kinds(told: Iterable[str], abnormal: int) -> bool:
    """Say whether what is told of so many abnormal images are their kinds, rather than remarks.

    Kinds are fewer than half as many as the images.
    """
    return len(set(told)) < abnormal / 2


def file_item(name: str, group: str, read: Callable[[str], bytes], kind: str = "") -> Item:
    """Give the item of an image file that `read` fetches by its name."""

    def load() -> tuple[bytes, np.ndarray]:
        data = read(name)
        return data, read_image(data, name)

    return Item(name, group, load, kind)


def array_item(name: str, pixels: np.ndarray) -> Item:
    """Give the item of an image [H, W] that is decoded already; it is a group of its own."""
    return Item(name, name, lambda: (pixels.tobytes(), pixels))


def digest(content: bytes) -> str:
    """Give 12 hex digits of a sha256: the same for ever, so whoever has the content can make it.

    Splits and fingerprints go by it; what leaves the process is `names.pseudonym` of it.
    """
    return hashlib.sha256(content).hexdigest()[:12]


def each(items: Sequence[Item], look: Callable[[Item], T]) -> Iterator[T | DataError]:
    """Give `look(item)` for every item in order, many at a time.

    A `DataError` is given in place of the result, not raised. Threads suffice: decoding and
    resizing run outside Python's lock.
    """

    def guarded(item: Item) -> T | DataError:
        try:
            return look(item)
        except DataError as error:
            return error

    def some(start: int) -> list[T | DataError]:
        return [guarded(item) for item in items[start : start + _CHUNK]]

    with ThreadPoolExecutor(_THREADS) as pool:
        for seen in pool.map(some, range(0, len(items), _CHUNK)):
            yield from seen


def decode(
    items: Sequence[Item], image: ImageSpec, fit: str, *, in_memory: int = IN_MEMORY_BYTES
) -> Split:
    """Open all items and give their prepared images as one split.

    uint8, unless an item has 16 bits, which makes all uint16. Above `in_memory` bytes the images
    lie in a temporary file that is mapped into memory and vanishes with the process. All are of
    class 0.

    Raises:
        DataError: files that cannot be used; names the first ones and their reasons.
    """

    def look(item: Item) -> tuple[str, np.ndarray]:
        data, pixels = item.load()
        return digest(data), prepare(pixels, image, fit)

    rows = _room((len(items), image.channels, image.size, image.size), np.uint8, in_memory)
    ids: list[str] = []
    faults: list[DataError] = []
    for index, seen in enumerate(each(items, look)):
        if isinstance(seen, DataError):
            faults.append(seen)
            continue
        name, pixels = seen
        if pixels.dtype == np.uint16 and rows.dtype == np.uint8:
            wide = _room(rows.shape, np.uint16, in_memory)
            for done in range(index):
                wide[done] = widen(rows[done])
            rows = wide
        rows[index] = widen(pixels) if rows.dtype == np.uint16 else pixels
        ids.append(name)
    if faults:
        raise DataError(summary([str(fault) for fault in faults], len(items)))
    groups = [digest(item.group.encode()) for item in items]
    return Split(
        rows,
        np.array(groups, dtype="<U12"),
        np.array(ids, dtype="<U12"),
        np.zeros(len(items), np.int64),
    )


def summary(faults: Sequence[str], files: int) -> str:
    """Say in one sentence each what is wrong with the first of many unusable files."""
    if len(faults) == 1:
        return faults[0]
    more = len(faults) - _NAMED_FAULTS
    rest = f" ... and {more} more; `gan-ray data check` lists all." if more > 0 else ""
    return (
        f"{len(faults)} of {files} files cannot be used: {' '.join(faults[:_NAMED_FAULTS])}{rest}"
    )


def _room(shape: tuple[int, ...], dtype: type[np.generic], in_memory: int) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size <= in_memory:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return np.memmap(file, dtype, mode="r+", shape=shape).view(np.ndarray)
