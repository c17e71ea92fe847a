"""What files of images are called; how they are read is decided by their content alone."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp",
    ".dcm", ".dicom", ".nii", ".nii.gz", ".npy", ".npz", "",
)  # fmt: skip
"""Endings of images, in lower case; "" stands for names without one, as DICOM files often have."""

_DIRECTORY = "dicomdir"  # the table of contents of a medium


def names_image(key: str, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> bool:
    """Whether a key has one of the `suffixes`, in any case.

    A name without a dot has none, and neither has a number as DICOM gives to its objects (1.2.840).
    """
    name = key.rpartition("/")[2].lower()
    if any(suffix and name.endswith(suffix) for suffix in suffixes):
        return True
    bare = "." not in name or name.replace(".", "").isdigit()
    return "" in suffixes and bare and name != _DIRECTORY


def matches(key: str, pattern: str) -> bool:
    """Whether a key fits a pattern: `*`, `?` and `[ab]` within a part, `**` for any parts or none.

    No pattern takes longer than the two lengths multiplied: strangers may send them.
    """
    parts = pattern.split("/")
    places = _with_none(parts, {0})  # how much of the pattern the key has used so far
    for name in key.split("/"):
        stayed = {place for place in places if parts[place : place + 1] == ["**"]}
        moved = {p + 1 for p in places - stayed if p < len(parts) and fnmatchcase(name, parts[p])}
        places = _with_none(parts, stayed | moved)
    return len(parts) in places


def _with_none(parts: Sequence[str], places: set[int]) -> set[int]:
    """Add where one gets by letting `**` stand for nothing."""
    for place in sorted(places):
        while parts[place : place + 1] == ["**"]:
            place += 1
            places.add(place)
    return places


def stem(path: str) -> str:
    """Give a path without the ending of its image."""
    for suffix in sorted(filter(None, IMAGE_SUFFIXES), key=len, reverse=True):
        if path.lower().endswith(suffix):
            return path[: -len(suffix)]
    return path
