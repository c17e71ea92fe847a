"""What files of images are called; how they are read is decided by their content alone."""

from __future__ import annotations

from collections.abc import Sequence

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


def stem(path: str) -> str:
    """Give a path without the ending of its image."""
    for suffix in sorted(filter(None, IMAGE_SUFFIXES), key=len, reverse=True):
        if path.lower().endswith(suffix):
            return path[: -len(suffix)]
    return path
