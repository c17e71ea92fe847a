"""The one reader: bytes of an image file become pixels, for training, scoring and HTTP alike.

A file that cannot be read as it is meant raises `DataError` with the file, the reason and the
remedy; nothing is repaired, clipped or skipped in silence.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from gan_ray.data.brightness import REPLACE, refusal
from gan_ray.data.pictures import read_picture


def read_image(data: bytes, name: str) -> np.ndarray:
    """Give the pixels of an image file as [H, W] or [H, W, 3], uint8 or uint16.

    PNG, JPEG, TIFF, BMP (`read_picture`), DICOM (`read_dicom`), a slice of a NIfTI volume
    (`read_nifti`), npy and npz (`read_array`). The content decides the format, not `name`, which
    only appears in errors.

    Raises:
        DataError: the file is empty, damaged, of another format, too large, holds several images,
            or values without a defined brightness (NaN, ...).
    """
    if not data:
        raise refusal(name, "is empty (0 bytes)", REPLACE)
    for belongs, read in FORMATS:
        if belongs(data):
            return read(data, name)
    return read_picture(data, name)


def is_dicom(data: bytes) -> bool:
    """Say whether a content begins as a DICOM file does."""
    if data[128:132] == b"DICM":
        return True
    # Without a preamble a file begins with an element of group 2 or 8: its tag, then a short length
    # or two letters.
    tagged = data[:2] in (b"\x02\0", b"\x08\0") and data[3:4] == b"\0"
    return tagged and (data[6:8] == b"\0\0" or (data[4:6].isalpha() and data[4:6].isupper()))


def is_nifti(data: bytes) -> bool:
    """Say whether a content begins as a NIfTI file does, plain or packed."""
    if data.startswith(_GZIP):
        try:
            data = zlib.decompressobj(31).decompress(data, 348)
        except zlib.error:
            return False
    return data[344:348] in (b"n+1\0", b"ni1\0") or data[4:8] in (b"n+2\0", b"ni2\0")


def _is_array(data: bytes) -> bool:
    # The first entry of an npz is NAME.npy.
    length = int.from_bytes(data[26:28], "little")
    return data.startswith(b"\x93NUMPY") or (
        data.startswith(_ZIP) and data[30 : 30 + length].endswith(b".npy")
    )


def _is_foreign(data: bytes) -> bool:
    return bool(_foreign_format(data))


def _foreign_format(data: bytes) -> str:
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "a GIF image"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "a WebP image"
    if data.startswith(_ZIP):
        return "an archive inside the data set"
    if data.startswith(_GZIP):
        return "a packed file that holds no NIfTI volume"
    return ""


def _read_dicom(data: bytes, name: str) -> np.ndarray:
    from gan_ray.data.dicom import read_dicom  # half a second that those with PNGs do not wait

    return read_dicom(data, name)


def _read_nifti(data: bytes, name: str) -> np.ndarray:
    from gan_ray.data.nifti import read_nifti  # likewise

    return read_nifti(data, name)


def _read_array(data: bytes, name: str) -> np.ndarray:
    from gan_ray.data.arrays import read_array

    return read_array(data, name)


def _refuse(data: bytes, name: str) -> np.ndarray:
    reason = f"is {_foreign_format(data)}, which is not readable yet"
    raise refusal(name, reason, "Convert it to an 8-bit or 16-bit PNG.")


_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"

FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes, str], np.ndarray]], ...] = (
    (is_dicom, _read_dicom),
    (is_nifti, _read_nifti),
    (_is_array, _read_array),
    (_is_foreign, _refuse),
)
"""Who reads what, by content; `read_picture` reads the rest."""
