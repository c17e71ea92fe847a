"""From stored DICOM values to brightness: rescale, window, inversion, palettes.

All of it is one table from the at most 65,536 values that pixels can have; images of any size take
no more memory than their own.
"""

from __future__ import annotations

import struct

import numpy as np

from gan_ray.data.brightness import REPLACE, Unsigned, between, refusal
from gan_ray.data.dicom_header import Header

_COLOURS = ("Red", "Green", "Blue")
_EIGHT, _SIXTEEN = np.dtype(np.uint8), np.dtype(np.uint16)
_CHUNK = 2**20


class Codes:
    """The values that a pixel can have: `BitsStored` of them, signed or not."""

    def __init__(self, header: Header, allocated: int) -> None:
        """Learn them from the header.

        Raises:
            DataError: they do not fit into the `allocated` bits.
        """
        self.bits = header.number("BitsStored", allocated)
        self._shift = header.number("HighBit", self.bits - 1) - self.bits + 1
        if not 1 <= self.bits <= allocated or not 0 <= self._shift <= allocated - self.bits:
            reason = "has a header whose BitsAllocated, BitsStored and HighBit exclude each other"
            raise refusal(header.name, reason, REPLACE)
        codes = np.arange(1 << self.bits)
        self.signed = header.number("PixelRepresentation", 0) == 1
        negative = codes >= codes.size // 2 if self.signed else np.zeros(codes.size, bool)
        self.values = codes - codes.size * negative
        """[2^bits] what each code means, before any rescaling."""
        self.dtype: Unsigned = _EIGHT if self.bits <= 8 else _SIXTEEN
        """Of the brightness: as wide as the codes need."""

    def of(self, stored: np.ndarray) -> np.ndarray:
        """Give the codes of stored values; bits around them (old overlays) are left out."""
        bits = stored.astype(np.uint16) >> np.uint16(self._shift)
        return np.asarray(bits & np.uint16(self.values.size - 1))


def grey(stored: np.ndarray, codes: Codes, header: Header) -> np.ndarray:
    """Give stored values [H, W] as brightness, uint8 up to 8 stored bits and uint16 above.

    Modality table or rescale slope and intercept; then the first window of the header, else its
    first VOI table, else the range of the stored bits up to 8 of them, else from the darkest to the
    brightest value of the image. Padding is black, and MONOCHROME1 inverted.

    Raises:
        DataError: tables or numbers of the header cannot be used.
    """
    found = codes.of(stored)
    padding = _padding(codes, header)
    values = _rescaled(codes, header)
    if not np.isfinite(values).all():
        raise refusal(header.name, "has a header whose rescaling gives no finite values", REPLACE)
    if header.numbers("WindowCenter") and header.numbers("WindowWidth"):
        table = _windowed(values, header, codes.dtype)
    elif "VOILUTSequence" in header:
        looked_up, bits = _looked_up(values, *header.table("VOILUTSequence"), header)
        table = between(looked_up, 0, (1 << bits) - 1, codes.dtype)
    else:
        used = ~padding
        if codes.bits > 8:
            used &= _present(found, codes.values.size)
        seen = values[used] if used.any() else values
        table = between(values, float(seen.min()), float(seen.max()), codes.dtype)
    if header.word("PhotometricInterpretation") == "MONOCHROME1":
        table = np.iinfo(codes.dtype).max - table
    table[padding] = 0
    return _through(table, found)


def colour(stored: np.ndarray, codes: Codes) -> np.ndarray:
    """Give stored values [H, W, 3] as brightness of the range that their bits have."""
    table = between(codes.values, codes.values.min(), codes.values.max(), codes.dtype)
    return _through(table, codes.of(stored))


def from_palette(stored: np.ndarray, codes: Codes, header: Header) -> np.ndarray:
    """Give stored values [H, W] as the colours [H, W, 3] of the header's palette.

    Raises:
        DataError: there is no complete palette; segmented ones are none.
    """
    planes, found = [], codes.of(stored)
    for name in _COLOURS:
        descriptor = header.packed(f"{name}PaletteColorLookupTableDescriptor")
        data = header.packed(f"{name}PaletteColorLookupTableData")
        looked_up, bits = _looked_up(codes.values, descriptor, data, header)
        dtype = _EIGHT if bits == 8 else _SIXTEEN
        planes.append(_through(between(looked_up, 0, (1 << bits) - 1, dtype), found))
    if len({plane.dtype for plane in planes}) > 1:
        raise refusal(header.name, "has a palette of colours of different depths", REPLACE)
    return np.stack(planes, axis=2)


def _through(table: np.ndarray, found: np.ndarray) -> np.ndarray:
    result = np.empty(found.shape, table.dtype)
    for part, codes in zip(_chunks(result), _chunks(found), strict=True):
        part[...] = table[codes]
    return result


def _present(found: np.ndarray, size: int) -> np.ndarray:
    present = np.zeros(size, bool)
    for codes in _chunks(found):
        present[codes] = True
    return present


def _chunks(array: np.ndarray) -> list[np.ndarray]:
    """Cut an array, because an index takes 8 bytes wherever numpy looks something up."""
    flat = array.reshape(-1)
    return [flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK)]


def _rescaled(codes: Codes, header: Header) -> np.ndarray:
    if "ModalityLUTSequence" in header:
        return _looked_up(codes.values, *header.table("ModalityLUTSequence"), header)[0]
    slope, intercept = header.numbers("RescaleSlope"), header.numbers("RescaleIntercept")
    with np.errstate(over="ignore", invalid="ignore"):
        return codes.values * (slope or (1.0,))[0] + (intercept or (0.0,))[0]


def _windowed(values: np.ndarray, header: Header, dtype: Unsigned) -> np.ndarray:
    centre, width = header.numbers("WindowCenter")[0], header.numbers("WindowWidth")[0]
    function = header.word("VOILUTFunction") or "LINEAR"
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise refusal(header.name, "has a header whose WindowWidth is too small", REPLACE)
    if function == "SIGMOID":
        steps = np.clip(-4 * (values - centre) / width, -700, 700)
        return between(1 / (1 + np.exp(steps)), 0, 1, dtype)
    if function == "LINEAR_EXACT":
        return between(values, centre - width / 2, centre + width / 2, dtype)
    if function != "LINEAR":
        raise refusal(header.name, "has a window of an unknown VOILUTFunction", REPLACE)
    low = centre - width / 2  # PS3.3, C.11.2.1.2.1: c - 0.5 - (w - 1) / 2
    if width == 1:
        return np.where(values > low, np.iinfo(dtype).max, 0).astype(dtype)
    return between(values, low, low + width - 1, dtype)


def _padding(codes: Codes, header: Header) -> np.ndarray:
    ends = header.numbers("PixelPaddingValue")[:1]
    if not ends:
        return np.zeros(codes.values.size, bool)
    ends += header.numbers("PixelPaddingRangeLimit")[:1]
    return np.asarray((codes.values >= min(ends)) & (codes.values <= max(ends)))


def _looked_up(
    values: np.ndarray, descriptor: bytes, data: bytes, header: Header
) -> tuple[np.ndarray, int]:
    """Give what a table says of each value, and how many bits its entries have."""
    order = "<" if header.syntax.is_little_endian else ">"
    if len(descriptor) == 6:
        size, first, bits = struct.unpack(f"{order}3H", descriptor)
        size = size or 65536
        if first > 32767 and values.min() < 0:
            first -= 65536
        entries = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * size else np.uint8)
        if 1 <= bits <= 16 and entries.size >= size:
            where = np.clip(np.rint(values) - first, 0, size - 1).astype(np.int64)
            return entries[where].astype(np.float64), bits
    raise refusal(
        header.name,
        "has a lookup table that cannot be used (incomplete, segmented or of no known depth)",
        "Save it with its colours or greys, e.g. as a 16-bit PNG.",
    )
