"""NIfTI, through nibabel: the slice in the middle of a volume, as DICOM shows axial slices."""

from __future__ import annotations

import gzip
import io
import math
import zlib

import nibabel
import numpy as np

from gan_ray.data.brightness import REPLACE, between, refusal, refuse_not_finite, refuse_size
from gan_ray.errors import DataError

MAX_UNPACKED = 2**28
"""Bytes of the largest file, unpacked, that is read; its header is looked at first."""

_PACKED = b"\x1f\x8b"
_MAX_RATIO = 1100  # gzip cannot pack better
_CHUNK = 2**20
_FEWER = "holds fewer voxels than its header tells"
_HEADERS = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}


def read_nifti(data: bytes, name: str) -> np.ndarray:
    """Give one slice of a NIfTI-1 or NIfTI-2 file, plain or packed, as [H, W], uint8 or uint16.

    The middle axial slice (index n // 2 of the axis closest to foot-head) of the first volume; the
    front is up and the patient's right at the left. A volume of one slice gives that slice.

    Values are scaled by the header's slope and intercept and shown from `cal_min` to `cal_max`
    where the header states them; unscaled uint8 stays as it is; all else goes from the darkest (0)
    to the brightest value of the slice, and is uint16.

    Raises:
        DataError: it is damaged or cut off, has no room on two axes, complex or colour values,
            values that are not finite, or is larger than `MAX_UNPACKED`.
    """
    try:
        return _slice(data, name)
    except DataError:
        raise
    except Exception as error:
        kind = type(error).__name__
    # Only the kind: the header may hold names.
    raise refusal(name, f"is a damaged NIfTI file ({kind})", REPLACE)


def _slice(data: bytes, name: str) -> np.ndarray:
    header = fixed_header(data, name)
    shape, stored = tuple(header.get_data_shape()), header.get_data_dtype()
    if header["magic"].item().startswith(b"ni"):
        reason = "is one half of a NIfTI pair (.hdr and .img)"
        raise refusal(name, reason, "Save both as one .nii file.")
    if not 2 <= len(shape) <= 7 or min(shape) < 1:
        raise refusal(name, f"is a NIfTI file of shape {list(shape)}", REPLACE)
    if stored.kind not in "iuf" or stored.itemsize > 8:
        reason = f"holds values of type {stored.name}"
        raise refusal(name, reason, "Save it with integers or floats, one value per voxel.")
    shape += (1,) * (3 - len(shape))
    start, volume = int(header.get_data_offset()), math.prod(shape[:3]) * stored.itemsize
    end = start + math.prod(shape) * stored.itemsize
    if start < 0 or end > MAX_UNPACKED:
        reason = f"has the shape {list(shape)}, {end:,} bytes; {MAX_UNPACKED:,} are allowed"
        raise refusal(name, reason, "Save the slices or volumes that count as files of their own.")
    unpacked = _unpacked(data, start + volume, end, name)
    voxels = np.frombuffer(unpacked, stored, math.prod(shape[:3]), start)
    plane = _middle(voxels.reshape(shape[:3], order="F"), header.get_best_affine())
    refuse_size(plane.shape[1], plane.shape[0], name)
    return _bright(plane, header, name)


def fixed_header(data: bytes, name: str) -> nibabel.Nifti1Header:
    """Read the fixed part alone: what may follow it is of any size and says nothing of pixels.

    Raises:
        DataError: it has no size that is known.
    """
    head = data
    if data.startswith(_PACKED):
        head = zlib.decompressobj(31).decompress(data, max(_HEADERS))
    for size in (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")):
        if size in _HEADERS and len(head) >= size:
            return _HEADERS[size](head[:size], check=False)
    raise refusal(name, "is a damaged NIfTI file (its header has no known size)", REPLACE)


def _unpacked(data: bytes, keep: int, end: int, name: str) -> bytes | bytearray:
    """Give the first `keep` bytes of a file that should have `end`, all of which are looked at."""
    kept: bytes | bytearray = data
    size = len(data)
    if data.startswith(_PACKED):
        if end > size * _MAX_RATIO:
            raise refusal(name, _FEWER, REPLACE)
        kept, size = bytearray(keep), 0
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                while (part := file.read(_CHUNK)) and size <= end + _CHUNK:
                    kept[size : size + len(part)] = part[: max(keep - size, 0)]
                    size += len(part)
        except (EOFError, OSError, zlib.error):
            reason = "is a packed NIfTI file that is cut off or damaged"
            raise refusal(name, reason, REPLACE) from None
    if size < end:
        raise refusal(name, _FEWER, REPLACE)
    if size > end + _CHUNK:
        raise refusal(name, "holds more voxels than its header tells", REPLACE)
    return kept


def _middle(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Give the middle slice with the front (or head) up and the patient's right at the left."""
    turned = nibabel.apply_orientation(volume, nibabel.io_orientation(affine))
    axis = turned.shape.index(1) if 1 in turned.shape else 2
    plane: np.ndarray = np.moveaxis(turned, axis, 0)[turned.shape[axis] // 2]
    return plane.T[::-1, ::-1]


def _bright(plane: np.ndarray, header: nibabel.Nifti1Header, name: str) -> np.ndarray:
    slope, intercept = header.get_slope_inter()
    low, high = float(header["cal_min"]), float(header["cal_max"])
    stated = math.isfinite(low) and math.isfinite(high) and high > low
    plain = (slope, intercept) in ((None, None), (1.0, 0.0))
    if plane.dtype == np.uint8 and plain and not stated:
        return np.ascontiguousarray(plane)
    values = plane.astype(np.float64) * (slope or 1.0) + (intercept or 0.0)
    refuse_not_finite(values, name)
    if not stated:
        low, high = float(values.min()), float(values.max())
    return between(values, low, high, np.dtype(np.uint16))
