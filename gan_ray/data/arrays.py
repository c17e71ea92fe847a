"""npy and npz, through numpy and without its objects: one array that is an image."""

from __future__ import annotations

import io
import math
import zipfile
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from gan_ray.data.brightness import (
    REPLACE,
    from_floats,
    from_integers,
    refusal,
    refuse_size,
)
from gan_ray.errors import DataError

_ONE_IMAGE = "Save one array of shape [H, W] or [H, W, 3] per file with numpy.save."
_MAX_DIRECTORY = 4096  # bytes of a list that names one array


def read_array(data: bytes, name: str) -> np.ndarray:
    """Give the image of an npy file, or of an npz of one array, as uint8 or uint16.

    Shape [H, W] or [H, W, 3]. uint8 and uint16 stay as they are; booleans become 0 and 255; other
    integers keep their values from 0 to 65535, as uint16, and floats from 0 to 1 become 16 bit.
    Objects are never unpickled, and nothing is unpacked before its size is known.

    Raises:
        DataError: it is damaged, cut off or too large, holds several arrays, objects, another
            shape, or values out of range.
    """
    try:
        if data.startswith(b"PK"):
            return _zipped(data, name)
        return _image(io.BytesIO(data), name)
    except DataError:
        raise
    except Exception as error:
        kind = type(error).__name__
    raise refusal(name, f"is a damaged NumPy file ({kind})", REPLACE)


def _zipped(data: bytes, name: str) -> np.ndarray:
    # zipfile reads the whole list of entries, however long, before it can be asked anything.
    end = data.rfind(b"PK\5\6")
    directory = int.from_bytes(data[end + 12 : end + 16], "little")
    if end < 0 or directory > _MAX_DIRECTORY or data[end - 20 : end - 16] == b"PK\6\7":
        raise refusal(name, "is an npz of many arrays, or a damaged one", _ONE_IMAGE)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.namelist()
        if len(entries) != 1:
            raise refusal(name, f"is an npz of {len(entries)} arrays", _ONE_IMAGE)
        with archive.open(entries[0]) as file:
            return _image(file, name)


def _image(file: IO[bytes], name: str) -> np.ndarray:
    shape, fortran, dtype = read_header(file, name)
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        kind = f"values of type {type_name(dtype)}"
        what = "objects, which are never loaded" if dtype.hasobject else kind
        raise refusal(name, f"holds {what}", "Save booleans, integers or floats.")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 3):
        raise refusal(name, f"holds an array of shape {list(shape)}", _ONE_IMAGE)
    refuse_size(shape[1], shape[0], name)
    size = math.prod(shape) * dtype.itemsize
    stored = file.read(size + 1)  # for a zip, the byte after the last one checks its sum
    if len(stored) != size:
        wrong = "fewer" if len(stored) < size else "more"
        raise refusal(name, f"holds {wrong} bytes than its header tells", REPLACE)
    values = np.frombuffer(stored, dtype).reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if dtype.kind == "f":
        return from_floats(values, name)
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return values.astype(dtype.newbyteorder("="), order="C")
    return from_integers(values, name)


def type_name(dtype: np.dtype[Any]) -> str:
    """Name a type in a message, but not the fields of a record: they may be called as anybody."""
    return "record" if dtype.names else str(dtype)


def read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an npy file: shape, whether columns come first, type.

    Raises:
        DataError: its version is unknown; numpy's parser raises what it likes on a damaged one.
    """
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise refusal(name, "is a NumPy file of an unknown version", REPLACE)
