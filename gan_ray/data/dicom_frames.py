"""Compressed DICOM pixels: what a frame says of its own size, and run lengths within bounds."""

from __future__ import annotations

import struct

import numpy as np


def stated_size(frame: bytes) -> tuple[int, int] | None:
    """Give width and height as a JPEG, JPEG-LS or JPEG 2000 frame states them; None for others.

    A decoder takes memory for this size, whatever the header of the DICOM file says.
    """
    if frame.startswith(b"\xff\x4f\xff\x51"):  # JPEG 2000: SIZ follows the start
        right, lower, left, upper = struct.unpack(">4I", frame[8:24])
        return right - left, lower - upper
    if not frame.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a filling byte
            at += 1
        elif marker in _FRAME_STARTS:
            height, width = struct.unpack(">2H", frame[at + 5 : at + 9])
            return width, height
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


# SOF0 to SOF15 without the three that mean something else (DHT, JPG, DAC), and SOF55 of JPEG-LS.
_FRAME_STARTS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}


def from_run_lengths(frame: bytes, pixels: int, samples: int, width: int) -> bytes:
    """Give an RLE frame as plane after plane of little-endian values of `width` bytes.

    Takes the memory of the result and not more, whatever the frame holds (PS3.5, annex G).

    Raises:
        ValueError: it does not hold so many values.
    """
    count, *offsets = struct.unpack("<16I", frame[:64])
    if count != samples * width:
        raise ValueError("another number of segments")
    planes = np.empty((samples, pixels, width), np.uint8)
    ends = [*offsets[1:count], len(frame)]
    for index, (start, end) in enumerate(zip(offsets[:count], ends, strict=True)):
        sample, byte = divmod(index, width)  # the most significant byte comes first
        planes[sample, :, width - 1 - byte] = _unpacked(frame[start:end], pixels)
    return planes.tobytes()


def _unpacked(segment: bytes, size: int) -> np.ndarray:
    plane = bytearray()
    at, end = 0, len(segment) - 1
    while len(plane) < size and at < end:
        head = segment[at]
        if head < 128:
            plane += segment[at + 1 : at + 2 + head]
            at += 2 + head
        elif head > 128:
            plane += segment[at + 1 : at + 2] * (257 - head)
            at += 2
        else:
            at += 1
    if len(plane) < size:
        raise ValueError("a segment is too short")
    return np.frombuffer(plane, np.uint8, size)
