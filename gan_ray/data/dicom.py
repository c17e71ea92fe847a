"""DICOM, through pydicom: one image as a viewer shows it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from gan_ray.data.brightness import REPLACE, refusal, refuse_size
from gan_ray.data.dicom_frames import from_run_lengths, stated_size
from gan_ray.data.dicom_header import Header
from gan_ray.data.dicom_values import Codes, colour, from_palette, grey
from gan_ray.errors import DataError

_GREY = ("MONOCHROME1", "MONOCHROME2")
_INDEXED = (*_GREY, "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

_AS_PNG = "Save it as a file of its own, e.g. as a 16-bit PNG."
_INSTALL = "pip install 'gan-ray[dicom]'"


def read_dicom(data: bytes, name: str) -> np.ndarray:
    """Give the pixels of a DICOM image as [H, W] or [H, W, 3], uint8 or uint16.

    With or without preamble. Grey images are rescaled and windowed as `dicom_values.grey` says, so
    that 0 is black; YBR and palettes become RGB. The header is checked before pixels are decoded.

    Raises:
        DataError: it is damaged, holds no image or several frames, more than `MAX_PIXELS`, values
            of more than 16 bits, or pixels that no installed decoder can read. The message holds
            no value of the header but its sizes.
    """
    try:
        header = Header(data, name)
        layout = _layout(header)
        codes = Codes(header, layout["bits_allocated"])
        stored = _stored(header, layout)
        if layout["photometric_interpretation"] == "PALETTE COLOR":
            return from_palette(stored, codes, header)
        return grey(stored, codes, header) if stored.ndim == 2 else colour(stored, codes)
    except DataError:
        raise
    except Exception as error:
        kind = type(error).__name__
    # Only the kind, and outside of `except`: what pydicom says may quote the header.
    raise refusal(name, f"is a damaged DICOM file ({kind})", REPLACE)


def _layout(header: Header) -> dict[str, Any]:
    """Give what pydicom's decoders want to know, after refusing what is not read."""
    name = header.name
    if "PixelData" not in header:
        floats = "FloatPixelData" in header or "DoubleFloatPixelData" in header
        reason = "holds floating-point pixels" if floats else "is a DICOM file without an image"
        raise refusal(name, reason, _AS_PNG if floats else REPLACE)
    rows, columns = header.number("Rows"), header.number("Columns")
    refuse_size(columns, rows, name)
    frames = header.number("NumberOfFrames", 1)
    if frames != 1:
        raise refusal(name, f"holds {frames} frames", "Save each as a file of its own.")
    allocated, samples = header.number("BitsAllocated"), header.number("SamplesPerPixel", 1)
    if allocated not in (1, 8, 16):
        raise refusal(name, f"holds values of {allocated} bits; up to 16 are read", _AS_PNG)
    photometric = header.word("PhotometricInterpretation") or "MONOCHROME2"
    if (samples, photometric) not in _KNOWN:
        reason = f"holds {samples} value(s) per pixel in a colour space that is not read"
        raise refusal(name, reason, _AS_PNG)
    return {
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": samples,
        "photometric_interpretation": photometric,
        "bits_allocated": allocated,
        "bits_stored": header.number("BitsStored", allocated),
        "pixel_representation": header.number("PixelRepresentation", 0),
        "planar_configuration": header.number("PlanarConfiguration", 0),
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        "pixel_vr": header.vr("PixelData"),
    }


_KNOWN = frozenset({(1, word) for word in _INDEXED} | {(3, word) for word in _COLOUR})


def _stored(header: Header, layout: dict[str, Any]) -> np.ndarray:
    """Give the values [H, W] or [H, W, 3] as they were stored; YBR as RGB."""
    source, syntax = header.packed("PixelData"), header.syntax
    decoder = _decoder(syntax, header.name)
    if syntax.is_encapsulated:
        frame = get_frame(source, 0, number_of_frames=1)
        size = (layout["columns"], layout["rows"])
        if stated_size(frame) not in (None, size):
            reason = "holds a compressed image of another size than the {} x {} of its header"
            raise refusal(header.name, reason.format(*size), REPLACE)
        if syntax == RLELossless:
            width = layout["bits_allocated"] // 8
            source = from_run_lengths(frame, math.prod(size), layout["samples_per_pixel"], width)
            decoder = get_decoder(ExplicitVRLittleEndian)
            layout = {**layout, "planar_configuration": 1, "pixel_vr": "OW"}
    else:
        _refuse_length(len(source), layout, header.name)
    if decoder.is_native:  # `Codes` knows where the stored bits are
        layout = {**layout, "bits_stored": layout["bits_allocated"]}
    return _decoded(decoder, source, layout, header.name)


def _refuse_length(length: int, layout: dict[str, Any], name: str) -> None:
    rows, columns, samples = layout["rows"], layout["columns"], layout["samples_per_pixel"]
    bits = rows * columns * samples * layout["bits_allocated"]
    if layout["photometric_interpretation"] == "YBR_FULL_422":
        bits = bits * 2 // 3
    needed = (bits + 7) // 8
    if length < needed or length > max(2 * needed - 1, needed + 1):  # a byte may fill it up
        wrong = "fewer" if length < needed else "more"
        reason = f"holds {wrong} pixels than the {columns} x {rows} that its header tells"
        raise refusal(name, reason, REPLACE)


def _decoder(syntax: UID, name: str) -> Decoder:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        told = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
        raise refusal(name, f"is encoded as {told}, which is not read", _AS_PNG) from None
    if not decoder.is_available:
        remedy = f"Install one: {_INSTALL}."
        reason = f"is compressed as {syntax.name}, for which no decoder is installed"
        raise refusal(name, reason, remedy)
    return decoder


def _decoded(decoder: Decoder, source: bytes, layout: dict[str, Any], name: str) -> np.ndarray:
    try:
        pixels: np.ndarray = decoder.as_array(source, index=0, **layout)[0]
        return pixels
    except Exception as error:
        kind = type(error).__name__
    missing = decoder.is_encapsulated and decoder.missing_dependencies
    remedy = f"{REPLACE} If it is sound, other decoders may read it: {_INSTALL}."
    reason = f"holds pixels ({decoder.UID.name}) that cannot be decoded ({kind})"
    raise refusal(name, reason, remedy if missing else REPLACE)
